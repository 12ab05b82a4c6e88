"""The model's own answers, noised: negatives from where inference is."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ired_jax import blocks, boxes, trees
from ired_jax.diffusion import Schedule
from ired_jax.negatives.base import (
    BoxFn,
    ChainInfo,
    ChainPrecision,
    DescentSteps,
    Strategy,
    Units,
    assert_rows,
    box_of,
    q_sample,
    still,
)
from ired_jax.samplers import inference
from ired_jax.types import Array, EnergyFn, Tree


class _Levels(NamedTuple):
    """The landscapes E of one x, by level."""

    at: Callable[[Array], EnergyFn]

    def __call__(self, y: Tree, t: Array) -> Array:
        return self.at(t)(y)


def make_on_trajectory(
    schedule: Schedule,
    box: BoxFn,
    units: Units,
    block_rows: int | None = None,
    *,
    descent_steps: DescentSteps = 2,
    chains: ChainPrecision = "float32",
) -> Strategy:
    """Where inference is after each row's level, noised with the positive's eps.

    The answers that the model itself gives, false minima included. Once they are right,
    y- is y+ and the pair says nothing: no other strategy has that. Inference begins at
    noise, whatever a row's level, and all levels are run, those below it too.
    """

    def start(key, rows, progress):
        del progress
        assert_rows(rows, rows["y0"])
        return still(box, rows["x"], trees.normal(key, rows["y0"]))

    def refine(key, landscape, rows, y, progress):
        del key, progress
        assert_rows(rows, y)

        def one(x, t, y):
            def at(level):
                energy_fn = landscape(x, level)
                return lambda y: units.scale(level) * energy_fn(y)

            _, info = inference.solve_from(
                y,
                _Levels(at),
                schedule,
                num_steps=descent_steps,
                bounds=box_of(box, x),
                trace=True,
            )
            place = schedule.num_levels - 1 - t
            y0 = jax.tree.map(lambda leaf: leaf[place], info.answers)
            return y0, jnp.mean(info.acceptance)

        y0, acceptance = blocks.vmap(one, block_rows)(rows["x"], rows["t"], y)
        end = q_sample(schedule, y0, rows["t"], rows["eps"])
        moved = jax.vmap(lambda x, by: boxes.rms_free(box_of(box, x), by))(
            rows["x"], trees.subtract(end, y)
        )
        return end, ChainInfo(acceptance, moved, jnp.zeros_like(moved))

    return Strategy(start, refine, chains)
