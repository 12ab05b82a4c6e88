"""Boxes, known elements and trees against NumPy, element by element."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import boxes, trees
from ired_jax.types import Box, PartError
from tests.mutants import Mutant, one

# A grid of four and a pair: the elements 1 and 4 of six are known, 5 is unbounded.
LOW = np.array([-1.0, 2.0, 0.0, -3.0, -0.5, -np.inf], np.float32)
HIGH = np.array([1.0, 2.0, 0.5, -1.0, -0.5, np.inf], np.float32)
IS_FREE = LOW != HIGH
Y = np.array([-4.0, 0.5, 0.25, 7.0, 3.0, 99.0], np.float32)
ALL_FREE = [None, 1.5, jnp.float32(1.5), Box(-1.0, 2.0), Box(np.float32(0), 1)]


def _tree(y):
    y = jnp.asarray(y)
    return {"grid": y[:4].reshape(2, 2), "pair": y[4:]}


def _flat(tree):
    return np.concatenate([np.ravel(tree["grid"]), tree["pair"]])


BOX = Box(_tree(LOW), _tree(HIGH))


def test_a_half_width_is_the_box_around_zero():
    assert boxes.as_box(None) is None
    assert boxes.as_box(BOX) is BOX
    assert boxes.as_box(1.5) == Box(-1.5, 1.5)
    low, high = boxes.as_box(jnp.arange(3.0))
    np.testing.assert_array_equal([low, high], [-np.arange(3.0), np.arange(3.0)])


def test_a_half_width_may_be_a_tree_like_y():
    width = {"a": np.ones(2), "b": 2.0}
    low, high = boxes.as_box(width)
    np.testing.assert_array_equal(low["a"], [-1, -1])
    assert (low["b"], high) == (-2.0, width)


@pytest.mark.parametrize("bounds", [Box(2.0, -1.0), Box(1, 0.5), -0.5])
def test_a_box_without_room_is_refused(bounds):
    """Clipping to it would give its high side whatever y is."""
    for use in (boxes.clip, boxes.inside):
        with pytest.raises(PartError, match="low must be at most high"):
            use(bounds, jnp.zeros(2))


def test_a_level_s_box_is_a_multiple_on_both_sides():
    for found, side in zip(boxes.scale(BOX, 0.3), (LOW, HIGH), strict=True):
        np.testing.assert_array_equal(_flat(found), np.float32(0.3) * side)
    assert boxes.scale(None, 0.5) is None
    assert boxes.scale(4.0, 0.5) == 2.0
    assert boxes.scale(Box(-4.0, 2.0), 0.5) == Box(-2.0, 1.0)
    # Known elements are known at every level.
    mask = boxes.free(boxes.scale(BOX, jnp.float32(0.0123)), _tree(Y))
    np.testing.assert_array_equal(_flat(mask), IS_FREE)


def test_clipping_gives_the_nearest_point_and_only_points_inside_are_inside():
    for bounds, low, high in (
        (BOX, LOW, HIGH),
        (0.75, -0.75, 0.75),
        (Box(-1.0, 2.0), -1.0, 2.0),
    ):
        found = boxes.clip(bounds, _tree(Y))
        expected = np.clip(Y, low, high)
        np.testing.assert_array_equal(_flat(found), expected)
        assert boxes.inside(bounds, found)
        for i in np.flatnonzero(np.broadcast_to(np.isfinite(high), 6)):
            for outside in (low, high):
                step = 0.01 if outside is high else -0.01
                point = expected.copy()
                point[i] = np.broadcast_to(outside, 6)[i] + step
                assert not boxes.inside(bounds, _tree(point))
    assert boxes.clip(None, Y) is Y
    assert boxes.inside(None, Y)
    assert not boxes.inside(9.0, jnp.array([0.0, np.nan]))


def test_a_box_of_more_bits_than_y_leaves_it_its_dtype():
    """Where 64 bits are on, a box of NumPy has them, and y may have 32."""
    box = Box(*(jax.tree.map(np.float64, side) for side in BOX))
    with jax.enable_x64(True):
        y = _tree(Y)
        for found in (boxes.clip(box, y), boxes.hold(box, y)):
            assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("f4")}
        np.testing.assert_array_equal(_flat(boxes.clip(box, y)), np.clip(Y, LOW, HIGH))


def test_known_are_the_elements_whose_sides_are_equal():
    np.testing.assert_array_equal(_flat(boxes.free(BOX, _tree(Y))), IS_FREE)
    held = _flat(boxes.hold(BOX, _tree(Y)))
    np.testing.assert_array_equal(held, np.where(IS_FREE, Y, LOW))
    moved = _flat(boxes.still(BOX, _tree(np.where(IS_FREE, Y, np.nan))))
    np.testing.assert_array_equal(moved, np.where(IS_FREE, Y, 0))
    assert boxes.count_free(BOX, _tree(Y)) == 4


def test_a_mean_over_the_free_elements_counts_them_alone():
    values = _tree(np.where(IS_FREE, Y, np.nan))
    mean = np.mean(np.float64(Y[IS_FREE]))
    np.testing.assert_allclose(boxes.mean_free(BOX, values), mean, rtol=1e-6)
    rms = np.sqrt(np.mean(np.float64(Y[IS_FREE]) ** 2))
    np.testing.assert_allclose(boxes.rms_free(BOX, values), rms, rtol=1e-6)
    # With nothing free there is nothing to move: no division by zero.
    known = Box(_tree(LOW[:1].repeat(6)), _tree(LOW[:1].repeat(6)))
    assert boxes.mean_free(known, _tree(Y)) == 0


@pytest.mark.parametrize("bounds", ALL_FREE)
def test_numbers_know_no_element_and_change_nothing(bounds):
    y = _tree(Y)
    assert boxes.free(bounds, y) is None
    assert boxes.hold(bounds, y) is y
    assert boxes.still(bounds, y) is y
    assert boxes.count_free(bounds, y) == 6
    np.testing.assert_allclose(boxes.mean_free(bounds, y), np.mean(Y), rtol=1e-6)


def test_one_side_may_be_a_number_for_all_elements():
    box = Box(0.0, _tree(np.float32([0, 1, 2, 0, 4, 5])))
    np.testing.assert_array_equal(
        _flat(boxes.clip(box, _tree(Y))), np.clip(Y, 0, [0, 1, 2, 0, 4, 5])
    )
    mask = _flat(boxes.free(box, _tree(Y)))
    np.testing.assert_array_equal(mask, [False, True, True, False, True, True])


def test_a_box_of_another_structure_is_refused():
    box = Box([jnp.zeros(2)], [jnp.ones(2)])
    for function in (boxes.clip, boxes.inside, boxes.free, boxes.hold, boxes.still):
        with pytest.raises(ValueError, match="box of structure"):
            function(box, _tree(Y))


def test_a_tree_of_one_leaf_draws_what_its_array_would():
    key = jax.random.key(0)
    expected = jax.random.normal(key, (2, 3))
    for like in (jnp.zeros((2, 3)), [jax.ShapeDtypeStruct((2, 3), jnp.float32)]):
        (found,) = jax.tree.leaves(trees.normal(key, like))
        np.testing.assert_array_equal(found, expected)


def test_the_leaves_of_a_tree_draw_independently():
    first, second = trees.normal(jax.random.key(0), [jnp.zeros(20_000)] * 2)
    limit = 5 / np.sqrt(20_000)  # five standard errors of a correlation
    assert abs(np.corrcoef(first, second)[0, 1]) < limit


def test_sums_and_means_are_those_of_all_elements():
    y = _tree(Y)
    assert trees.size(y) == 6
    np.testing.assert_allclose(trees.total(y), np.sum(Y), rtol=1e-6)
    np.testing.assert_allclose(trees.mean(y), np.mean(Y), rtol=1e-6)
    np.testing.assert_allclose(trees.rms(y), np.sqrt(np.mean(Y**2)), rtol=1e-6)
    np.testing.assert_array_equal(_flat(trees.subtract(y, _tree(LOW))), Y - LOW)


def test_a_choice_is_of_whole_trees_or_of_rows():
    a, b = (jax.vmap(_tree)(jnp.full((3, 6), value)) for value in (1.0, 2.0))
    use = jnp.array([True, False, True])
    found = jax.vmap(lambda tree: jnp.concatenate([tree["grid"].ravel(), tree["pair"]]))
    rows = found(trees.where(use, a, b))
    np.testing.assert_array_equal(rows, np.tile([[1], [2], [1]], 6))
    np.testing.assert_array_equal(found(trees.where(jnp.array(False), a, b)), 2)


@pytest.mark.parametrize(
    "bad, says",
    [
        ((), "one dtype"),
        (jnp.ones(2, jnp.int32), "type"),
        ([jnp.ones(1), jnp.ones(1, jnp.bfloat16)], "one dtype"),
        (jnp.ones(2, jnp.bfloat16), "bfloat16: must be of 32 bits or more, not 16"),
    ],
)
def test_a_tree_has_one_floating_dtype_of_32_bits(bad, says):
    assert trees.dtype(_tree(Y)) == jnp.float32
    with pytest.raises(AssertionError, match=says):
        trees.dtype(bad)


BOXES = "ired_jax.boxes"
MUTANTS = [
    Mutant(
        "boxes",
        "a box is taken whose low side is above its high one",
        "ired_jax.boxes",
        one("low > high", "low > high + 1e9"),
        test_a_box_without_room_is_refused,
        {"bounds": Box(2.0, -1.0)},
        error=pytest.fail.Exception,
    ),
    Mutant(
        "boxes",
        "y may be of half precision, in which small steps are lost",
        "ired_jax.trees",
        one("bits >= 32", "bits >= 16"),
        test_a_tree_has_one_floating_dtype_of_32_bits,
        {"bad": jnp.ones(2, jnp.bfloat16), "says": "of 32 bits"},
        error=pytest.fail.Exception,
    ),
    Mutant(
        "boxes",
        "a half-width is a number alone",
        "ired_jax.boxes",
        one("Box(jax.tree.map(operator.neg, bounds), bounds)", "Box(-bounds, bounds)"),
        test_a_half_width_may_be_a_tree_like_y,
        error=TypeError,
    ),
    Mutant(
        "boxes",
        "the lower side is minus the upper one",
        BOXES,
        one(
            "nearest, y, *(like(part, y) for part in box)",
            "nearest, y, jax.tree.map(jnp.negative, like(box[1], y)), like(box[1], y)",
        ),
        test_clipping_gives_the_nearest_point_and_only_points_inside_are_inside,
    ),
    Mutant(
        "boxes",
        "an answer of 32 bits is clipped to one of 64",
        BOXES,
        one("jnp.asarray(high, y.dtype)", "high"),
        test_a_box_of_more_bits_than_y_leaves_it_its_dtype,
    ),
    Mutant(
        "boxes",
        "its edge is outside",
        BOXES,
        one("(a <= y) & (y <= b)", "(a < y) & (y < b)"),
        test_clipping_gives_the_nearest_point_and_only_points_inside_are_inside,
    ),
    Mutant(
        "boxes",
        "known elements held at 0",
        BOXES,
        one("jnp.asarray(known, y.dtype)", "jnp.zeros_like(y)"),
        test_known_are_the_elements_whose_sides_are_equal,
    ),
    Mutant(
        "boxes",
        "the free elements kept still instead of the known ones",
        BOXES,
        one("jnp.where(m, x, 0)", "jnp.where(m, 0, x)"),
        test_known_are_the_elements_whose_sides_are_equal,
    ),
    Mutant(
        "boxes",
        "known elements in the number of a mean",
        BOXES,
        one("else jnp.maximum(trees.total(mask), 1)", "else trees.size(y)"),
        test_a_mean_over_the_free_elements_counts_them_alone,
    ),
    Mutant(
        "boxes",
        "only the upper side scaled",
        BOXES,
        one(
            "return jax.tree.map(lambda side: side * factor, bounds)",
            "box = jax.tree.map(lambda side: side * factor, bounds)\n"
            "    return Box(bounds[0], box[1]) if isinstance(bounds, Box) else box",
        ),
        test_a_level_s_box_is_a_multiple_on_both_sides,
    ),
    Mutant(
        "boxes",
        "the mean of the leaves' means",
        "ired_jax.trees",
        one("total(tree) / size(tree)", "sum(map(jnp.mean, leaves)) / len(leaves)"),
        test_sums_and_means_are_those_of_all_elements,
    ),
]
