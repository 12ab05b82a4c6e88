"""The published convolutional energy: an oracle without it, and what is given."""

import functools
from itertools import product

import jax
import numpy as np
import pytest

from ired_jax import diffusion
from ired_jax.energies import convolutional
from tests import boards_of, references, toys
from tests.mutants import Mutant, one

T, BLOCKS = 10, 2


def _count(c, blocks):
    time = 128 * 64 + 64 + 64 * 64 + 64
    block = 2 * (25 * c * c + c) + 64 * 2 * c + 2 * c
    return time + 9 * 18 * c + c + blocks * block + 9 * c + 9


def _convolved(layer, board):
    """[9, 9, i] -> [9, 9, o], each cell the sum over what lies around it."""
    kernel = layer["kernel"]
    reach = len(kernel) // 2
    out = np.zeros((9, 9, kernel.shape[-1]), complex) + layer["bias"]
    for r, c, i, j in product(range(9), range(9), *2 * [range(-reach, reach + 1)]):
        if 0 <= r + i < 9 and 0 <= c + j < 9:
            out[r, c] += board[r + i, c + j] @ kernel[i + reach, j + reach]
    return out


def _oracle(params, x, y, t):
    """E of y [9, 9, 9], float64 or complex."""
    frequency = np.exp(-np.log(1e4) / 63 * np.arange(64))
    time = np.concatenate([np.sin(t * frequency), np.cos(t * frequency)])
    time = references.gelu(references.affine(params["time_first"], time))
    time = references.affine(params["time_second"], time)
    known = -np.ones((9, 9, 9))
    for r, c in np.argwhere(x > 0):
        known[r, c, x[r, c] - 1] = 1
    seen = np.where((x > 0)[..., None], references.schedule("cosine", T)[2][t], 1)
    seen = seen * np.where((x > 0)[..., None], known, y)
    h = _convolved(params["inputs"], np.concatenate([known, seen], -1))
    h = references.swish(h)
    for index in range(BLOCKS):
        block = params[f"stack_{index}"]
        gain, bias = np.split(references.affine(block["modulate"], time), 2)
        change = references.swish(_convolved(block["first"], h))
        change = _convolved(block["second"], change)
        h = h + references.swish((1 + gain) * change + bias)
    return np.sum(_convolved(params["head"], h) ** 2)


@functools.cache
def _case():
    schedule = diffusion.make_schedule("cosine", T)
    energy = convolutional.make_convolutional(schedule, channels=4, blocks=BLOCKS)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.float32(rng.normal(size=leaf.shape) * leaf.size**-0.3), shapes
    )
    x, y = boards_of.examples()
    return energy, params, x[0], np.float32(y[0] + rng.normal(size=y[0].shape))


@functools.cache
def _value_and_gradient():
    energy, *_ = _case()
    of = toys.jit(jax.value_and_grad(energy, 2))
    return lambda *point: jax.tree.map(np.asarray, of(*point))


@pytest.mark.parametrize("t", [0, 7])
def test_value_and_slope_equal_the_float64_oracle(t):
    _, params, x, y = _case()
    value, grad = _value_and_gradient()(params, x, y, np.int32(t))
    params, y = references.float64(params), np.float64(y)
    np.testing.assert_allclose(value, _oracle(params, x, y, t).real, rtol=1e-5)
    direction = np.random.default_rng(1).normal(size=y.shape)
    slope = _oracle(params, x, y + 1e-30j * direction, t).imag / 1e-30
    scale = np.linalg.norm(grad) * np.linalg.norm(direction) / 27
    assert abs(np.sum(direction * grad) - slope) < 1e-4 * scale


def test_givens_are_put_in_for_y_and_have_no_gradient():
    (_, params, x, y), of = _case(), _value_and_gradient()
    _, grad = of(params, x, y, np.int32(0))
    given = x > 0
    np.testing.assert_array_equal(grad[given], 0)
    assert np.all(np.any(grad[~given] != 0, axis=-1))
    other, t = np.where(given[..., None], np.float32(7), y), np.int32(3)
    values = (of(params, x, each, t)[0] for each in (other, y))
    np.testing.assert_array_equal(*values)


def test_the_energy_of_record_has_the_published_number_of_parameters():
    schedule = diffusion.make_schedule("cosine", T)
    energy = convolutional.make_convolutional(schedule)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == _count(384, 6) == 44_619_401
    for bad in ({"channels": 0}, {"blocks": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))}=0"):
            convolutional.make_convolutional(schedule, **bad)


def test_a_block_starts_at_almost_nothing_but_its_biases():
    energy, *_ = _case()
    params = toys.jit(energy.init)(jax.random.key(0))
    for index in range(BLOCKS):
        block = params[f"stack_{index}"]
        # Of 400 normal draws: the spread has a standard error of 1/28.
        assert np.std(block["second"]["kernel"]) == pytest.approx(1e-5, rel=0.2)
        # Uniform in +-1/10, the root of 25 x 4 inputs: rms .058.
        assert 0.05 < np.std(block["first"]["kernel"]) < 0.065
        assert np.max(np.abs(block["first"]["kernel"])) <= 0.1


MUTANTS = [
    Mutant(
        "sudoku",
        "givens are not scaled to the level in the convolutional energy",
        "ired_jax.energies.convolutional",
        one("schedule.a[t] * known", "known"),
        test_value_and_slope_equal_the_float64_oracle,
        {"t": 7},
    ),
    Mutant(
        "sudoku",
        "the convolutional energy moves givens",
        "ired_jax.energies.convolutional",
        one("jnp.where((x == 0)[..., None], y, schedule.a[t] * known)", "y"),
        test_givens_are_put_in_for_y_and_have_no_gradient,
    ),
]
