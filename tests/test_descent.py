"""Accepted descent against a NumPy loop that evaluates everything again."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax.samplers import descent
from ired_jax.types import Box
from tests import references, toys
from tests.mutants import Mutant, one

CURVATURE = np.array([0.5, 1.0, 4.0])
CENTRE = np.array([1.0, -2.0, 0.3])


def _bowl(y):
    curvature, centre = y.dtype.type(CURVATURE), y.dtype.type(CENTRE)
    return 0.5 * jnp.sum(curvature * (y - centre) ** 2)


def _bowl_numpy(y):
    return 0.5 * np.sum(CURVATURE * (y - CENTRE) ** 2)


def _bowl_gradient(y):
    return CURVATURE * (y - CENTRE)


def _waves(y):
    """Not convex, coupled."""
    return jnp.sum(jnp.cos(3 * y) + 0.1 * y**2) + jnp.sin(jnp.sum(y))


def _waves_numpy(y):
    return np.sum(np.cos(3 * y) + 0.1 * y**2) + np.sin(np.sum(y))


def _waves_gradient(y):
    return -3 * np.sin(3 * y) + 0.2 * y + np.cos(np.sum(y))


ENERGIES = {
    "bowl": (_bowl, _bowl_numpy, _bowl_gradient),
    "waves": (_waves, _waves_numpy, _waves_gradient),
}
energies = pytest.mark.parametrize("name", ENERGIES)


def _starts(num_rows=12):
    return np.float64(np.float32(np.random.default_rng(0).normal(size=(num_rows, 3))))


def _run(energy_fn, y, *, over=(), dtype=jnp.float32, **options):
    """One descent a row of y [N, D]; `over` names options with a value for each row."""
    y = jnp.asarray(y, dtype)
    rows = {name: jnp.asarray(options.pop(name), dtype) for name in over}

    def one(y, rows):
        return descent.minimize(energy_fn, y, **rows, **options)

    y, info = toys.jit(jax.vmap(one))(y, rows)
    chex.assert_shape(list(info), (len(y),))
    return np.float64(y), jax.tree.map(np.float64, info)


def _rms(array):
    return np.sqrt(np.mean(array**2, axis=-1))


@energies
@pytest.mark.parametrize("num_steps", [0, 1, 2, 8])
@pytest.mark.parametrize("bounds", [None, 0.8])
def test_every_row_equals_the_loop_that_evaluates_again(name, num_steps, bounds):
    energy_fn, energy, gradient = ENERGIES[name]
    starts = _starts()
    # So large at first that some rows reject, smaller later, so that they move again.
    step_sizes = np.linspace(0.6, 0.1, num_steps)
    # In float64 no step near a minimum is decided by the last bit.
    with jax.enable_x64(True):
        y, info = _run(
            energy_fn,
            starts,
            step_size=step_sizes,
            num_steps=num_steps,
            bounds=bounds,
            dtype=jnp.float64,
        )
    shares = []
    for i, start in enumerate(starts):
        expected, accepted = references.descend(
            energy, gradient, start, step_sizes=step_sizes, bounds=bounds or np.inf
        )
        shares.append(np.mean(accepted) if num_steps else 0)
        np.testing.assert_allclose(y[i], expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(info.energy[i], energy(expected), atol=1e-9)
        np.testing.assert_allclose(
            info.displacement[i], _rms(expected - start), atol=1e-9
        )
    np.testing.assert_allclose(info.acceptance, shares, rtol=1e-6)
    if num_steps == 8:
        assert 0.2 < np.mean(shares) < 0.98


@energies
def test_no_row_ever_ends_higher_than_it_started(name):
    energy_fn, energy, _ = ENERGIES[name]
    starts = 3 * _starts(200)
    # Steps from far too small to far too large, a row each.
    steps = np.geomspace(1e-3, 1e2, 200)
    y, info = _run(energy_fn, starts, over=("step_size",), step_size=steps, num_steps=5)
    before = np.array([energy(row) for row in starts])
    after = np.array([energy(row) for row in y])
    assert np.all(after <= before + 1e-5 * np.abs(before))
    assert np.any(info.acceptance == 0)
    assert np.any(info.acceptance == 1)
    # A row that never accepts is where it was, to the bit.
    still = info.acceptance == 0
    np.testing.assert_array_equal(y[still], starts[still].astype(np.float32))


def test_a_rejected_step_is_tried_again_from_where_it_stood():
    # Curvature 4: a step of .6 overshoots and rises, one of .25 lands on the minimum.
    y, info = _run(
        lambda y: 2 * jnp.sum((y - 1) ** 2),
        np.zeros((1, 2)),
        step_size=np.array([0.6, 0.25]),
        num_steps=2,
    )
    np.testing.assert_allclose(y, 1, rtol=1e-6)
    assert info.acceptance[0] == 0.5


def test_a_step_that_does_not_lower_the_energy_is_not_kept():
    # Twice the distance to the minimum: the mirror image, at exactly the same height.
    y, info = _run(
        lambda y: 0.5 * jnp.sum(y**2), np.ones((1, 2)), step_size=2.0, num_steps=3
    )
    np.testing.assert_array_equal(y, 1)
    assert info.acceptance[0] == 0


@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_proposal_that_is_not_a_number_is_not_kept(num_steps):
    # The logarithm ends at 0; a step from near it jumps across.
    def energy_fn(y):
        return jnp.sum(y - 3 * jnp.log(3 - y))

    starts = np.array([[2.9, 0.0], [-1.0, -2.0]])
    for direction in (energy_fn, lambda y: energy_fn(y) - 20 * jnp.sum(y)):
        y, info = _run(direction, starts, step_size=1.0, num_steps=num_steps)
        assert np.all(np.isfinite(y))
        assert np.all(np.isfinite(info.energy))
        assert np.all(y < 3)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_each_row_is_held_to_its_own_bounds(num_steps):
    bounds = np.linspace(0.1, 2.0, 7).astype(np.float32)
    y, info = _run(
        lambda y: -jnp.sum(y),
        np.zeros((7, 2)),
        over=("bounds",),
        bounds=bounds,
        step_size=5.0,
        num_steps=num_steps,
    )
    np.testing.assert_array_equal(y, np.tile(bounds, (2, 1)).T)
    np.testing.assert_allclose(info.acceptance, 1 / num_steps)


def test_bounds_may_differ_by_element():
    bounds = jnp.array([0.5, 1.0, np.inf])
    y, _ = _run(
        lambda y: -jnp.sum(y),
        np.zeros((2, 3)),
        bounds=bounds,
        step_size=1.0,
        num_steps=2,
    )
    np.testing.assert_allclose(y, [[0.5, 1.0, 2.0]] * 2)


@energies
def test_a_tolerance_of_zero_changes_no_answer_and_saves_steps(name):
    # One rejected at .6 may still move at .2; one rejected at .2 never moves again.
    steps = np.repeat([0.6, 0.2], [5, 395])
    options = {"step_size": steps, "num_steps": 400, "dtype": jnp.float64}
    with jax.enable_x64(True):
        y, info = _run(ENERGIES[name][0], _starts(), **options)
        early, early_info = _run(ENERGIES[name][0], _starts(), tolerance=0.0, **options)
    np.testing.assert_allclose(early, y, atol=1e-7)
    np.testing.assert_allclose(early_info.energy, info.energy, atol=1e-9)
    np.testing.assert_array_equal(info.steps, 400)
    assert np.all(early_info.steps > 5)
    assert np.all(early_info.steps < 400)


def test_a_row_stops_where_its_gradient_is_within_the_tolerance():
    # The gradient of row i shrinks by 1 - .1 c_i a step: the steps follow by hand.
    curvature, tolerance = np.array([0.5, 1.0, 4.0]), 0.01
    starts = np.ones((3, 2))

    def one(y, curvature):
        return descent.minimize(
            lambda y: 0.5 * curvature * jnp.sum(y**2),
            y,
            step_size=0.1,
            num_steps=60,
            tolerance=tolerance,
        )

    y, info = toys.jit(jax.vmap(one))(jnp.float32(starts), jnp.float32(curvature))
    needed = np.ceil(np.log(tolerance / curvature) / np.log(1 - 0.1 * curvature))
    assert needed[0] > 60 > needed[1]
    np.testing.assert_array_equal(info.steps, np.minimum(needed, 60))
    np.testing.assert_array_equal(info.acceptance, 1)
    expected = (1 - 0.1 * curvature) ** np.minimum(needed, 60)
    np.testing.assert_allclose(y, np.tile(expected, (2, 1)).T, rtol=1e-4)


def test_a_row_does_not_depend_on_its_batch():
    starts = _starts(16)
    together, _ = _run(_waves, starts, step_size=0.1, num_steps=4)
    alone, _ = _run(_waves, starts[3:4], step_size=0.1, num_steps=4)
    np.testing.assert_allclose(together[3], alone[0], rtol=1e-6)


@pytest.mark.parametrize("num_steps", [0, 1, 6])
def test_a_step_costs_one_evaluation_and_the_last_one_no_gradient(num_steps):
    values, gradients = [], []

    @jax.custom_vjp
    def energy_fn(y):
        return jnp.sum(y**2)

    def forward(y):
        jax.debug.callback(lambda: values.append(1))
        return jnp.sum(y**2), y

    def backward(y, cotangent):
        jax.debug.callback(lambda: gradients.append(1))
        return (2 * cotangent * y,)

    energy_fn.defvjp(forward, backward)

    def counted(y):
        jax.debug.callback(lambda: values.append(1))
        return energy_fn(y)

    @toys.jit
    def run(y):
        return descent.minimize(counted, y, step_size=0.1, num_steps=num_steps)

    jax.block_until_ready(run(jnp.ones(2)))
    jax.effects_barrier()
    # Under a gradient both `counted` and `forward` report the one evaluation.
    assert len(gradients) == num_steps
    assert len(values) - len(gradients) == num_steps + 1


def test_compiled_memory_does_not_grow_with_the_number_of_steps():
    shape = (64, 256)
    matrix = jnp.ones((256, 256))

    def temporary_bytes(num_steps):
        def one(y):
            return descent.minimize(
                lambda y: jnp.sum(jnp.tanh(y @ matrix) ** 2),
                y,
                step_size=0.1,
                num_steps=num_steps,
            )

        compiled = toys.jit(jax.vmap(one)).lower(jnp.zeros(shape)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # 75 kept states would be 75 times as much.
    one_state = 4 * shape[0] * shape[1]
    assert temporary_bytes(80) - temporary_bytes(5) < one_state


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="num_steps=-1"):
        descent.minimize(_bowl, jnp.ones(3), step_size=0.1, num_steps=-1)
    mixed = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    for bad in (jnp.ones(3, jnp.int32), mixed, ()):
        for num_steps in (0, 1):
            with pytest.raises(AssertionError):
                descent.minimize(_bowl, bad, step_size=0.1, num_steps=num_steps)


@pytest.mark.parametrize("num_steps", [0, 1])
@pytest.mark.parametrize(
    "bounds", [[1.0, 1.0], Box([-1.0], [1.0])], ids=["half", "box"]
)
def test_bounds_of_another_structure_are_refused(num_steps, bounds):
    options = {"step_size": 0.1, "num_steps": num_steps, "bounds": bounds}
    with pytest.raises(ValueError, match="box of structure"):
        descent.minimize(_bowl, jnp.ones(3), **options)


# --- trees, known elements --------------------------------------------------------

FREE, KNOWN, GIVEN = [0, 2, 4], [1, 3], np.array([0.5, -1.25])
LOW, HIGH = np.array([-1.0, -0.2, -2.0]), np.array([0.3, 0.4, -0.1])


def _full(free):
    y = np.zeros(5)
    y[FREE], y[KNOWN] = free, GIVEN
    return y


def _run_tree(starts, *, energy_fn=_waves, **options):
    """A descent a row of y [N, 5], each as a tree; the ends as rows."""

    def one(y):
        end, info = descent.minimize(
            lambda tree: energy_fn(toys.as_vector(tree)), toys.as_tree(y), **options
        )
        return toys.as_vector(end), info

    y, info = toys.jit(jax.vmap(one))(jnp.asarray(starts))
    return np.float64(y), jax.tree.map(np.float64, info)


def _box(low=LOW, high=HIGH, dtype=jnp.float32):
    sides = np.zeros((2, 5))
    sides[0, FREE], sides[1, FREE], sides[:, KNOWN] = low, high, GIVEN
    return Box(*(toys.as_tree(jnp.asarray(side, dtype)) for side in sides))


def _wide_starts(num_rows=12):
    return np.float64(np.float32(np.random.default_rng(1).normal(size=(num_rows, 5))))


@pytest.mark.parametrize("num_steps", [0, 1, 6])
def test_a_tree_descends_as_the_vector_of_its_elements(num_steps):
    options = {"step_size": 0.3, "num_steps": num_steps, "bounds": 0.8}
    with jax.enable_x64(True):
        y, info = _run_tree(_wide_starts(), **options)
        flat, of_flat = _run(_waves, _wide_starts(), dtype=jnp.float64, **options)
    np.testing.assert_allclose(y, flat, atol=1e-9)
    for found, expected in zip(info, of_flat, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("num_steps", [0, 1, 6])
def test_beside_known_elements_and_in_a_box_it_is_the_loop_of_the_others(num_steps):
    starts, h = _wide_starts(), 0.3
    with jax.enable_x64(True):
        y, info = _run_tree(
            starts,
            step_size=h,
            num_steps=num_steps,
            bounds=_box(dtype=jnp.float64),
        )
    np.testing.assert_array_equal(y[:, KNOWN], np.tile(GIVEN, (len(y), 1)))
    for i, start in enumerate(starts[:, FREE]):
        free, accepted = start, 0
        for _ in range(num_steps):
            slope = _waves_gradient(_full(free))[FREE]
            new = np.clip(free - h * slope, LOW, HIGH)
            if _waves_numpy(_full(new)) < _waves_numpy(_full(free)):
                free, accepted = new, accepted + 1
        np.testing.assert_allclose(y[i, FREE], free, atol=1e-9)
        np.testing.assert_allclose(info.energy[i], _waves_numpy(_full(free)))
        np.testing.assert_allclose(info.displacement[i], _rms(free - start), atol=1e-9)
        assert info.acceptance[i] == pytest.approx(accepted / max(num_steps, 1))


def test_the_tolerance_is_on_the_slopes_of_the_free_elements():
    # Free slopes shrink by .9 a step from 1; the known ones are 100 and stay.
    def energy_fn(y):
        return 0.5 * jnp.sum(y[jnp.array(FREE)] ** 2) + 100 * jnp.sum(y)

    def tilted(y):
        return energy_fn(y) - 100 * jnp.sum(y[jnp.array(FREE)])

    y, info = _run_tree(
        np.ones((2, 5), np.float32),
        energy_fn=tilted,
        step_size=0.1,
        num_steps=60,
        tolerance=0.01,
        bounds=_box(low=-9.0, high=9.0),
    )
    needed = np.ceil(np.log(0.01) / np.log(0.9))
    np.testing.assert_array_equal(info.steps, needed)
    np.testing.assert_allclose(y[:, FREE], 0.9**needed, rtol=1e-4)


@pytest.mark.parametrize("tolerance", [None, 0.0])
def test_a_known_element_stays_whatever_its_slope(tolerance):
    def energy_fn(y):  # not a number is the slope of known elements
        at_known = (y[jnp.array(KNOWN)] - jnp.float32(GIVEN)) ** 2
        return _waves(y) + jnp.sum(jnp.sqrt(at_known))

    y, info = _run_tree(
        np.float32(_wide_starts()),
        energy_fn=energy_fn,
        step_size=0.1,
        num_steps=3,
        bounds=_box(low=-9.0, high=9.0),
        tolerance=tolerance,
    )
    np.testing.assert_array_equal(y[:, KNOWN], np.tile(GIVEN, (len(y), 1)))
    assert np.all(np.isfinite(y))
    assert np.mean(info.acceptance) > 0.5


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_an_answer_may_have_any_shape(shape):
    y, _ = descent.minimize(
        lambda y: jnp.sum(y**2) / 2, jnp.ones(shape), step_size=0.1, num_steps=2
    )
    np.testing.assert_allclose(y, np.full(shape, 0.81), rtol=1e-6)


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_descent_agrees_compiled_and_not(self):
        @self.variant
        def run(y):
            return descent.minimize(_bowl, y, step_size=0.2, num_steps=2)[0]

        start = np.zeros(3)
        expected, _ = references.descend(
            _bowl_numpy, _bowl_gradient, start, step_sizes=[0.2, 0.2]
        )
        np.testing.assert_allclose(run(jnp.float32(start)), expected, rtol=1e-5)


DESCENT = "ired_jax.samplers.descent"
MUTANTS = [
    Mutant(
        "descent",
        "a descent of no step takes bounds of another structure",
        "ired_jax.samplers.descent",
        one("boxes.clip(bounds, y)  # refuses", "pass  # refuses"),
        test_bounds_of_another_structure_are_refused,
        {"num_steps": 0, "bounds": [1.0, 1.0]},
    ),
    Mutant(
        "descent",
        "every step accepted",
        DESCENT,
        one(
            "accepted = new.energy < state.energy",
            "accepted = new.energy == new.energy",
        ),
        test_a_rejected_step_is_tried_again_from_where_it_stood,
    ),
    Mutant(
        "descent",
        "it stops at its first rejected step",
        DESCENT,
        one("~accepted & (stays_so[count] == 1)", "~accepted"),
        test_a_tolerance_of_zero_changes_no_answer_and_saves_steps,
        {"name": "bowl"},
    ),
    Mutant(
        "descent",
        "it ascends",
        DESCENT,
        one("y - h * grad", "y + h * grad"),
        test_every_row_equals_the_loop_that_evaluates_again,
        {"name": "bowl", "num_steps": 2, "bounds": None},
    ),
    Mutant(
        "descent",
        "known elements begin where the start has them",
        DESCENT,
        one("trees.dtype(y), boxes.hold(bounds, y)", "trees.dtype(y), y"),
        test_beside_known_elements_and_in_a_box_it_is_the_loop_of_the_others,
        {"num_steps": 0},
    ),
    Mutant(
        "descent",
        "the slope of known elements within the tolerance",
        DESCENT,
        one("boxes.still(bounds, grad)", "grad"),
        test_a_known_element_stays_whatever_its_slope,
        {"tolerance": 0.0},
    ),
    Mutant(
        "descent",
        "the tolerance on the mean over all elements",
        DESCENT,
        one("rms = partial(boxes.rms_free, bounds)", "rms = trees.rms"),
        test_the_tolerance_is_on_the_slopes_of_the_free_elements,
    ),
]
