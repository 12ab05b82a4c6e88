"""What a sweep will take: each distinct train step is compiled and timed once."""

import concurrent.futures
import multiprocessing
import re
import time
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import jax

from experiments import cli, fields
from experiments.build import Experiment, build, memory_bytes
from experiments.errors import UserError
from experiments.run.meter import duration
from experiments.schema import Values
from experiments.startup import bytes_of

# Two programs that differ in real constants alone, as in a rate, cost the same.
REALS = re.compile(r"dense<[^>]*>(?= : tensor<[^>]*(?:f32|f64|bf16)>)")


class Cost(NamedTuple):
    """Of one point, its seeds together."""

    nbytes: int  # of a step: arguments, results, temporaries
    seconds: float  # of the steps that are left, evaluations aside


def costs(points: Mapping[str, Values], steps: Mapping[str, int]) -> dict[str, Cost]:
    """The cost of each point: {name: cost} of {name: every field}.

    Of the phases and their steps that are left after so many `steps`.
    """
    found, known = {}, {}
    for name, values in points.items():
        experiment = build(fields.nest(values))
        firsts = [first for first, _ in experiment.phases]
        ends = *firsts[1:], experiment.periods.num_steps
        total = Cost(0, 0.0)
        for phase, (first, end) in enumerate(zip(firsts, ends, strict=True)):
            if (left := end - max(first, steps[name])) <= 0:
                continue
            step = experiment.dispatch(phase)
            lowered = step.lower(experiment.shapes, experiment.train_data)
            program = REALS.sub("", lowered.as_text())
            if program not in known:
                known[program] = _measured(experiment, lowered)
            nbytes, seconds = known[program]
            total = Cost(max(total.nbytes, nbytes), total.seconds + left * seconds)
        found[name] = total
    return found


def in_child(
    points: Mapping[str, Values], steps: Mapping[str, int]
) -> tuple[dict[str, Cost], int]:
    """`costs`, and the bytes that the device has, from a process that then ends.

    So that this one never holds a device: the points need it whole.

    Raises:
      UserError: a point that cannot be built, or a process that did not live.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_alone, points, steps).result()
        except BrokenProcessPool as error:
            raise UserError(
                "the estimate's process was killed, for want of memory perhaps"
                " (--noestimate starts without one)"
            ) from error


def total_hours(
    found: Mapping[str, Cost], parallel: int, *, is_shared: bool = True
) -> float:
    """The hours of all steps.

    Points that share a device share its speed: side by side they take as long as one
    after the other. Where each has its own, the longest is the least.
    """
    seconds = [cost.seconds for cost in found.values()]
    total = sum(seconds) if is_shared else max(max(seconds), sum(seconds) / parallel)
    return total / 3600


def refuse_if_too_much(
    found: Mapping[str, Cost],
    *,
    have_bytes: int,
    hours: float | None,
    parallel: int,
    is_shared: bool = True,
) -> None:
    """Refuses what does not fit into memory or time.

    Raises:
      UserError: the points that run together need more than `have_bytes`, or all
        points more than `hours`.
    """
    largest = sorted(found, key=lambda name: found[name].nbytes, reverse=True)
    together = largest[: parallel if is_shared else 1]
    need = sum(found[name].nbytes for name in together)
    if need > have_bytes:
        raise UserError(
            f"{', '.join(together)}: a step needs {need / 2**30:.3g} GiB, the device"
            f" has {have_bytes / 2**30:.3g} GiB (--parallel={parallel}, seeds, batch)"
        )
    takes = total_hours(found, parallel, is_shared=is_shared)
    if hours is not None and takes > hours:
        raise UserError(
            f"hours={hours:g}: the steps alone take {duration(3600 * takes)}, must be"
            " longer, or the points, seeds or steps fewer"
        )


def told(found: Mapping[str, Cost], parallel: int, *, is_shared: bool) -> str:
    """The estimate in two lines."""
    hours = total_hours(found, parallel, is_shared=is_shared)
    longest = max(found, key=lambda name: found[name].seconds)
    most = max(cost.nbytes for cost in found.values())
    return (
        f"estimate: {len(found)} points, {duration(3600 * hours)} of steps, evaluations"
        f" aside\nthe longest {longest}, {duration(found[longest].seconds)};"
        f" the largest step needs {most / 2**30:.2g} GiB"
    )


def _alone(
    points: Mapping[str, Values], steps: Mapping[str, int]
) -> tuple[dict[str, Cost], int]:
    cli.keep_memory()
    cli.enable_compilation_cache()
    return costs(points, steps), memory_bytes()


def _measured(experiment: Experiment, lowered: jax.stages.Lowered) -> tuple[int, float]:
    """(bytes, seconds a step) of a dispatch, compiled, warmed up and timed.

    One that needs more bytes than the device has is not run: it takes no time.
    """
    step = lowered.compile()
    nbytes, _ = bytes_of(step) or (0, 0)  # of a device that does not tell
    if nbytes > memory_bytes():
        return nbytes, 0.0
    data = jax.device_put(experiment.train_data)
    state, _ = jax.block_until_ready(step(experiment.init_state(), data))
    start = time.monotonic()
    jax.block_until_ready(step(state, data))
    return nbytes, (time.monotonic() - start) / experiment.periods.steps_per_dispatch
