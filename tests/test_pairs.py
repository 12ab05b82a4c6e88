"""The rows of the negative phase: levels, filter, replay, what is stored."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ired_jax import replay
from ired_jax.negatives.filters import UNSEEN, ResidualFilter
from ired_jax.negatives.langevin import Chain, make_langevin
from ired_jax.negatives.noise import make_noise
from ired_jax.negatives.random import make_random
from ired_jax.objectives import pairs
from ired_jax.objectives.contrast import contrastive_loss
from ired_jax.types import Box, Stream
from tests import references, toys
from tests.mutants import Mutant, one
from tests.test_contrast import nats_per_theta

_, _, A, S = references.schedule("cosine", toys.T)
SIGMAS = 4.5  # standard errors, two-sided chance of 1e-5 for each comparison


# Negatives and their rows


@pytest.mark.parametrize("part", ["energy", "loss_energy", "chain_energy"])
def test_each_part_of_a_step_sees_its_own_energy(part):
    """Filter, losses and chains in turn have an energy that must not be called."""

    class Called(Exception):
        pass

    def refuse(*arguments):
        raise Called

    ideal = toys.ideal_energy()
    bad = ideal._replace(apply=refuse, bind=refuse)
    spec = ResidualFilter("batch_quantile")
    chains = toys.contrast()._replace(**{part: bad})
    still = make_noise(toys.schedule(), toys.box, noise_scale=1.0)
    filtered = chains._replace(strategy=still, residual_filter=spec)
    rows = {name: np.ones((2, toys.D), np.float32) for name in ("x", "y_pos", "y")}
    rows |= {"t": jnp.int32([1, 2]), "keep": np.ones(2, np.float32)}
    calls = {
        "energy": lambda: drawn(filtered, first_state(filtered)),
        "loss_energy": lambda: contrastive_loss(chains, ideal.init(None), rows, 0),
        "chain_energy": lambda: drawn(chains, first_state(chains)),
    }
    for name, call in calls.items():
        if name == part:
            with pytest.raises(Called):
                jax.eval_shape(call)
        else:
            jax.eval_shape(call)


def test_chains_walk_on_the_parameters_that_are_trained():
    """Without noise a chain ends where theta puts it, whatever the average is."""
    spec = toys.contrast(strategy=toys.langevin(temperature=0.0, num_steps=1))
    theta = np.linspace(0.5, 1.5, toys.T, dtype=np.float32)

    @toys.jit
    def both():
        params = toys.parameters({"theta": jnp.asarray(theta)})
        state = first_state(spec)._replace(params=params)
        _, rows, _, _ = drawn(spec, state)
        key = toys.context(state).key(Stream.START)
        return rows, spec.strategy.start(key, rows, 1.0)

    rows, start = jax.tree.map(np.asarray, both())
    t = rows["t"]
    centre = A[t][:, None] * np.float64(rows["y0"])
    # One step of h = s^2 / 4 on U = theta |y - a y_0|^2 / (2 s^2).
    expected = centre + (1 - theta[t][:, None] / 4) * (start - centre)
    np.testing.assert_allclose(rows["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip, share", [(0.0, 0), (1e-4, 1)])
def test_a_clip_that_holds_the_chains_back_is_told(clip, share):
    spec = toys.contrast(strategy=toys.langevin(grad_clip=clip))
    *_, metrics = toys.jit(lambda: drawn(spec, first_state(spec)))()
    assert float(metrics["chain/clipped"]) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("clip, is_held", [(0.0, True), (0.01, False)])
def test_chains_hold_a_steep_energy_back_unless_they_are_clipped(clip, is_held):
    """U- - U+ is what the loss widens: it must turn round, or energies run away."""
    spec = toys.contrast(strategy=toys.langevin(grad_clip=clip))
    steep = 3.0  # times too steep; a step then goes 3/4 of the way

    @toys.jit
    def rows():
        theta = {"theta": jnp.full(toys.T, steep)}
        state = first_state(spec)._replace(params=toys.parameters(theta))
        return drawn(spec, state)[1]

    found = jax.tree.map(np.asarray, rows())
    pos, neg = (nats_per_theta(found, y).mean() / (toys.D / 2) for y in ("y_pos", "y"))
    # In units of D / 2: 1 at data; of the start 2.25, and 0.5 more with each step.
    error = SIGMAS * (2 / (toys.ROWS * toys.D)) ** 0.5
    assert abs(pos - 1) < error
    expected = 2.25 / 16**3 + 0.5 * (1 + 1 / 16 + 1 / 16**2) if is_held else 2.25 + 1.5
    assert abs(neg / expected - 1) < error
    assert (neg < pos) == is_held


def first_state(contrast):
    return toys.sgd_step(contrast)[1]


def drawn(contrast, state, progress=0.0):
    """The examples of a step, its pairs, the memory after them, and metrics."""
    batch, memory = toys.batch_of(state), state.memory["contrast"]
    context = toys.context(state, progress)
    return batch, *pairs.draw_pairs(contrast, context, memory, batch)


def test_the_negative_phase_draws_its_levels_from_the_range_and_rows_of_the_batch():
    contrast = toys.contrast(strategy=unrefined())

    @toys.jit
    def at(step):
        state = first_state(contrast)._replace(step=step)
        batch, rows, _, _ = drawn(contrast, state)
        return batch, rows, toys.denoising().prepare(toys.context(state), (), batch)[0]

    seen = set()
    for step in range(8):
        batch, rows, other = jax.tree.map(np.asarray, at(step))
        seen |= set(rows["t"].tolist())
        np.testing.assert_array_equal(rows["x"], batch.x[: toys.ROWS])
        np.testing.assert_array_equal(rows["y0"], batch.y[: toys.ROWS])
        # The phase's noise is its own, not that of the denoising loss.
        assert np.all(rows["eps"] != other["eps"][: toys.ROWS])
        assert_is_noised_answer(rows)
    assert seen == set(range(1, 8))  # each is missed with a chance of 8 * .86^192


def assert_is_noised_answer(rows):
    a, s = A[rows["t"]][:, None], S[rows["t"]][:, None]
    expected = a * rows["y0"] + s * rows["eps"]
    np.testing.assert_allclose(rows["y_pos"], expected, rtol=1e-4, atol=1e-4)


def opposite(x, y):
    """A residual that falls where the energy grows."""
    return 1 / (1 + toys.distance(x, y))


@pytest.mark.parametrize("per_level", [True, False])
def test_the_filter_keeps_by_the_tasks_residual_and_not_by_the_energy(per_level):
    spec = ResidualFilter("batch_quantile", per_level=per_level, denoised=False)
    contrast = toys.contrast(
        strategy=unrefined(), residual_filter=spec, residual=opposite, box=None
    )
    _, rows, _, metrics = toys.jit(lambda: drawn(contrast, first_state(contrast)))()
    t = np.asarray(rows["t"])
    y0 = np.float64(rows["y"]) / A[t][:, None]
    residual = 1 / (1 + np.sqrt(np.mean((y0 - np.float64(rows["x"])) ** 2, axis=1)))
    group = t if per_level else np.zeros_like(t)
    limits = np.array([np.quantile(residual[group == i], 0.3) for i in group])
    # A row that is its level's quantile itself sits on the threshold.
    clear = np.abs(residual / limits - 1) > 1e-5
    expected = residual >= limits
    assert np.sum(clear) > toys.ROWS / 2
    assert 0 < np.sum(expected[clear]) < np.sum(clear)
    np.testing.assert_array_equal(np.asarray(rows["keep"])[clear], expected[clear])
    assert float(metrics["filter/kept"]) == pytest.approx(np.mean(rows["keep"]))


def test_every_level_begins_unseen():
    spec = ResidualFilter("running_quantile")
    state = first_state(toys.contrast(residual_filter=spec))
    limits = state.memory["contrast"]["thresholds"]
    np.testing.assert_array_equal(limits, np.full(toys.T, UNSEEN))
    assert limits.dtype == jnp.float32


# Replay


def unrefined():
    """Fresh starts of noise, not refined: |y| < 20 always."""
    return make_random(toys.schedule(), toys.box)


def filled(contrast, t):
    """A state whose buckets hold the rows x = 100 + j, y0 = 200 + j, y = 300 + j."""
    state = first_state(contrast)
    mark = np.broadcast_to(np.float32(np.arange(t.size))[:, None], (t.size, toys.D))
    rows = {"x": 100 + mark, "y0": 200 + mark, "y": 300 + mark, "t": t}
    rings = state.memory["contrast"]["replay"]
    sizes = {"num_levels": toys.T, "num_buckets": rings.num_buckets}
    rings = replay.insert(rings, rows, replay.bucket_of(t, **sizes))
    return state._replace(memory={"denoising": (), "contrast": {"replay": rings}})


@functools.cache
def replaying(*, temperature=None, **changes):
    """Compiled: pairs drawn from marked buckets, refined at a temperature or not."""
    chains = toys.langevin(temperature=temperature) if temperature is not None else None
    options = {"capacity": 4, "curriculum": 0.5} | changes

    @toys.jit
    def pairs_at(share, t, step, progress):
        spec = pairs.Replay(share, **options)
        contrast = toys.contrast(strategy=chains or unrefined(), replay=spec)
        state = filled(contrast, t)._replace(step=step)
        return drawn(contrast, state, progress)[:2]

    return pairs_at


def replayed_pairs(*, share=1.0, buckets=range(1, 8), step=0, progress=1.0, **changes):
    """The examples of a step, and its pairs: NumPy."""
    t = np.int32(np.resize(np.repeat(buckets, 4), 28))
    return jax.tree.map(np.asarray, replaying(**changes)(share, t, step, progress))


def test_a_replayed_row_brings_its_own_condition_answer_and_level():
    _, rows = replayed_pairs()
    mark = rows["y"] - 300
    assert np.all((mark >= 0) & (mark < 28))
    np.testing.assert_array_equal(rows["x"], 100 + mark)
    np.testing.assert_array_equal(rows["y0"], 200 + mark)
    np.testing.assert_array_equal(rows["t"], 1 + mark[:, 0] // 4)


def test_a_replayed_row_keeps_its_level_where_a_bucket_holds_several():
    """One ring for all levels: a row that comes back stands at its own level."""
    _, rows = replayed_pairs(num_buckets=1, capacity=28)
    mark = rows["y"] - 300
    np.testing.assert_array_equal(rows["t"], 1 + mark[:, 0] // 4)
    assert len(np.unique(rows["t"])) > 3


def test_known_elements_are_exact_in_pairs_chains_and_rings():
    """Half of y is given, another half in each row: a_t y_0 there throughout."""

    def box(x):
        known = x > 0
        return Box(jnp.where(known, x, -2.0), jnp.where(known, x, 2.0))

    for conditional in (True, False):
        spec = toys.contrast(
            box=box,
            strategy=box_chains(box),
            replay=pairs.Replay(share=0.5, capacity=8, conditional=conditional),
        )

        def step(state, _, spec=spec):
            _, rows, memory, _ = drawn(spec, state)
            memory = {"denoising": (), "contrast": memory}
            return state._replace(step=state.step + 1, memory=memory), rows

        run = toys.jit(lambda: jax.lax.scan(step, first_state(spec), length=3)[1])  # noqa: B023
        rows = jax.tree.map(np.asarray, run())
        expected = np.float32(A)[rows["t"]][..., None] * rows["y0"]
        known = rows["x"] > 0
        for name in ("y", "y_pos"):
            given = rows[name][known], expected[known]
            np.testing.assert_allclose(*given, rtol=1e-6)
            assert np.all(rows[name][~known] != expected[~known])


def box_chains(box):
    chain = Chain(num_steps=2, grad_clip=0.0)
    return make_langevin(toys.schedule(), box, toys.units(), toys.D, chain=chain)


def test_the_positive_of_a_replayed_row_is_its_own_answer_noised_afresh():
    _, rows = replayed_pairs()
    assert np.all(rows["y0"] >= 200)
    assert_is_noised_answer(rows)
    noise = (rows["y_pos"] - A[rows["t"]][:, None] * rows["y0"]) / S[rows["t"]][:, None]
    assert 0.5 < noise.std() < 1.5


def test_the_unconditional_form_replays_y_alone():
    batch, rows = replayed_pairs(conditional=False)
    assert np.all(rows["y"] >= 300)
    np.testing.assert_array_equal(rows["x"], batch.x[: toys.ROWS])
    np.testing.assert_array_equal(rows["y0"], batch.y[: toys.ROWS])


def test_rows_of_empty_buckets_start_fresh_and_the_others_are_replayed():
    batch, rows = replayed_pairs(buckets=(2, 5))
    is_replayed = rows["y"][:, 0] >= 300
    np.testing.assert_array_equal(is_replayed, np.isin(rows["t"], (2, 5)))
    assert 0 < is_replayed.sum() < toys.ROWS
    fresh = batch.x[: toys.ROWS][~is_replayed]
    np.testing.assert_array_equal(rows["x"][~is_replayed], fresh)
    assert np.all(rows["y"][~is_replayed] != 0)


def test_each_row_has_its_own_coin():
    share, replayed = 0.5, []
    for step in range(6):
        _, rows = replayed_pairs(share=share, step=step)
        replayed.append(np.mean(rows["y"][:, 0] >= 300))
    rows = 6 * toys.ROWS
    assert abs(np.mean(replayed) - share) < SIGMAS * (share * (1 - share) / rows) ** 0.5
    assert all(0 < count < 1 for count in replayed)


def test_one_coin_for_the_batch_replays_all_rows_or_none():
    replayed = set()
    for step in range(6):
        _, rows = replayed_pairs(share=0.5, step=step, per_row_coin=False)
        replayed.add(float(np.mean(rows["y"][:, 0] >= 300)))
    assert replayed == {0.0, 1.0}


def test_the_replay_share_grows_over_its_curriculum():
    share = {}
    for progress in (0.0, 0.25, 0.5):
        _, rows = replayed_pairs(progress=progress)
        share[progress] = np.mean(rows["y"][:, 0] >= 300)
    assert share[0.0] == 0
    assert 0 < share[0.25] < 1
    assert share[0.5] == 1


def test_replayed_chains_move_and_lower_their_energy_without_noise():
    _, rows = replayed_pairs(temperature=0.0)
    # y = 300 + j was stored with y0 = 200 + j: both name the row.
    before = rows | {"y": rows["y0"] + 100}
    lowered = nats_per_theta(rows, "y") / nats_per_theta(before, "y")
    # Three steps, each multiplying the offset from the minimum by 1 - h / s^2 = 3/4.
    np.testing.assert_allclose(lowered, 0.75**6, rtol=1e-3)


@functools.cache
def many_stored_rows():
    """Rings after one step with 8 x 4096 chains on the ideal landscape."""
    num_rows = 8 * 4096
    contrast = toys.contrast(
        strategy=toys.langevin(num_steps=10),
        levels=(1, 8),
        num_rows=num_rows,
        replay=pairs.Replay(capacity=num_rows // 4),
    )

    @toys.jit
    def rings():
        state = first_state(contrast)
        batch, memory = toys.batch_of(state, num_rows), state.memory["contrast"]
        drawn = pairs.draw_pairs(contrast, toys.context(state), memory, batch)
        return drawn[1]["replay"], drawn[0]

    return jax.tree.map(np.asarray, rings())


def test_a_stored_entry_is_the_chains_end_with_the_spread_of_its_level():
    # Ten steps from 1.5 s with h = s^2 / 4 on the ideal landscape: their exact law.
    rings, _ = many_stored_rows()
    decay = 0.75**20
    width = np.sqrt(decay * 1.5**2 + 0.5 * (1 - decay) / (1 - 0.75**2))
    assert np.sum(rings.size) == 8 * 4096
    for t in range(1, 9):
        stored = {name: value[t, : rings.size[t]] for name, value in rings.rows.items()}
        assert rings.size[t] > 3500
        assert np.all(stored["t"] == t)
        z = (stored["y"] - A[t] * np.float64(stored["y0"])) / S[t]
        assert abs(z.std() / width - 1) < SIGMAS / (2 * z.size) ** 0.5
        assert abs(z.mean()) < SIGMAS * width / z.size**0.5


def test_the_refined_rows_are_stored_with_what_they_belong_to():
    rings, rows = many_stored_rows()
    for name in ("x", "y0", "y"):
        stored = np.concatenate(
            [rings.rows[name][t, : rings.size[t]] for t in range(10)]
        )
        order = np.argsort(rows["t"], kind="stable")
        np.testing.assert_array_equal(stored, rows[name][order])


PAIRS = "ired_jax.objectives.pairs"
REFINE = "y, chain = refined(given, y)"


def test_a_range_of_levels_that_ends_before_it_begins_is_refused_by_its_fields():
    says = "negatives.level_low=0.5: must be at most negatives.level_high=0.4"
    with pytest.raises(ValueError, match=says):
        pairs.Levels(0.5, 0.4).range(10)
    assert pairs.Levels(0.5, 0.5).range(10) == (4, 4)


MUTANTS = [
    Mutant(
        "pairs",
        "a range of levels that ends before it begins names no field",
        "ired_jax.objectives.pairs",
        one("if self.level_low > self.level_high:", "if False:"),
        test_a_range_of_levels_that_ends_before_it_begins_is_refused_by_its_fields,
    ),
    Mutant(
        "chain",
        "what its clip cut is not told",
        PAIRS,
        one("jnp.mean(chain.clipped)", "jnp.zeros(())"),
        test_a_clip_that_holds_the_chains_back_is_told,
        {"clip": 1e-4, "share": 1},
    ),
    Mutant(
        "chain",
        "no clip cuts everything",
        "ired_jax.negatives.langevin",
        one("return None\n    return clip /", "return 0.0\n    return clip /"),
        test_chains_hold_a_steep_energy_back_unless_they_are_clipped,
        {"clip": 0.0, "is_held": True},
    ),
    Mutant(
        "filter",
        "the threshold taken on the energy",
        PAIRS,
        one(
            "limits = filters.thresholds(",
            "residual = jax.vmap(lambda x, t, y: bind(spec.energy, params, x, t)(y))("
            'rows["x"], rows["t"], rows["y"])\n'
            "    limits = filters.thresholds(",
        ),
        test_the_filter_keeps_by_the_tasks_residual_and_not_by_the_energy,
        {"per_level": True},
    ),
    Mutant(
        "filter",
        "a level unseen begins at a threshold of 0",
        PAIRS,
        one("filters.UNSEEN, float)", "0.0, float)"),
        test_every_level_begins_unseen,
    ),
    Mutant(
        "008",
        "rows are not refined once there is a buffer",
        PAIRS,
        one(REFINE, f"still = y\n    {REFINE}\n    y = still if spec.replay else y"),
        test_replayed_chains_move_and_lower_their_energy_without_noise,
    ),
    Mutant(
        "space",
        "y_0 stored where y_t is read",
        PAIRS,
        one(
            "{name: rows[name] for name in rings.rows}",
            '{name: rows[name] for name in rings.rows} | {"y": rows["y0"]}',
        ),
        test_a_stored_entry_is_the_chains_end_with_the_spread_of_its_level,
    ),
    Mutant(
        "replay",
        "one coin for all rows",
        PAIRS,
        one("bucket.shape if spec.replay.per_row_coin else ()", "()"),
        test_each_row_has_its_own_coin,
    ),
    Mutant(
        "replay",
        "rows of empty buckets replayed as zeros",
        PAIRS,
        one("use = is_available & coin", "use = jnp.ones_like(is_available) & coin"),
        test_rows_of_empty_buckets_start_fresh_and_the_others_are_replayed,
    ),
    Mutant(
        "replay",
        "a replayed row takes the fresh row's level",
        PAIRS,
        one('("x", "y0", "t") if spec', '("x", "y0") if spec'),
        test_a_replayed_row_keeps_its_level_where_a_bucket_holds_several,
    ),
    Mutant(
        "replay",
        "the positive of a replayed row noised from the fresh answer",
        PAIRS,
        one(
            'q_sample(spec.schedule, rows["y0"], ',
            "q_sample(spec.schedule, batch.y[: spec.num_rows], ",
        ),
        test_the_positive_of_a_replayed_row_is_its_own_answer_noised_afresh,
    ),
    Mutant(
        "temperature",
        "chains at temperature 1 on E",
        PAIRS,
        one("scaled(energy_fn, spec.units.scale(t))", "energy_fn"),
        test_a_stored_entry_is_the_chains_end_with_the_spread_of_its_level,
    ),
    Mutant(
        "precision",
        "chains in the precision of the evaluation",
        PAIRS,
        one("bind(spec.chain_energy, params", "bind(spec.energy, params"),
        test_each_part_of_a_step_sees_its_own_energy,
        {"part": "chain_energy"},
    ),
    Mutant(
        "average",
        "chains walk on the averaged parameters",
        PAIRS,
        one("context.params.energy", "context.ema_params.energy"),
        test_chains_walk_on_the_parameters_that_are_trained,
    ),
    Mutant(
        "known",
        "noise on what is known of a fresh row",
        PAIRS,
        one('return rows | {"eps": still(', 'return rows | {"free": still('),
        test_known_elements_are_exact_in_pairs_chains_and_rings,
    ),
    Mutant(
        "known",
        "a replayed row has the noise of what the fresh row knows",
        PAIRS,
        one(
            "rows = _fresh_rows(spec, context, batch)",
            "rows = _stilled(spec, _fresh_rows(spec, context, batch))",
        ),
        test_known_elements_are_exact_in_pairs_chains_and_rings,
    ),
    Mutant(
        "known",
        "a chain that does not know what is given",
        "ired_jax.negatives.langevin",
        one("if mask is None:", "if True:"),
        test_known_elements_are_exact_in_pairs_chains_and_rings,
    ),
]
