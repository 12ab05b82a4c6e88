"""The studies: rankings by hand, an ideal landscape of known law, and the commands."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from experiments import compute, diagnose
from experiments.build import build
from experiments.diagnosis import landscapes, pictures, study
from experiments.score import statistics
from experiments.score.trained import Trained
from experiments.views import inverse
from ired_jax.tasks.base import Metric, Task, mean_squared_error
from ired_jax.types import Box, Example
from tests import references, tiny, toys
from tests.mutants import Mutant, one

SIGMAS = 5
NUM_ROWS = 512


# --- statistics -------------------------------------------------------------------


def test_the_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (2, 6, 9)).astype(float)
    expected = [stats.spearmanr(a, b)[0] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(statistics.rank_correlation(first, second), expected)
    order = np.arange(5.0)[None]
    assert statistics.rank_correlation(order, np.exp(order)) == [1.0]
    assert statistics.rank_correlation(order, -(order**3)) == [-1.0]
    assert np.isnan(statistics.rank_correlation(order, np.ones((1, 5))))


def test_the_auroc_counts_pairs_of_a_right_and_a_wrong_answer():
    """Against the count over all pairs; ties are half."""
    rng = np.random.default_rng(1)
    energy = rng.integers(0, 5, (8, 7)).astype(float)
    is_right = rng.random((8, 7)) < 0.5
    is_right[:, 0], is_right[:, 1] = True, False
    for row, value in enumerate(statistics.auroc(energy, is_right)):
        right, wrong = energy[row][is_right[row]], energy[row][~is_right[row]]
        wins = np.sign(wrong[:, None] - right[None, :])
        assert value == pytest.approx(np.mean((wins + 1) / 2))
    order = np.arange(4.0)[None]
    assert statistics.auroc(order, order < 2) == [1.0]
    assert statistics.auroc(-order, order < 2) == [0.0]
    assert statistics.auroc(0 * order, order < 2) == [0.5]
    assert np.isnan(statistics.auroc(order, order < 9))
    unknown = np.where(order == 3, np.nan, order)  # is above all others
    assert statistics.auroc(unknown, order < 2) == [1.0]
    assert statistics.auroc(unknown, order == 3) == [0.0]


def test_the_best_of_several_is_the_best_where_energy_is_error_and_else_the_worst():
    error = np.random.default_rng(2).random((5, 8))
    for count in (1, 2, 4, 8):
        groups = error.reshape(5, 8 // count, count)
        best = statistics.best_of(error, error, count)
        worst = statistics.best_of(-error, error, count)
        np.testing.assert_allclose(best.lowest, groups.min(axis=2).mean(axis=1))
        np.testing.assert_allclose(best.oracle, best.lowest)
        np.testing.assert_allclose(worst.lowest, groups.max(axis=2).mean(axis=1))
        np.testing.assert_allclose(best.random, error.mean(axis=1))


def test_an_answer_without_an_energy_is_not_the_best():
    energy, error = np.array([[np.nan, 3.0, 2.0, np.nan]]), np.arange(4.0)[None]
    assert statistics.best_of(energy, error, 4).lowest == [2.0]
    assert statistics.best_of(energy, error, 2).lowest == [1.5]


def test_conditioning_of_diagonal_matrices():
    matrices = np.stack(
        [np.diag([4.0, -0.5]), np.diag([1.0, 0.0]), np.full((2, 2), np.nan)]
    )
    figures = inverse.diagnostics(matrices.reshape(3, 4).astype(np.float32))
    assert figures["log det"][0] == pytest.approx(np.log10(2.0))
    assert figures["log cond"][0] == pytest.approx(np.log10(8.0))
    assert figures["min sv"][0] == pytest.approx(0.5)
    assert figures["log cond"][1] < 7  # a singular answer is known to rounding only
    assert all(np.isnan(values[2]) for values in figures.values())


def test_what_is_not_defined_is_left_out_and_counted():
    sample = np.array([1.0, np.nan, 3.0])
    assert statistics.summary(sample) == {"mean": 2.0, "stderr": 1.0, "count": 2}
    assert statistics.summary(np.full(2, np.nan))["mean"] is None
    # The root of a mean of squares: its error against many samples.
    draws = np.random.default_rng(3).normal(size=(2000, 50)) ** 2
    roots = [statistics.root_summary(draw) for draw in draws]
    spread = np.std([root["mean"] for root in roots])
    assert np.mean([root["stderr"] for root in roots]) == pytest.approx(spread, rel=0.1)


def test_several_seeds_get_a_t_interval_and_one_seed_that_of_its_draws():
    one = {"stderr": 0.1, "count": 9, "rows": 9}
    values = [one | {"mean": mean} for mean in (1.0, 2.0, 6.0)]
    over_seeds = compute._interval(values)
    assert over_seeds["mean"] == pytest.approx(3.0)
    # 4.302653: the t quantile of 2 degrees of freedom; the variance is 7.
    assert over_seeds["half"] == pytest.approx(4.302653 * np.sqrt(7 / 3))
    assert compute._interval(values[:1])["half"] == pytest.approx(0.196)


# --- an ideal landscape -------------------------------------------------------------


def box(x):
    del x
    return Box(-9.0, 9.0)


@functools.cache
def phase():
    """E = |y - a_t x|^2 / (2 s_t) + c(x), and three steps of Langevin."""
    energy = toys.ideal_energy()
    apply = lambda p, x, y, t: energy(p, x, y, t) + 5 * x[0]  # noqa: E731
    bind = lambda p, x, t: lambda y: apply(p, x, y, t)  # noqa: E731
    return toys.contrast(energy=energy._replace(apply=apply, bind=bind))


def task():
    metrics = {"task_mse": Metric(mean_squared_error, "low", "per element")}
    source = toys.source()
    return Task(
        source, {"val": source}, metrics, "val/task_mse", residual=toys.distance
    )


def examples():
    keys = jax.random.split(jax.random.key(0), NUM_ROWS)
    x, truth = jax.vmap(lambda key: toys.draw((), key))(keys)
    params = phase().energy.init(keys[0])
    return Example(np.asarray(x), np.asarray(truth)), params


def error(x, y, answers):
    del x
    return np.mean((np.asarray(answers, np.float64) - y) ** 2, axis=-1)


@functools.cache
def ideal():
    """A study of `phase`, every figure of which is known."""
    (x, truth), params = examples()
    noise = np.random.default_rng(4).normal(size=(NUM_ROWS, 4, toys.D))
    scale = np.array([0.02, 0.05, 0.1, 0.2])[:, None]
    ends = (truth[:, None] + scale * noise).astype(np.float32)
    bad = error(x, truth[:, None], ends)
    answers = study.Answers(x, truth, ends, bad, bad, box)
    subject = study.Subject(task(), phase(), params, 1.0, error, inverse.diagnostics)
    settings = study.Settings(num_examples=NUM_ROWS, restarts=4)
    programs = study.programs_of(subject)
    return study.study(subject, programs, answers, settings, jax.random.key(5), "toy")


def test_chains_on_the_ideal_landscape_have_the_width_of_their_exact_law():
    """toys.langevin: 3 steps of s_t^2 / 4 from 1.5 s_t, in units of s_t."""
    _, variance = references.plain_law(0, 1.5**2, step_sizes=[0.25] * 3, precision=1.0)
    relative = np.sqrt(2 / (NUM_ROWS * toys.D)) / 2
    rows, params = examples()
    pairs_at = toys.jit(partial(landscapes.pairs, phase(), params, box=box))
    for t in range(0, toys.T, 3):
        pairs = pairs_at(jax.random.key(t), rows, jnp.int32(t))
        pairs = jax.tree.map(np.asarray, pairs)
        figures = study.pair_figures(pairs)
        width, gap = figures["width"], figures["gap"]
        assert abs(width["mean"] / variance**0.5 - 1) < SIGMAS * relative
        assert width["stderr"] == pytest.approx(relative * variance**0.5, rel=0.2)
        expected = toys.D * (variance - 1) / 2
        assert abs(gap["mean"] - expected) < SIGMAS * gap["stderr"]
        # grad E = (y - a_t y_0) / s_t: the noise of a positive, the width of a chain.
        grad = figures["grad_norm_pos"]
        assert abs(grad["mean"] - 1) < SIGMAS * grad["stderr"]
        assert figures["grad_norm_neg"]["mean"] == pytest.approx(width["mean"], 1e-3)
        sure = 1 / (1 + np.exp(pairs.u_neg.astype(np.float64) - pairs.u_pos)) < 0.01
        assert figures["saturation"]["mean"] == pytest.approx(sure.mean(), abs=0.01)


def test_pairs_of_a_divided_gradient_are_sure_sooner_by_the_batch():
    rows, params = examples()
    pairs_at = partial(landscapes.pairs, phase()._replace(factor=64), params, box=box)
    pairs = toys.jit(pairs_at)(jax.random.key(0), rows, jnp.int32(0))
    gap = np.float64(pairs.u_neg) - pairs.u_pos
    sure, alone = (special.expit(-factor * gap) < 0.01 for factor in (64, 1))
    assert np.mean(pairs.saturated) == pytest.approx(sure.mean(), abs=0.01)
    assert sure.mean() > alone.mean() + 0.2


def test_a_candidate_stands_at_its_own_place_of_the_level():
    """U of a_t y_0 is a_t^2 |y_0 - x|^2 / (2 s_t^2), in float64."""
    (x, _), params = examples()
    x, t = x[:3], 4
    answers = np.random.default_rng(7).normal(size=(3, 5, toys.D)).astype(np.float32)
    energy = landscapes.candidate_energies(
        toys.contrast(), params, x, answers, jnp.int32(t)
    )
    a, s = (of[t] for of in references.schedule("cosine", toys.T)[2:])
    distance = np.sum((np.float64(answers) - x[:, None]) ** 2, axis=2)
    np.testing.assert_allclose(energy, a**2 * distance / (2 * s**2), rtol=1e-4)


def test_rankings_are_taken_within_one_x():
    """c(x) differs between rows by far more than answers to one x do."""
    for level in ideal()["levels"][:5]:  # where a_t is not small
        assert level["rank_correlation"]["mean"] > 0.99
        assert level["rank_correlation_ends"]["mean"] > 0.99
        assert level["auroc"]["mean"] > 0.999
        assert 0.2 < level["right_share"]["mean"] < 0.9


def test_an_energy_that_falls_with_the_error_ranks_the_wrong_way_round():
    rng = np.random.default_rng(6)
    moves, level = np.arange(1.0, 7)[None], 99 * rng.normal(size=(3, 1))
    is_right = np.broadcast_to(moves < 3, (3, 6))
    badness = np.broadcast_to(moves**2, (3, 6))
    figures = study.ranking_figures(level - moves**2, badness, is_right, count=3)
    assert figures["rank_correlation"]["mean"] == pytest.approx(-1)
    assert figures["rank_correlation_ends"]["mean"] == pytest.approx(-1)
    assert figures["auroc"]["mean"] == 0


def test_the_lowest_energy_of_several_answers_is_the_best_on_the_ideal_landscape():
    for row in ideal()["best_of"]:
        assert row["lowest"] == row["oracle"]
        assert row["gain"]["mean"] >= 0
    assert [row["answers"] for row in ideal()["best_of"]] == [1, 2, 4]


def test_lines_on_the_ideal_landscape_are_parabolas_without_barriers():
    for line in ideal()["lines"]:
        assert line["barriers"]["mean"] == 0
        if line["line"] == "truth to chain":
            share = np.linspace(0, 1, landscapes.NUM_POINTS)
            parabola = line["median"][-1] * share**2
            np.testing.assert_allclose(line["median"], parabola, atol=2e-2)


def test_a_barrier_stands_above_both_ends():
    """0 to 3 over 4: one of 1 nat. 0 to 3 over 2: none."""
    along = np.array([[0.0, 4.0, 3.0], [0.0, 2.0, 3.0]])
    figures = study.line_figures(0, [along] * 3)
    assert figures[0]["barriers"]["mean"] == 0.5


# --- commands -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "stem"),
    [
        ([], "diagnosis"),
        (["--seed=3"], "diagnosis-seed3"),
        (["--output={}/best.json"], "best"),
    ],
)
def test_a_seed_or_an_output_that_is_asked_for_has_pictures_of_its_own(
    flag, stem, tmp_path, monkeypatch
):
    saved = []
    for name in ("by_level", "ranking", "best_of", "lines"):
        monkeypatch.setattr(pictures, name, lambda _: None)
    monkeypatch.setattr(pictures, "save", lambda _, path: saved.append(path))
    monkeypatch.setattr(diagnose.trained, "load", lambda *_: None)
    found = {"splits": {}, "better": "low"}
    monkeypatch.setattr(diagnose, "diagnose", lambda *_: found)
    flag = [text.format(tmp_path) for text in flag]
    diagnose.main(["diagnose", f"--workdir={tmp_path}", *flag])
    assert (tmp_path / f"{stem}.json").exists()
    names = ("levels", "ranking", "best-of", "lines")
    assert saved == [tmp_path / "figures" / f"{stem}-{name}.png" for name in names]


def test_an_error_that_is_not_known_is_not_said_to_be_0():
    figures = {"random": [0.5, np.nan], "lowest": [0.5, 0.5], "oracle": [np.nan] * 2}
    found = {name: statistics.summary(values) for name, values in figures.items()}
    split = {"best_of": [found | {"answers": 2}], "lines": [], "right": np.nan}
    said = diagnose.summary("val", split).splitlines()
    assert said[0] == "val: one answer 0.5"
    assert said[1] == "  lowest energy of 2: 0.5 +- 0, the best of them: -"


def test_a_run_is_studied_with_its_own_negatives_or_with_conditional_chains():
    for name, expected in (("adversarial", "adversarial"), ("none", "langevin")):
        config = tiny.get_config(name)
        experiment = build(config)
        strategy, contrast = diagnose.contrast_of(
            Trained(experiment, config, None, 0, 0)
        )
        assert strategy == expected
        assert (contrast is experiment.contrast) == (name != "none")
        assert contrast.levels == (0, 9)


MUTANTS = [
    Mutant(
        "study",
        "an error that is not known is 0",
        "experiments.diagnose",
        one('sign * mean, value["stderr"])', 'sign * mean, value["stderr"] or 0)'),
        test_an_error_that_is_not_known_is_not_said_to_be_0,
    ),
    Mutant(
        "study",
        "pictures of one output over those of another",
        "experiments.diagnose",
        one("stem = output.stem", 'stem = "diagnosis"'),
        test_a_seed_or_an_output_that_is_asked_for_has_pictures_of_its_own,
        {"flag": ["--output={}/best.json"], "stem": "best"},
    ),
    Mutant(
        "study",
        "pairs of a divided gradient count as unsure",
        "experiments.diagnosis.landscapes",
        one(" / phase.factor", ""),
        test_pairs_of_a_divided_gradient_are_sure_sooner_by_the_batch,
    ),
    Mutant(
        "study",
        "a single energy that is not a number is no AUROC at all",
        "experiments.score.statistics",
        one("energy = np.where(np.isnan(energy), np.inf, energy)\n    right", "right"),
        test_the_auroc_counts_pairs_of_a_right_and_a_wrong_answer,
    ),
    Mutant(
        "study",
        "AUROC pooled over x",
        "experiments.diagnosis.study",
        one(
            "statistics.auroc(energy, is_right)",
            "statistics.auroc(energy.reshape(1, -1), is_right.reshape(1, -1))",
        ),
        test_an_energy_that_falls_with_the_error_ranks_the_wrong_way_round,
    ),
    Mutant(
        "study",
        "width in units of a_t",
        "experiments.diagnosis.landscapes",
        one("y0) / schedule.s[t]", "y0) / schedule.a[t]"),
        test_chains_on_the_ideal_landscape_have_the_width_of_their_exact_law,
    ),
    Mutant(
        "study",
        "candidates left in y_0 space",
        "experiments.diagnosis.landscapes",
        one("lambda y: a * y, answers", "lambda y: 1.0 * y, answers"),
        test_a_candidate_stands_at_its_own_place_of_the_level,
    ),
    Mutant(
        "study",
        "AUROC of wrong answers among themselves left in",
        "experiments.score.statistics",
        one("ranks - wrong * (wrong + 1) / 2", "ranks"),
        test_the_auroc_counts_pairs_of_a_right_and_a_wrong_answer,
    ),
    Mutant(
        "study",
        "NaN as the lowest energy",
        "experiments.score.statistics",
        one(
            "np.where(np.isnan(energy), np.inf, energy)\n    groups",
            "energy\n    groups",
        ),
        test_an_answer_without_an_energy_is_not_the_best,
    ),
    Mutant(
        "study",
        "the answer of highest energy picked",
        "experiments.score.statistics",
        one("np.argmin(energy, axis=2)", "np.argmax(energy, axis=2)"),
        test_the_best_of_several_is_the_best_where_energy_is_error_and_else_the_worst,
    ),
]
