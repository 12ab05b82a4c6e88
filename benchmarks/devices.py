"""How does a step scale over devices, and what does it move between them?

    python -m benchmarks.devices

Each row is a process of its own with so many simulated devices (XLA's, on the same
cores): `bytes` are counted in the compiled program and are those of real devices;
`seconds` of as many rows a device show what the sharing out itself costs and no more,
since the devices take turns on the cores of one machine.
"""

import importlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time

import jax

from benchmarks import harness
from experiments import cli, fields
from experiments.build import build, make_experiment

ROWS = 32  # a device
DEVICES = (1, 2, 8)
STEPS = 5
WORK = {  # of :cpu presets; parts are one a device
    "none": {},
    "cd_full": {},
    "cd_full in parts": {"negatives.parts": None, "replay.capacity": 2_048},
    "sudoku": {},
    "sudoku in parts": {"proposal.parts": None},
}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute",)
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")


def collectives(text: str) -> dict[str, int]:
    """Bytes that each kind of collective of a compiled program gives a device.

    Those in the body of a loop count as often as it turns.
    """
    bodies, calls, name = {}, {}, None  # calls: {computation: (caller, how often)}
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        name = head[1] if head else name
        bodies.setdefault(name, []).append(line)
    for caller, lines in bodies.items():
        for line in lines:
            trips = re.search(r'known_trip_count":\{"n":"(\d+)', line)
            for callee in re.findall(r"(?:body|to_apply|calls)=%?([\w.\-]+)", line):
                calls[callee] = caller, int(trips[1]) if trips else 1
    total = {}
    for name, lines in bodies.items():
        for shapes, kind in COLLECTIVE.findall("\n".join(lines)):
            moved = _turns(name, calls) * _bytes(shapes)
            total[kind] = total.get(kind, 0) + moved
    return total


def _turns(name: str, calls: dict[str, tuple[str, int]]) -> int:
    """How often a computation runs."""
    caller, count = calls.get(name, (None, 1))
    return count * (_turns(caller, calls) if caller else 1)


def _bytes(shapes: str) -> int:
    """Of the arrays in `f32[8,4]{1,0}` or a tuple of such."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    return sum(
        BYTES.get(kind, 4) * math.prod(map(int, filter(None, size.split(","))))
        for kind, size in found
    )


def measure(work: str, count: int) -> dict:
    """Bytes and seconds of a step on all devices of this process."""
    given = fields.flatten(importlib.import_module(f"configs.{work.split()[0]}")
                           .get_config("cpu"))  # fmt: skip
    changes = {k: count if v is None else v for k, v in WORK[work].items()}
    changes |= {"train.batch_size": ROWS * count, "train.steps_per_dispatch": 1}
    experiment = build(fields.nest(fields.replace(make_experiment, given, changes)))
    state, data = experiment.init_state(), experiment.train_data
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    step = experiment.dispatch().lower(state, data).compile()
    seconds = []
    for _ in range(STEPS + 1):  # the first is left out
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, data))
        seconds.append(time.perf_counter() - start)
    return {
        "devices": count,
        "params_bytes": size,
        "bytes": collectives(step.as_text()),
        "seconds": statistics.median(seconds[1:]),
    }


def in_child(work: str, count: int) -> dict:
    """`measure` in a process with so many simulated devices."""
    devices = f"--xla_force_host_platform_device_count={count}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {devices}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.devices", f"--child={work},{count}"],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], batch_size=ROWS)
    flags.add_argument("--child", help="work,devices: what a process of its own does")
    flags = flags.parse_args(argv)
    cli.enable_compilation_cache()
    if flags.child:
        work, _, count = flags.child.partition(",")
        print(json.dumps(measure(work, int(count))))
        return
    flags, rows = harness.start(flags), []
    for work in WORK:
        for count in DEVICES[::2] if flags.quick else DEVICES:
            row = in_child(work, count)
            moved = " ".join(f"{k} {v:,}" for k, v in row["bytes"].items()) or "0"
            print(
                f"{work}, {count} devices of {ROWS} rows: parameters"
                f" {row['params_bytes']:,} bytes, moved {moved},"
                f" {row['seconds']:.3f} s",
                flush=True,
            )
            rows.append({"work": work, "system": "ired_jax", **row})
    harness.record("devices", flags, rows)


if __name__ == "__main__":
    main()
