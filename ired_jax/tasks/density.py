"""A density on the plane: x = (), y [2] ~ a mixture of Gaussians, one level, no noise.

What is learned is the energy of the data itself, so only contrastive objectives fit.
The data's density has a closed form and two dimensions have a grid: KL(data | model) is
exact, and what an objective does to a landscape can be seen. Centres lie on `rings`, on
two `spirals` or on a `grid`, with one standard deviation for all.
"""

import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ired_jax.fields import Field, Part
from ired_jax.metrics import densities
from ired_jax.tasks.base import Evaluator, Inference, ModelFn, Source, Task
from ired_jax.types import Array, Box, Example

KINDS = ("rings", "spirals", "grid")
# The farthest centre of any kind is more than 7 standard deviations inside.
HALF_WIDTH = 3.5
DEVIATION = {"rings": 0.12, "spirals": 0.12, "grid": 0.2}
GRID = densities.Grid(HALF_WIDTH, cells=192)
INFERENCE = Inference(schedule="clean", num_levels=1)


def make_density(
    *,
    kind: Annotated[
        str, Field("where the mixture's centres lie", one_of=KINDS)
    ] = "rings",
    inference: Annotated[Inference, Part(Inference, "eval")] = INFERENCE,
) -> Task:
    """Makes the task.

    Raises:
      ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(KINDS)}")
    means, deviation = jnp.asarray(centres(kind), jnp.float32), DEVIATION[kind]

    def draw(key: Array) -> Example:
        key_centre, key_noise = jax.random.split(key)
        mean = means[jax.random.randint(key_centre, (), 0, len(means))]
        return Example((), mean + deviation * jax.random.normal(key_noise, (2,)))

    def kl(energy_fn, key: Array) -> Array:
        del key
        model = densities.log_density(GRID, lambda y: energy_fn((), y, jnp.int32(0)))
        data = jax.vmap(lambda y: log_density(y, means, deviation))(GRID.points)
        return densities.kl_divergence(GRID, data, model)

    source = Source.fresh(draw, box=lambda x: Box(-HALF_WIDTH, HALF_WIDTH))
    return Task(
        train=source,
        splits={"val": source},
        metrics={},
        primary="kl",
        inference=inference,
        evaluators={"kl": Evaluator(kl, "low", "nats", trivial=trivial(kind))},
        fitted=(),
    )


def trivial(kind: str) -> dict[str, ModelFn]:
    """Energies that know nothing of the mixture, or its mean and covariance alone.

    (x (), y [2], t) -> (), in nats, up to a constant.
    """
    means = centres(kind)
    covariance = np.cov(means.T, bias=True) + DEVIATION[kind] ** 2 * np.eye(2)
    middle, precision = means.mean(axis=0), np.linalg.inv(covariance)

    def gaussian(x: tuple, y: Array, t: Array) -> Array:
        del x, t
        return (y - middle) @ precision @ (y - middle) / 2

    return {"uniform": lambda x, y, t: jnp.float32(0), "one Gaussian": gaussian}


def log_density(y: Array, means: Array, deviation: float) -> Array:
    """log of the mixture's density at y [2], means [K, 2] of equal weight: ()."""
    squares = jnp.sum((y[None] - means) ** 2, axis=-1)
    of_each = -squares / (2 * deviation**2) - math.log(2 * math.pi * deviation**2)
    return jax.nn.logsumexp(of_each) - math.log(len(means))


def centres(kind: str) -> np.ndarray:
    """The means of the mixture, [K, 2] float64."""
    if kind == "rings":
        # As many to a ring as its length asks for: the density is even along it.
        rings = [(r, round(60 * r)) for r in (0.8, 1.6, 2.4)]
        turns = [(r, 2 * np.pi * np.arange(k) / k) for r, k in rings]
        return np.concatenate([r * _unit(angle) for r, angle in turns])
    if kind == "spirals":
        share = np.sqrt(np.linspace(0.03, 1, 150))  # even along the arm
        arm = 2.5 * share[:, None] * _unit(3 * np.pi * share)
        return np.concatenate([arm, -arm])
    side = np.linspace(-2, 2, 4)
    return np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)


def _unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
