"""The same weights and inputs for all systems, and the check that they agree."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ired_jax import blocks, convert, diffusion
from ired_jax.diffusion import Schedule
from ired_jax.energies.mlp import make_mlp
from ired_jax.precision import PRECISIONS
from ired_jax.tasks.inverse import make_inverse
from ired_jax.types import Array, Energy, Example, Params

NUM_LEVELS = 10
WIDTH = 512
# What the bits that products round away add to a difference, beside float32.
ROUNDING = {None: 1.0, PRECISIONS["float32"]: 1.0, PRECISIONS["tf32"]: 100.0}
GAIN = 2.5  # of the body's weights: keeps the size of signals through swish


class Inputs(NamedTuple):
    """One energy, one batch; the arrays of each row, [B, ...]."""

    energy: Energy
    params: Params
    schedule: Schedule
    x: Array
    y0: Array
    y: Array  # noised to the row's level
    t: Array

    def numpy(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(getattr(self, name)) for name in ("x", "y0", "y", "t")}

    def state_dict(self) -> dict[str, np.ndarray]:
        return convert.to_state_dict(self.params, head="squared_norm")


def of_all_rows(inputs: Inputs, one: Callable) -> Callable:
    """one(params, *row) -> (params, *rows), as the train step calls its chains."""
    example = jax.eval_shape(lambda: Example(inputs.x[0], inputs.y[0]))
    at_once = blocks.rows_at_once(inputs.energy, example)
    return lambda params, *rows: blocks.vmap(partial(one, params), at_once)(*rows)


def make_inputs(flags: argparse.Namespace, *, num_levels: int = NUM_LEVELS) -> Inputs:
    """Weights whose input gradient has unit size, as denoising makes it, and rows."""
    key = jax.random.key(flags.seed)
    keys = [jax.random.fold_in(key, i) for i in range(4)]
    source, size = make_inverse(n=flags.n).train, flags.n**2
    schedule = diffusion.make_schedule("cosine", num_levels)
    energy = make_mlp(size, size, width=WIDTH, num_levels=num_levels)
    rows = jax.random.split(keys[1], flags.batch_size)
    x, y0 = jax.vmap(partial(source.draw, source.data))(rows)
    t = jnp.arange(flags.batch_size, dtype=jnp.int32) % num_levels
    eps = jax.random.normal(keys[2], y0.shape)
    y = schedule.a[t][:, None] * y0 + schedule.s[t][:, None] * eps
    params = _lively(energy, energy.init(keys[0]), x, y, t)
    return Inputs(energy, params, schedule, x, y0, y, t)


def _lively(energy: Energy, params: Params, x: Array, y: Array, t: Array) -> Params:
    """Initial weights, scaled so that the input gradient has unit size.

    Fresh weights give an energy that is a large constant with a small slope: what is
    accepted would then hang on the last bit, which no trained energy does. So signals
    keep their size through the layers, and the mean output of the rows is taken off.
    """
    body = {name: params[name] for name in ("fc1_x", "fc1_y", "fc2", "fc3")}
    params = params | jax.tree.map(lambda leaf: GAIN * leaf, body)
    value = jax.vmap(energy.apply, (None, 0, 0, 0))

    def centred(bias):
        last = params["fc4"] | {"bias": bias}
        return jnp.mean(value(params | {"fc4": last}, x, y, t))

    # mean |W h + b|^2 is least at b = -mean(W h): one Newton step of |.|^2.
    bias = params["fc4"]["bias"]
    last = params["fc4"] | {"bias": bias - jax.grad(centred)(bias) / 2}
    grad = jax.vmap(jax.grad(energy.apply, argnums=2), (None, 0, 0, 0))
    # |c out|^2 has c^2 times the gradient.
    scale = jnp.mean(grad(params | {"fc4": last}, x, y, t) ** 2) ** -0.25
    return params | {"fc4": jax.tree.map(lambda leaf: leaf * scale, last)}


def step_flops(n: int, *, width: int = WIDTH) -> float:
    """Products of one energy and input gradient of one row, x and t parts done once.

    Forward: y to width, twice width to width, width to y; backward the same again.
    """
    size = n * n
    return 2.0 * 2 * (2 * size * width + 2 * width**2)


def grad_flops(n: int, *, width: int = WIDTH) -> float:
    """Products of one input gradient alone.

    The energy brings it: the last layer's weights W enter twice, or W W^T once.
    """
    twice, once = 2.0 * 2 * n * n * width, 2.0 * width**2
    return step_flops(n, width=width) - max(0.0, twice - once)


def energy_flops(n: int, *, width: int = WIDTH) -> float:
    """Products of one energy alone: half of the above."""
    return step_flops(n, width=width) / 2


def x_flops(n: int, *, width: int = WIDTH) -> float:
    """Products of one row's x part, done once for a chain or an inference.

    The t part is done once a level for all rows, and counts 0.
    """
    return 2.0 * n * n * width


def inference_flops(n: int, num_levels: int, num_steps: int) -> float:
    """Products of one row's inference.

    Each level: the first gradient, the start's, those of all proposals but the last,
    and the last one's energy.
    """
    level = (1 + num_steps) * step_flops(n) + energy_flops(n)
    return num_levels * level + x_flops(n)


def assert_close(name: str, first: Any, second: Any, tolerance: float) -> float:
    """Largest difference over the largest value; more than `tolerance` stops all.

    `tolerance` is for float32 products; where JAX's default is another, it is wider.
    """
    first, second = np.asarray(first), np.asarray(second)
    tolerance *= ROUNDING[jax.config.jax_default_matmul_precision]
    error = float(np.max(np.abs(first - second)) / np.max(np.abs(first)))
    print(f"{name}: relative difference {error:.1e} (at most {tolerance:.0e})")
    if not error <= tolerance:
        raise SystemExit(f"{name} differs by {error:.1e}, more than {tolerance:.0e}")
    return error
