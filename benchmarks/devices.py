"""How does a step scale over devices, and what does it move between them?

    python -m benchmarks.devices

Each row is a process of its own with so many simulated devices (XLA's, on the same
cores): `bytes` are counted in the compiled program and are those of real devices;
`seconds` of as many rows a device show what the sharing out itself costs and no more,
since the devices take turns on the cores of one machine.
"""

import json
import math
import os
import re
import subprocess
import sys
import time

from benchmarks import harness

ROWS = 32  # a device
DEVICES = (1, 2, 4, 8)
WORK = {
    "denoising": {"objectives": ("denoising",)},
    "cd_full": {},
    "cd_full, rings in parts": {"replay.parts": None},  # one a device
    "proposal": {},
}
CONFIGS = {"proposal": "sudoku"}  # else cd_full
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute",)
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")


def collectives(text: str) -> dict[str, int]:
    """Bytes that each kind of collective of a compiled program gives a device.

    Those in the body of a loop count as often as it turns.
    """
    bodies, name = {}, None
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        name = head[1] if head else name
        bodies.setdefault(name, []).append(line)
    turns = dict.fromkeys(bodies, 1)
    calls = {}  # of a computation: (the one that calls it, how often)
    for caller, lines in bodies.items():
        for line in lines:
            trips = re.search(r'known_trip_count":\{"n":"(\d+)', line)
            for callee in re.findall(r"(?:body|to_apply|calls)=%?([\w.\-]+)", line):
                is_body = f"body=%{callee}" in line or f"body={callee}" in line
                calls[callee] = caller, int(trips[1]) if trips and is_body else 1

    def times(name):
        return math.prod(turns_of(name))

    def turns_of(name):
        while name in calls:
            name, count = calls[name]
            yield count

    total = {}
    for name, lines in bodies.items():
        for line in lines:
            if found := COLLECTIVE.search(line):
                moved = times(name) * _bytes(found[1])
                total[found[2]] = total.get(found[2], 0) + moved
    return total


def _bytes(shapes: str) -> int:
    """Of the arrays in `f32[8,4]{1,0}` or a tuple of such."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    return sum(
        BYTES.get(kind, 4) * math.prod(map(int, filter(None, size.split(","))))
        for kind, size in found
    )
