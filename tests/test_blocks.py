"""Rows in blocks: the numbers of all rows at once, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.build import build
from ired_jax import blocks
from ired_jax.energies.matrix import make_matrix
from ired_jax.energies.mlp import make_mlp
from tests import plain, tiny, toys
from tests.mutants import Mutant, one

ROWS = 23  # prime: no block divides it
SIZES = [None, 1, 4, 7, 22, 23, 100]


def make_rows():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, ROWS, 5)).astype(np.float32)
    return {"x": x, "y": y, "t": np.arange(ROWS) % 3}


def loss(params, rows):
    """Means over the rows, with a gradient that differs from row to row."""
    out = (
        jnp.tanh(rows["x"] @ params["w"]) * rows["y"] + params["b"][rows["t"]][:, None]
    )
    return jnp.mean(out**2), {"mean": jnp.mean(out), "largest": jnp.mean(out[:, 0])}


@pytest.mark.parametrize("block_rows", SIZES)
def test_the_gradient_of_a_mean_is_that_of_all_rows(block_rows):
    rng = np.random.default_rng(1)
    params = {"w": rng.standard_normal((5, 5)), "b": np.arange(3.0)}
    params = jax.tree.map(np.float32, params)
    expected = toys.jit(jax.value_and_grad(loss, has_aux=True))(params, make_rows())
    found = toys.jit(blocks.value_and_grad(loss, block_rows))(params, make_rows())
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        expected,
    )


@pytest.mark.parametrize("block_rows", SIZES)
def test_rows_keep_their_order_and_their_keys(block_rows):
    rows, keys = make_rows(), jax.random.split(jax.random.key(0), ROWS)

    def one(key, x, t):
        bits = jax.random.bits(key, x.shape)
        return {"x": x, "t": t, "bits": bits, "first": bits[0]}

    found = toys.jit(blocks.vmap(one, block_rows))(keys, rows["x"], rows["t"])
    expected = toys.jit(jax.vmap(one))(keys, rows["x"], rows["t"])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "num_rows, block_rows, seen",
    [  # The rows of the blocks, and of what is left: by hand.
        (2047, 2, {2, 1}),  # 1,023 blocks
        (2047, 32, {32, 31}),
        (100, 7, {7, 2}),
        (100, 9, {8, 4}),  # 12 equal blocks leave less than one
        (100, 30, {25}),
        (64, 64, {64}),
    ],
)
def test_no_block_has_more_rows_than_it_may(num_rows, block_rows, seen):
    shapes = set()

    def spread(w, rows):
        shapes.add(rows.shape[0])
        return jnp.mean((w - rows) ** 2), {"mean": jnp.mean(rows)}

    rows = np.random.default_rng(num_rows).normal(size=num_rows)
    grad = toys.jit(blocks.value_and_grad(spread, block_rows))
    (value, aux), slope = grad(jnp.float32(0.5), jnp.float32(rows))
    assert shapes == seen
    np.testing.assert_allclose(value, np.mean((0.5 - rows) ** 2), rtol=1e-5)
    np.testing.assert_allclose(aux["mean"], np.mean(rows), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slope, 2 * np.mean(0.5 - rows), rtol=1e-5)


@pytest.mark.parametrize("rows", [(), {}, None])
@pytest.mark.parametrize("block_rows", [None, 2])
def test_without_rows_it_is_the_plain_gradient(rows, block_rows):
    def penalty(w, rows):
        return jnp.sum(w**2), {"rows": rows}

    grad = toys.jit(blocks.value_and_grad(penalty, block_rows))
    (value, aux), slope = grad(np.float32([1, 2, 3]), rows)
    assert (float(value), aux) == (14.0, {"rows": rows})
    np.testing.assert_array_equal(slope, [2, 4, 6])


@pytest.mark.parametrize("block_rows", [0, -1])
def test_an_empty_block_is_refused(block_rows):
    with pytest.raises(ValueError, match=f"block_rows={block_rows}: must be at least"):
        blocks.vmap(jnp.sin, block_rows)
    with pytest.raises(ValueError, match=f"block_rows={block_rows}: must be at least"):
        blocks.value_and_grad(loss, block_rows)


def temporaries(rows, block_rows):
    """Bytes of the compiled gradient of a wide network."""

    def wide(params, rows):
        h = jnp.tanh(rows["x"] @ params)
        return jnp.mean(jnp.tanh(h @ h[0][:, None]) ** 2), {}

    params = jax.ShapeDtypeStruct((8, 512), jnp.float32)
    rows = {"x": jax.ShapeDtypeStruct((rows, 8), jnp.float32)}
    grad = toys.jit(blocks.value_and_grad(wide, block_rows))
    return grad.lower(params, rows).compile().memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_a_block():
    assert temporaries(2048, 64) < 1.2 * temporaries(64, None)
    assert temporaries(2048, None) > 10 * temporaries(64, None)  # it would be seen


def chain_temporaries(block_rows):
    """Bytes of the compiled chains of 1,024 rows of 64 elements on a wide energy."""
    strategy = toys.langevin(block_rows=block_rows)
    rows = {"x": (1024, 64), "y0": (1024, 64), "t": (1024,)}
    rows = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in rows.items()}
    rows["t"] = jax.ShapeDtypeStruct((1024,), jnp.int32)
    weights = jnp.ones((64, 2048))

    def refine(key, rows):
        def landscape(x, t):
            return lambda y: jnp.sum(jnp.tanh((y - x) @ weights) ** 2) * (1 + t)

        return strategy.refine(key, landscape, rows, rows["y0"], 0.0)

    compiled = toys.jit(refine).lower(jax.random.key(0), rows).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_a_chain_holds_one_block():
    assert chain_temporaries(64) < 0.3 * chain_temporaries(None)


@pytest.mark.parametrize(
    "energy, size, floats",
    [
        # Floats of the largest array of a row: by hand.
        (make_mlp(400, 400, num_levels=10), 400, 512),
        (make_mlp(9, 9, width=32), 9, 128),  # the level's embedding, if not in a table
        (make_matrix(channels=12), 400, 12 * 400),
        (toys.ideal_energy(), toys.D, toys.D),
    ],
)
def test_a_block_fills_the_cache_with_its_largest_array(energy, size, floats):
    rows = blocks.rows_that_fit(energy, toys.example_of(size))
    assert blocks.CACHE_BYTES / 2 < rows * 4 * floats <= blocks.CACHE_BYTES


def test_a_row_larger_than_the_cache_is_a_block():
    assert blocks.rows_that_fit(make_matrix(), toys.example_of(40_000)) == 1


def test_a_run_asks_how_many_rows_fit():
    chosen = build(tiny.get_config("none", train__block_rows=0)).block_rows
    # 3 channels of 3 x 3 floats, with A, A^T and I: 216 bytes a row.
    assert chosen == 2**13
    assert build(tiny.get_config("none")).block_rows == 8


@pytest.mark.parametrize("name", ["none", "cd_full"])
def test_a_step_in_blocks_is_the_step_of_all_rows(name):
    in_blocks, whole = (
        build(tiny.get_config(name, train__block_rows=n, **plain.of(4))) for n in (3, 8)
    )
    start = tiny.drawn_state(whole)

    def numbers(experiment):
        step = toys.jit(experiment.step_fns[-1])
        state, metrics = step(start, experiment.train_data)
        return state._replace(key=jax.random.key_data(state.key)), metrics

    found, expected = numbers(in_blocks), numbers(whole)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        found,
        expected,
    )


MUTANTS = [
    Mutant(
        "blocks",
        "the rows that are left over count as much as a block",
        "ired_jax.blocks",
        one("share = _size(rest) / num_rows", "share = size / num_rows"),
        test_the_gradient_of_a_mean_is_that_of_all_rows,
        {"block_rows": 4},
    ),
    Mutant(
        "blocks",
        "small blocks leave more rows than a block may have",
        "ired_jax.blocks",
        one("if left > block_rows:", "if False:"),
        test_no_block_has_more_rows_than_it_may,
        {"num_rows": 2047, "block_rows": 32, "seen": {32, 31}},
    ),
    Mutant(
        "blocks",
        "rows without an array are counted",
        "ired_jax.blocks",
        one("if not jax.tree.leaves(rows):", "if False:"),
        test_without_rows_it_is_the_plain_gradient,
        {"rows": (), "block_rows": None},
        error=IndexError,
    ),
    Mutant(
        "blocks",
        "the sum of the blocks for their mean",
        "ired_jax.blocks",
        one("size / num_rows * a", "1.0 * a"),
        test_a_step_in_blocks_is_the_step_of_all_rows,
        {"name": "none"},
    ),
    Mutant(
        "blocks",
        "the strategy handed all rows at once",
        "ired_jax.negatives.langevin",
        one("blocks.vmap(one, block_rows)(keys, rows", "blocks.vmap(one)(keys, rows"),
        test_a_chain_holds_one_block,
    ),
]
