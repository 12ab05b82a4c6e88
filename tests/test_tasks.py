"""Two tables of tasks: every task, whatever it is, and those of plain numbers that an
oracle answers. A new task is a row; its own facts come in a file of their own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ired_jax.tasks
from examples import sorting
from experiments.build import build
from experiments.score import records
from ired_jax import boxes
from ired_jax.fields import Package
from ired_jax.tasks import inverse
from tests import references, tiny, toys
from tests.mutants import Mutant, one

COUNT = 256


class Row(NamedTuple):
    """What the suite needs to know of a task."""

    name: str
    make: Callable  # () -> Task
    answer: Callable  # float64: x [N, Dx] -> y [N, D]
    residual: Callable  # float64: x [N, Dx], y [N, D] -> [N]
    tolerance: float  # of an answer, relative to its largest element: float32
    solvers: Mapping[str, Callable]  # name -> float64: x [N, Dx] -> y [N, D]
    discrete: tuple[str, ...] = ()  # metrics that a small error may leave as they are


def _inverse_row(n):
    def square(x):
        return x.reshape(-1, n, n)

    def newton_schulz(num_steps):
        def solve(x):
            inverses = [references.newton_schulz(a, num_steps) for a in square(x)]
            return np.reshape(inverses, x.shape)

        return solve

    return Row(
        name=f"inverse {n}",
        make=lambda: inverse.make_inverse(n=n),
        answer=lambda x: np.linalg.inv(square(x)).reshape(x.shape),
        residual=lambda x, y: np.linalg.norm(
            square(x) @ square(y) - np.eye(n), axis=(1, 2)
        ),
        # Condition numbers go to some hundreds: as many float32 roundings.
        tolerance=1e-3,
        solvers={
            f"Newton-Schulz, {steps} steps": newton_schulz(steps) for steps in (15, 20)
        },
    )


def _of_config(name, **fields):
    return build(tiny.get_config(name, **fields)).task


EVERY = {  # a task by its name, small
    "addition": partial(_of_config, "addition"),
    "completion": partial(_of_config, "completion"),
    "connectivity": partial(_of_config, "connectivity", task__n=8),
    "density": partial(_of_config, "density"),
    "inverse": partial(_of_config, "none"),
    "path": partial(_of_config, "path", task__n=8),
    "sudoku": partial(_of_config, "sudoku"),
    "examples.sorting": lambda: sorting.make_sorting(),
}


def test_every_task_is_in_the_table():
    assert {name for name in EVERY if "." not in name} == set(Package(ired_jax.tasks))


@pytest.mark.parametrize("name", EVERY)
def test_what_a_task_says_of_its_answers_agrees(name):
    task = EVERY[name]()
    assert task.primary in records.kinds(task)
    for source in (task.train, list(task.splits.values())[-1]):
        look = _look(task, source)
        found, again, other = (look(seed) for seed in (0, 0, 1))
        chex.assert_trees_all_equal(found, again)
        assert _rows_that_differ(found["example"], other["example"]).any()
        assert found["truth_is_inside"].all()
        for metric, (right, wrong) in found["figures"].items():
            sign = {"low": 1, "high": -1}[task.metrics[metric].better]
            assert np.all(sign * (wrong - right) >= 0), metric
            assert np.any(wrong != right), metric
        if task.corrupt is not None:
            _, y = found["example"]
            chex.assert_trees_all_equal_shapes_and_dtypes(found["corrupted"], y)
            assert _rows_that_differ(found["corrupted"], y).all()
            assert found["corrupted_is_inside"].all()


def _look(task, source, count=8):
    """seed -> rows, what their box and figures say of them, and of wrong answers."""

    def one(key):
        x, y = source.draw(source.data, key)
        box = _widened(None if source.box is None else source.box(x))
        wrong = boxes.clip(box, jax.tree.map(jnp.negative, y))
        corrupted = y if task.corrupt is None else task.corrupt(key, x, y)
        return {
            "example": (x, y),
            "truth_is_inside": boxes.inside(box, y),
            "figures": {
                name: tuple(metric.of_row(x, y, answer) for answer in (y, wrong))
                for name, metric in task.metrics.items()
            },
            "corrupted": corrupted,
            "corrupted_is_inside": boxes.inside(box, corrupted),
        }

    of_keys = toys.jit(jax.vmap(one))

    def look(seed):
        keys = jax.random.split(jax.random.key(seed), count)
        return jax.tree.map(np.asarray, of_keys(keys))

    return look


def _widened(box):
    """By roundings of float32: what is known is still held, to a thousandth."""
    if box is None:
        return None
    low = jax.tree.map(lambda side: side - 1e-3 * jnp.abs(side), box.low)
    high = jax.tree.map(lambda side: side + 1e-3 * jnp.abs(side), box.high)
    return boxes.Box(low, high)


def _rows_that_differ(first, second):
    """[N], in any leaf."""
    chex.assert_trees_all_equal_shapes(first, second)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return np.any([np.any((a != b).reshape(len(a), -1), -1) for a, b in pairs], axis=0)


TASKS = [_inverse_row(1), _inverse_row(5), _inverse_row(20)]
tasks = pytest.mark.parametrize("row", TASKS, ids=lambda row: row.name)
SPLITS = ("val", "ood")


def _examples(source, count=COUNT, seed=0):
    """x [N, Dx], y [N, D] in float64, as drawn in float32."""
    keys = jax.random.split(jax.random.key(seed), count)
    x, y = toys.jit(jax.vmap(lambda key: source.draw(source.data, key)))(keys)
    chex.assert_type([x, y], jnp.float32)
    return np.float64(x), np.float64(y)


@tasks
def test_drawn_answers_are_the_oracle_s_and_inside_their_box(row):
    task = row.make()
    for source in (task.train, *task.splits.values()):
        x, y = _examples(source)
        assert x.shape == (COUNT, *task.example.x.shape)
        assert y.shape == (COUNT, *task.example.y.shape)
        expected = row.answer(x)
        scale = np.max(np.abs(expected), axis=1, keepdims=True)
        assert np.max(np.abs(y - expected) / scale) < row.tolerance
        wider = boxes.scale(source.box(x[0]), 1 + row.tolerance)
        assert boxes.inside(wider, jnp.asarray(y))
        assert np.all(np.std(x, axis=0) > 0)


@tasks
def test_examples_are_set_by_their_keys(row):
    source = row.make().train
    x, y = _examples(source, count=8)
    again, _ = _examples(source, count=8)
    np.testing.assert_array_equal(x, again)
    other, _ = _examples(source, count=8, seed=1)
    rows = np.concatenate([x, other])
    assert len(np.unique(rows, axis=0)) == 16
    # A row does not depend on its batch.
    keys = jax.random.split(jax.random.key(0), 8)
    alone_x, alone_y = toys.jit(source.draw)(source.data, keys[3])
    np.testing.assert_allclose(alone_x, x[3], rtol=1e-5, atol=1e-6)
    scale = np.max(np.abs(y[3]))
    np.testing.assert_allclose(alone_y, y[3], atol=row.tolerance * scale)


@tasks
def test_the_residual_equals_the_oracle_and_is_zero_when_right(row):
    task = row.make()
    if task.residual is None:
        return  # it has none to hold
    x, y = _examples(list(task.splits.values())[-1])
    wrong = y + np.random.default_rng(0).normal(size=y.shape)

    @toys.jit
    @jax.vmap
    def residual(x, y):
        return task.residual(x, y)

    found = residual(jnp.float32(x), jnp.float32(wrong))
    chex.assert_shape(found, (COUNT,))
    np.testing.assert_allclose(found, row.residual(x, wrong), rtol=1e-4)
    right = residual(jnp.float32(x), jnp.float32(y))
    scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    assert np.max(right / scale) < 1e-5
    assert np.min(found) > 0


@tasks
def test_every_solver_equals_its_oracle_in_float64(row):
    task = row.make()
    assert set(task.solvers) == set(row.solvers)
    x, _ = _examples(task.train, count=16)
    for name, solve in task.solvers.items():
        with jax.enable_x64(True):
            y = toys.jit(jax.vmap(solve))(jnp.asarray(x))
        assert y.shape == (16, *task.example.y.shape)
        np.testing.assert_allclose(y, row.solvers[name](x), rtol=1e-8, atol=1e-9)


@tasks
def test_every_metric_tells_a_small_error_from_the_truth(row):
    task = row.make()
    x, y = map(jnp.float32, _examples(task.train, count=8))
    wrong = y + 0.1 * np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    for name in set(task.metrics) - set(row.discrete):
        metric = task.metrics[name]
        right, other = (jax.vmap(metric.of_row)(x, y, a) for a in (y, wrong))
        sign = {"low": 1, "high": -1}[metric.better]
        assert np.all(sign * (other - right) > 0)


@tasks
def test_a_corrupted_answer_is_wrong_and_like_an_answer(row):
    task = row.make()
    if task.corrupt is None:
        return
    x, y = map(jnp.float32, _examples(task.train, count=64))
    keys = jax.random.split(jax.random.key(1), 64)
    bad = toys.jit(jax.vmap(lambda *a: task.corrupt(*a)))(keys, x, y)
    chex.assert_trees_all_equal_shapes_and_dtypes(bad, y)
    assert np.all(np.any(np.asarray(bad != y), axis=1))
    assert jax.vmap(lambda x, y: boxes.inside(task.train.box(x), y))(x, bad).all()


@tasks
def test_a_residual_of_other_shapes_is_refused(row):
    task = row.make()
    if task.residual is None:
        return
    x, y = (jnp.ones(part.shape) for part in task.example)
    for bad in ((x[None], y), (x, y[None]), (x, jnp.append(y, 1.0))):
        with pytest.raises(AssertionError):
            task.residual(*bad)


# --- inverse ----------------------------------------------------------------------


def _matrices(split, n, count=2000):
    x, y = _examples(split, count)
    return x.reshape(-1, n, n), y.reshape(-1, n, n)


@pytest.mark.parametrize("name, shift", [("val", 0.5), ("ood", 0.1)])
def test_inverse_matrices_are_twice_a_gram_matrix_plus_a_shift(name, shift):
    n, count = 5, 2000
    source = inverse.make_inverse(n=n).splits[name]
    a, _ = _matrices(source, n, count)
    np.testing.assert_array_equal(a, np.swapaxes(a, 1, 2))
    assert np.min(np.linalg.eigvalsh(a)) >= shift - 1e-5
    assert np.max(np.abs(a)) <= 2 * n + shift
    assert source.box(a[0]) == pytest.approx((-1 / shift, 1 / shift))
    # A_ii = 2 sum_j m_ij^2 + c and A_ij = 2 sum_k m_ik m_jk with m uniform on +-1:
    # m^2 has mean 1/3 and variance 4/45, a product of two has variance 1/9.
    diagonal = np.diagonal(a, axis1=1, axis2=2)
    upper = a[:, *np.triu_indices(n, 1)]
    for entries, mean, variance in (
        (diagonal, 2 * n / 3 + shift, 4 * n * 4 / 45),
        (upper, 0.0, 4 * n / 9),
    ):
        # Entries of one matrix are uncorrelated; fourth moments from the sample.
        error = np.sqrt(variance / entries.size)
        assert abs(np.mean(entries) - mean) < 5 * error
        squares = (entries - mean) ** 2
        error = np.std(squares) / np.sqrt(entries.size)
        assert abs(np.mean(squares) - variance) < 5 * error


def test_a_shift_is_that_of_the_training_matrices_alone():
    usual, shifted = inverse.make_inverse(n=3), inverse.make_inverse(n=3, shift=0.1)
    same = _matrices(shifted.splits["ood"], 3)
    for array, expected in zip(_matrices(shifted.train, 3), same, strict=True):
        np.testing.assert_array_equal(array, expected)
    for name in SPLITS:
        a, _ = _matrices(shifted.splits[name], 3)
        np.testing.assert_array_equal(a, _matrices(usual.splits[name], 3)[0])


def test_the_entries_of_m_reach_the_whole_interval():
    # At n = 1, A = 2 m^2 + c: its square root's law is that of |m|, uniform on [0, 1].
    a, _ = _matrices(inverse.make_inverse(n=1).train, 1, 4000)
    m = np.sort(np.sqrt(np.maximum(a.ravel() - 0.5, 0) / 2))
    # Kolmogorov-Smirnov: above 2.6 / sqrt(N) once in a million.
    distance = np.max(np.abs(m - (np.arange(m.size) + 0.5) / m.size))
    assert distance < 2.7 / np.sqrt(m.size)


@pytest.mark.parametrize("name", SPLITS)
def test_the_inverse_times_its_matrix_is_the_identity(name):
    n = 20
    a, inverses = _matrices(inverse.make_inverse(n=n).splits[name], n, 256)
    error = np.linalg.norm(a @ inverses - np.eye(n), axis=(1, 2))
    # Backward stable: some float32 roundings of |A| |A^-1|.
    scale = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(inverses, axis=(1, 2))
    assert np.max(error / scale) < 10 * np.finfo(np.float32).eps
    np.testing.assert_array_equal(inverses, np.swapaxes(inverses, 1, 2))


def test_drawing_calls_no_library_of_the_host():
    # Two calls of LAPACK in one program hang where a CPU has two cores (jax 0.10).
    keys = jax.random.split(jax.random.key(0), 4)
    draw = inverse.make_inverse(n=3).train.draw
    lowered = jax.jit(jax.vmap(lambda key: draw((), key))).lower(keys)
    assert "custom_call" not in lowered.as_text()


def test_the_harder_inverses_are_larger():
    task = inverse.make_inverse(n=20)
    mean_square = [np.mean(_examples(task.splits[n])[1] ** 2) for n in SPLITS]
    assert mean_square[1] > 3 * mean_square[0]


def test_newton_schulz_converges_to_the_inverse():
    a, inverses = _matrices(inverse.make_inverse(n=5).train, 5, 16)
    solve = toys.jit(jax.vmap(lambda x: inverse.newton_schulz(x, num_steps=30)))
    y = solve(jnp.float32(a.reshape(16, -1)))
    scale = np.max(np.abs(inverses))
    np.testing.assert_allclose(y, inverses.reshape(16, -1), atol=1e-4 * scale)


def test_a_vector_that_is_no_square_matrix_is_refused():
    for size in (2, 3, 8):
        with pytest.raises(AssertionError):
            inverse.residual(jnp.ones(size), jnp.ones(size))
        with pytest.raises(AssertionError):
            inverse.newton_schulz(jnp.ones(size), num_steps=1)


@pytest.mark.parametrize("n", [0, -3])
def test_a_size_below_one_is_refused_by_name(n):
    with pytest.raises(ValueError, match=f"n={n}"):
        inverse.make_inverse(n=n)


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_residual_and_newton_schulz_agree_compiled_and_not(self):
        a = np.array([[2.0, 0.5], [0.5, 1.0]])
        x = jnp.float32(a.ravel())

        @self.variant
        def both(x):
            y = inverse.newton_schulz(x, num_steps=3)
            return y, inverse.residual(x, y)

        y, residual = both(x)
        expected = references.newton_schulz(a, 3)
        np.testing.assert_allclose(y, expected.ravel(), rtol=1e-5)
        np.testing.assert_allclose(
            residual, np.linalg.norm(a @ expected - np.eye(2)), rtol=1e-4
        )


MUTANTS = [
    Mutant(
        "tasks",
        "the harder set's box on the training set",
        "ired_jax.tasks.inverse",
        one("source(c) for c", "source(5 * c) for c"),
        test_inverse_matrices_are_twice_a_gram_matrix_plus_a_shift,
        {"name": "val", "shift": 0.5},
    ),
    Mutant(
        "tasks",
        "the held-out set follows the shift of the training set",
        "ired_jax.tasks.inverse",
        one("sources[SHIFT],", "sources[shift],"),
        test_a_shift_is_that_of_the_training_matrices_alone,
    ),
    Mutant(
        "tasks",
        "a corrupted answer may be the right one",
        "ired_jax.tasks.inverse",
        one("(score < 0.25) | (score == jnp.min(score))", "score < 0.01"),
        test_what_a_task_says_of_its_answers_agrees,
        {"name": "inverse"},
    ),
    Mutant(
        "tasks",
        "right answers outside their box",
        "ired_jax.tasks.addition",
        one("Box(-2 * limit, 2 * limit)", "Box(-limit, limit)"),
        test_what_a_task_says_of_its_answers_agrees,
        {"name": "addition"},
    ),
]
