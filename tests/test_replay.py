"""The rings against one Python deque a bucket, and the law of what is drawn."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import replay
from tests import references, toys
from tests.mutants import Mutant, one

EXAMPLE = {
    "x": jax.ShapeDtypeStruct((2,), jnp.float32),
    "y": jax.ShapeDtypeStruct((3, 2), jnp.float32),
    "t": jax.ShapeDtypeStruct((), jnp.int32),
}


_insert = toys.jit(lambda *args: replay.insert(*args))
_sample = toys.jit(lambda *args: replay.sample(*args))


def _rows(start, count):
    """Rows that carry their own number in every field, so that none can mix."""
    number = np.arange(start, start + count, dtype=np.float32)
    return {
        "x": number[:, None] + np.array([0.0, 0.25], np.float32),
        "y": np.tile(-number[:, None, None], (1, 3, 2)),
        "t": number.astype(np.int32),
    }


def _contents(state):
    """What each bucket holds, oldest first, as dicts of rows."""
    state = jax.tree.map(np.asarray, state)
    held = []
    for bucket, (head, size) in enumerate(zip(state.head, state.size, strict=True)):
        slots = (head - size + np.arange(size)) % state.capacity
        held.append({name: ring[bucket][slots] for name, ring in state.rows.items()})
    return held


def _assert_holds(state, deques):
    for held, expected in zip(_contents(state), deques.rows, strict=True):
        assert len(held["t"]) == len(expected)
        for i, row in enumerate(expected):
            for name, array in row.items():
                np.testing.assert_array_equal(held[name][i], array)


@pytest.mark.parametrize("capacity", [1, 4, 40])
def test_any_program_of_inserts_leaves_what_the_deques_hold(capacity):
    num_buckets, batch = 4, 12
    rng = np.random.default_rng(capacity)
    state = replay.init(EXAMPLE, num_buckets=num_buckets, capacity=capacity)
    deques = references.Deques(num_buckets, capacity)
    next_row, overflows = 0, 0
    for turn in range(12):
        # From all rows in one bucket to rows spread over all but bucket 3, which
        # stays empty until the last turns.
        choices = [[1], [0, 2], [0, 1, 2], [2, 2, 2, 0]][turn % 4]
        choices = choices if turn < 9 else [3, 0]
        bucket = rng.choice(choices, size=batch)
        overflows += np.max(np.bincount(bucket)) > capacity
        rows = _rows(next_row, batch)
        next_row += batch
        state = _insert(state, rows, np.int32(bucket))
        deques.insert(rows, bucket)
        _assert_holds(state, deques)
        assert state.size.dtype == state.head.dtype == jnp.int32
    assert overflows > 0 or capacity == 40


def test_of_more_rows_than_slots_in_one_insert_the_newest_stay_in_order():
    state = replay.init(EXAMPLE, num_buckets=2, capacity=3)
    state = _insert(state, _rows(0, 2), np.zeros(2, np.int32))
    state = _insert(state, _rows(2, 8), np.zeros(8, np.int32))
    first, second = _contents(state)
    assert first["t"].tolist() == [7, 8, 9]
    assert second["t"].tolist() == []


def test_no_two_rows_of_an_insert_are_written_to_one_slot():
    # Two writes to a slot end in no set order. What a row's derivative reaches is where
    # it was written: of 8 rows in one bucket the last 3, of 2 in the other both.
    state = replay.init(EXAMPLE, num_buckets=2, capacity=3)
    rows, bucket = _rows(0, 10), np.int32([0, 0, 0, 1, 0, 0, 0, 1, 0, 0])

    def total(x):
        return jnp.sum(replay.insert(state, rows | {"x": x}, bucket).rows["x"])

    written = np.asarray(toys.jit(jax.grad(total))(rows["x"]))
    np.testing.assert_array_equal(written[:, 0], [0, 0, 0, 1, 0, 0, 1, 1, 1, 1])


def test_an_insert_in_two_calls_is_an_insert_in_one():
    bucket = np.int32([0, 1, 1, 0, 1, 1])
    rows = _rows(0, 6)
    empty = replay.init(EXAMPLE, num_buckets=2, capacity=3)
    once = _insert(empty, rows, bucket)
    first, second = (
        {name: array[part] for name, array in rows.items()}
        for part in (slice(0, 2), slice(2, 6))
    )
    twice = _insert(empty, first, bucket[:2])
    twice = _insert(twice, second, bucket[2:])
    chex.assert_trees_all_equal(_contents(once), _contents(twice))
    np.testing.assert_array_equal(once.size, [2, 3])


def test_rows_of_no_bucket_are_dropped():
    bucket = np.int32([0, -1, 1, 2, -4, 1, 5, -1])
    inside = (bucket >= 0) & (bucket < 2)
    rows = _rows(4, 8)
    state = replay.init(EXAMPLE, num_buckets=2, capacity=3)
    state = _insert(state, _rows(0, 4), np.int32([0, 1, 1, 1]))
    expected = {name: array[inside] for name, array in rows.items()}
    expected = _insert(state, expected, bucket[inside])
    chex.assert_trees_all_equal(_insert(state, rows, bucket), expected)


def _filled():
    """Buckets of 0, 1, 5 (not full), and 7 rows (full, wrapped)."""
    state = replay.init(EXAMPLE, num_buckets=4, capacity=7)
    bucket = np.repeat([1, 2, 3], [1, 5, 11])
    return _insert(state, _rows(1, len(bucket)), np.int32(bucket))


def test_rows_are_drawn_uniformly_from_all_that_the_bucket_holds():
    state, draws = _filled(), 8000
    held = _contents(state)
    for bucket, size in ((1, 1), (2, 5), (3, 7)):
        assert len(held[bucket]["t"]) == size
        key = jax.random.key(bucket)
        rows, is_available = _sample(key, state, np.full(draws, bucket, np.int32))
        assert np.all(is_available)
        numbers, counts = np.unique(rows["t"], return_counts=True)
        assert set(numbers) == set(held[bucket]["t"])
        if size > 1:
            statistic = np.sum((counts - draws / size) ** 2) / (draws / size)
            assert statistic < references.chi_square_limit(size)


def test_draws_are_independent_of_their_neighbours():
    state, draws, size = _filled(), 9801, 7
    key = jax.random.key(0)
    rows, _ = _sample(key, state, np.full(draws, 3, np.int32))
    number = np.asarray(rows["t"])
    number = number - np.min(number)
    pairs = np.bincount(number[:-1] * size + number[1:], minlength=size**2)
    expected = (draws - 1) / size**2
    statistic = np.sum((pairs - expected) ** 2) / expected
    assert statistic < references.chi_square_limit(size**2)


def test_a_row_comes_whole_and_from_the_bucket_that_was_asked():
    state = _filled()
    held = [set(bucket["t"].tolist()) for bucket in _contents(state)]
    bucket = np.random.default_rng(0).integers(0, 4, size=400)
    drawn = _sample(jax.random.key(1), state, np.int32(bucket))
    rows, is_available = jax.tree.map(np.asarray, drawn)
    np.testing.assert_array_equal(is_available, bucket > 0)
    for i in np.flatnonzero(bucket > 0):
        number = int(rows["t"][i])
        assert number in held[bucket[i]]
        for name, array in _rows(number, 1).items():
            np.testing.assert_array_equal(rows[name][i], array[0])
    # An empty bucket's row is zeros, and no row of another bucket.
    empty = bucket == 0
    for array in rows.values():
        assert not np.any(np.asarray(array)[empty])


def test_an_empty_buffer_has_nothing_available():
    state = replay.init(EXAMPLE, num_buckets=3, capacity=2)
    _, is_available = _sample(jax.random.key(0), state, np.arange(3))
    assert not np.any(is_available)
    assert np.sum(state.size) == 0


def test_draws_are_set_by_the_key():
    state, bucket = _filled(), np.full(50, 3, np.int32)
    first, again, other = (
        np.asarray(_sample(jax.random.key(seed), state, bucket)[0]["t"])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_the_bucket_of_a_level_is_the_formula_in_exact_fractions():
    # In floating point 50 levels in 50 buckets would share some: t / 49 * 49 is not t.
    for num_levels in (1, 2, 3, 10, 11, 24, 50, 100):
        t, every = np.arange(num_levels), jnp.arange(100)
        for num_buckets in (1, 2, 8, 9, 16, 32, num_levels, 2 * num_levels - 1):
            bucket = replay.bucket_of(
                every, num_levels=num_levels, num_buckets=num_buckets
            )
            bucket = np.asarray(bucket)[:num_levels]
            expected = [references.bucket_of(i, num_levels, num_buckets) for i in t]
            np.testing.assert_array_equal(bucket, expected)
            assert bucket.dtype == jnp.int32
            if num_buckets >= num_levels:  # a level a bucket
                assert len(set(expected)) == num_levels


def test_ten_levels_in_sixteen_buckets_leave_six_empty():
    bucket = replay.bucket_of(jnp.arange(10), num_levels=10, num_buckets=16)
    assert len(set(range(16)) - set(np.asarray(bucket).tolist())) == 6


def test_a_donated_insert_happens_in_place():
    state = replay.init(EXAMPLE, num_buckets=4, capacity=500)
    rows, bucket = _rows(0, 8), jnp.zeros(8, jnp.int32)

    def compile_insert(**options):
        def insert(state, rows, bucket):
            return replay.insert(state, rows, bucket)

        lowered = toys.jit(insert, **options).lower(state, rows, bucket)
        return lowered.compile().memory_analysis()

    ring_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    donated = compile_insert(donate_argnums=0)
    assert donated.alias_size_in_bytes >= ring_bytes
    assert donated.temp_size_in_bytes < ring_bytes / 4  # nor is it copied inside
    assert compile_insert().alias_size_in_bytes == 0
    # And what a caller does: the donated state is gone, the new one is whole.
    insert = toys.jit(
        lambda state, rows, bucket: replay.insert(state, rows, bucket),
        donate_argnums=0,
    )
    old = state
    for _ in range(2):
        state = insert(state, rows, bucket)
    assert old.head.is_deleted()
    np.testing.assert_array_equal(state.size, [16, 0, 0, 0])


def test_inserts_and_draws_of_one_shape_are_compiled_once():
    @toys.jit
    @chex.assert_max_traces(n=1)
    def turn(key, state, rows, bucket):
        state = replay.insert(state, rows, bucket)
        return state, replay.sample(key, state, bucket)

    state = replay.init(EXAMPLE, num_buckets=4, capacity=5)
    for i in range(4):
        bucket = jnp.full(6, i, jnp.int32)
        state, _ = turn(jax.random.key(i), state, _rows(6 * i, 6), bucket)
    np.testing.assert_array_equal(state.size, [5, 5, 5, 5])


def test_rows_that_do_not_fit_are_refused():
    state = replay.init(EXAMPLE, num_buckets=2, capacity=3)
    rows, bucket = _rows(0, 4), jnp.zeros(4, jnp.int32)
    without_t = {name: rows[name] for name in ("x", "y")}
    bad_rows = [
        without_t,
        rows | {"z": rows["x"]},
        rows | {"x": rows["x"][:, :1]},
        rows | {"x": rows["x"][:3]},
        rows | {"y": rows["y"][:, :, 0]},
        rows | {"x": rows["x"].astype(np.int32)},
        rows | {"t": rows["t"].astype(np.float32)},
    ]
    for bad in bad_rows:
        with pytest.raises(AssertionError):
            replay.insert(state, bad, bucket)
    for bad in (bucket[:3], bucket[:, None], jnp.zeros(4)):
        with pytest.raises(AssertionError):
            replay.insert(state, rows, bad)
    for bad in (bucket[:, None], jnp.int32(0), jnp.zeros(4)):
        with pytest.raises(AssertionError):
            replay.sample(jax.random.key(0), state, bad)


@pytest.mark.parametrize("sizes", [(0, 5), (2, 0), (-1, 5)], ids=str)
def test_sizes_below_one_are_refused_by_name(sizes):
    num_buckets, capacity = sizes
    with pytest.raises(
        ValueError, match=f"num_buckets={num_buckets}, capacity={capacity}"
    ):
        replay.init(EXAMPLE, num_buckets=num_buckets, capacity=capacity)


def test_the_state_tells_its_sizes():
    state = replay.init(EXAMPLE, num_buckets=4, capacity=7)
    assert (state.num_buckets, state.capacity) == (4, 7)
    for name, leaf in EXAMPLE.items():
        chex.assert_shape(state.rows[name], (4, 7, *leaf.shape))
        chex.assert_type(state.rows[name], leaf.dtype)


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_insert_and_sample_agree_compiled_and_not(self):
        @self.variant
        def turn(key, state, rows, bucket):
            state = replay.insert(state, rows, bucket)
            return state, replay.sample(key, state, bucket)

        state = replay.init(EXAMPLE, num_buckets=2, capacity=1)
        bucket = jnp.array([1, 1], jnp.int32)
        state, (rows, is_available) = turn(
            jax.random.key(0), state, _rows(5, 2), bucket
        )
        np.testing.assert_array_equal(state.size, [0, 1])
        np.testing.assert_array_equal(rows["t"], [6, 6])
        assert np.all(is_available)


MUTANTS = [
    Mutant(
        "replay",
        "the ring's head stands still",
        "ired_jax.replay",
        one("head=(state.head + count) % state.capacity", "head=state.head"),
        test_any_program_of_inserts_leaves_what_the_deques_hold,
        {"capacity": 4},
    ),
    Mutant(
        "replay",
        "of too many rows the oldest stay",
        "ired_jax.replay",
        one("rank >= count[bucket] - state.capacity", "rank < state.capacity"),
        test_of_more_rows_than_slots_in_one_insert_the_newest_stay_in_order,
    ),
    Mutant(
        "replay",
        "a row of bucket -1 goes to the last ring",
        "ired_jax.replay",
        one("(bucket >= 0) & (bucket < state.num_buckets)", "bucket < 2**20"),
        test_rows_of_no_bucket_are_dropped,
    ),
    Mutant(
        "replay",
        "one row of each bucket is never drawn",
        "ired_jax.replay",
        one("bits % jnp.maximum(size, 1)", "bits % jnp.maximum(size - 1, 1)"),
        test_rows_are_drawn_uniformly_from_all_that_the_bucket_holds,
    ),
]
