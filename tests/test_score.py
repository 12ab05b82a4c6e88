"""Scores of any task: by index, by row, by seed; records, baselines and tables."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich

from experiments.build import build
from experiments.parts import Evaluation
from experiments.score import baselines, records
from experiments.score.scorer import Scorer, score_seeds, training_rows
from experiments.score.solver import HELD_OUT_SEED, lowest_of, solver, widened
from experiments.score.tables import WIDTH, tables
from ired_jax import training
from ired_jax.samplers.inference import SolveInfo
from ired_jax.samplers.search import Move, Search
from ired_jax.tasks import inverse
from ired_jax.tasks.base import Evaluator, Inference, Metric, Source, Task
from ired_jax.types import Box, Energy, Example, Stream
from tests import tiny, toys
from tests.mutants import Mutant, one

RNG = np.random.default_rng
ROWS = 300  # of the finite set: more than a block
KNOWN = 0.25  # of `first` in every answer


class Fake(NamedTuple):
    """As much of an experiment as a scorer looks at."""

    task: Task
    energy: Energy
    schedule: Any
    objectives: Any
    evaluation: Evaluation
    inference: Inference
    batch_size: int = 4
    seeds: tuple = (0,)
    search: Any = None


def board_task(**changes):
    """A finite set; x and y are trees, one element of y is known, more is better."""
    data = np.linspace(-1, 1, 2 * ROWS, dtype=np.float32).reshape(ROWS, 2)

    def at(data, index):
        row = jnp.asarray(data)[index]
        return Example({"a": row}, {"first": row[:1] * 0 + KNOWN, "rest": row})

    def draw(data, key):
        return at(data, jax.random.randint(key, (), 0, ROWS))

    def box(x):
        low, high = (jnp.full(2, side) for side in (-1.0, 1.0))
        known = jnp.full(1, KNOWN)
        return Box({"first": known, "rest": low}, {"first": known, "rest": high})

    def close(x, truth, answer):
        return jnp.mean(jnp.abs(truth["rest"] - answer["rest"]) < 0.1)

    def far(x, truth, answer):
        return jnp.mean((truth["rest"] - answer["rest"]) ** 2)

    source = Source(draw, box, data, ROWS, at)
    fields = {
        "train": source,
        "splits": {"val": source, "hard": source, "third": source._replace(size=9)},
        "metrics": {
            "far": Metric(far, "low", "per element"),
            "close": Metric(close, "high", "share"),
        },
        "primary": "val/close",
        "inference": Inference(num_steps=1),
    }
    return Task(**fields | changes)


def tree_energy():
    """E = theta |y - a_t y*|^2 / (2 s_t) over both leaves; theta = 0 is flat."""
    levels = toys.schedule()

    def apply(params, x, y, t):
        gap = jnp.append(
            y["first"] - levels.a[t] * 9.0, y["rest"] - levels.a[t] * x["a"]
        )
        return params * jnp.sum(gap**2) / (2 * levels.s[t])

    return Energy(lambda key: jnp.float32(1.0), apply)


def board(objectives=("denoising",), batch_size=64, **changes):
    task = board_task(**changes)
    evaluation = Evaluation(ROWS, 8, batch_size)
    return Fake(
        task, tree_energy(), toys.schedule(), objectives, evaluation, task.inference
    )


@functools.cache
def inverse_run():
    """A tiny experiment on matrices and parameters of it."""
    experiment = build(
        tiny.get_config("none", eval__tolerance=0.01, train__num_seeds=2)
    )
    shapes, rng = jax.eval_shape(experiment.energy.init, jax.random.key(0)), RNG(3)
    draw = lambda leaf: np.float32(rng.normal(size=leaf.shape) / 3)  # noqa: E731
    return experiment, jax.tree.map(draw, shapes)


@functools.cache
def inverse_scorer():
    return Scorer(inverse_run()[0])


@functools.cache
def score_in_batches(size: int):
    """Of 16 rows; no program knows the size."""
    scorer = inverse_scorer()
    whole = scorer.evaluation
    scorer.evaluation = whole._replace(batch_size=size)
    try:
        return scorer.score(inverse_run()[1], 16)
    finally:
        scorer.evaluation = whole


def test_a_finite_set_is_scored_by_index_as_far_as_it_goes():
    scorer = Scorer(board())
    x, y = scorer.examples("val", 1000)
    np.testing.assert_array_equal(x["a"], scorer.splits["val"].data)
    np.testing.assert_array_equal(y["rest"], x["a"])
    assert len(scorer.examples("third", 1000).x["a"]) == 9
    assert len(scorer.examples("val", 7).x["a"]) == 7


def test_splits_of_other_sizes_are_answered_in_their_own():
    def source(size):
        def draw(data, key):
            row = jax.random.uniform(key, (size,), minval=-1.0)
            return Example({"a": row}, {"first": row[:1], "rest": row})

        return Source(draw, lambda x: Box(-2.0, 2.0))

    sources = [source(size) for size in (2, 5)]
    # One box for both, as a task's box of x often is.
    val, large = sources[0], sources[1]._replace(box=sources[0].box)
    task = board_task(train=val, splits={"val": val, "large": large})
    assert (task.example.y["rest"].shape, large.example.y["rest"].shape) == ((2,), (5,))
    scorer = Scorer(board()._replace(task=task))
    for name, size in (("val", 2), ("large", 5)):
        rows = scorer.rows(jnp.float32(1.0), name, 8)
        assert rows.answer["rest"].shape == (8, size)
        assert np.all(rows.figures["close"] == 1)


def test_endless_splits_have_draws_of_their_own_whatever_the_number():
    scorer = inverse_scorer()
    val, ood = (scorer.examples(name, 300) for name in ("val", "ood"))

    @toys.jit
    def last(stream, shift):
        root = jax.random.fold_in(jax.random.key(HELD_OUT_SEED), 0)
        key = jax.random.fold_in(jax.random.fold_in(root, stream), 299)
        return inverse.draw(key, n=3, shift=shift)

    for split, stream, shift in ((val, "EVAL_DATA", 0.5), (ood, "EVAL_OOD", 0.1)):
        x, y = last(int(Stream[stream]), shift)
        np.testing.assert_allclose(split.x[299], x, rtol=1e-5)
        np.testing.assert_allclose(split.y[299], y, rtol=1e-3)
    few = scorer.examples("val", 5)
    np.testing.assert_array_equal(few.x, val.x[:5])


def test_every_metric_of_every_split_is_scored_in_float64():
    """Against NumPy; an ideal landscape is answered, a known element is not touched."""
    experiment = board()
    scorer = Scorer(experiment)
    params = experiment.energy.init(None)
    metrics, rows = scorer.score(params, ROWS), scorer.rows(params, "val", ROWS)
    np.testing.assert_array_equal(rows.answer["first"], KNOWN)
    far = np.mean((np.float64(rows.answer["rest"]) - rows.truth["rest"]) ** 2, axis=1)
    assert metrics["val/far"] == pytest.approx(far.mean(), rel=1e-12)
    stderr = far.std(ddof=1) / np.sqrt(ROWS)
    assert metrics["val/far/stderr"] == pytest.approx(stderr, rel=1e-9)
    assert metrics["val/close"] > 0.95
    assert {"hard/far", "third/close", "val/far/pred_mean"} <= set(metrics)
    assert "val/close/pred_mean" not in metrics
    assert (
        metrics["val/denoise_mse"] < 1e-8
    )  # the known element's gap of 9 is not in it


def test_every_level_is_scored_by_denoising_and_no_other():
    """Flat but at one level, where the gap is the noise itself: each has its share."""
    num_levels, flat = toys.schedule().num_levels, tree_energy()

    def apply(params, x, y, t):
        theta, level = params
        return jnp.where(t == level, 0.0, 1.0) * flat.apply(theta, x, y, t)

    scorer = Scorer(board(metrics={})._replace(energy=Energy(None, apply)))
    shares = [
        scorer.score((np.float32(1.0), np.int32(level)), ROWS)["val/denoise_mse"]
        for level in range(num_levels)
    ]
    assert min(shares) > 0.01  # of mean 1 / T each
    # They add up to the mean of all rows' squared noise, 2 elements a row.
    assert abs(sum(shares) - 1) < 4.5 * (2 / (2 * ROWS)) ** 0.5


def test_moments_are_those_of_answers_and_of_targets():
    experiment = board()
    scorer, params = Scorer(experiment), jnp.float32(0.0)
    metrics, rows = scorer.score(params, ROWS), scorer.rows(params, "val", ROWS)
    for of, tree in (("pred", rows.answer), ("target", rows.truth)):
        values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        mean = np.mean(values, dtype=np.float64)
        assert metrics[f"val/far/{of}_mean"] == pytest.approx(mean, rel=1e-6)
        assert metrics[f"val/far/{of}_std"] == pytest.approx(np.std(values), rel=1e-5)
    assert metrics["val/far/pred_std"] != metrics["val/far/target_std"]


def test_only_what_denoises_is_scored_by_denoising():
    experiment = board(objectives=("contrast",))
    metrics = Scorer(experiment).score(experiment.energy.init(None), 4)
    assert "val/denoise_mse" not in metrics


def test_an_evaluator_gets_the_model_and_needs_no_rows():
    def at_one(energy_fn, key):
        return energy_fn((), jnp.ones(2), jnp.int32(0))

    source = Source(lambda data, key: Example((), jax.random.normal(key, (2,))))
    flat = {"flat": lambda x, y, t: jnp.float32(2)}
    kl = {"kl": Evaluator(at_one, "low", "nats", trivial=flat)}
    task = Task(source, {"val": source}, {}, "kl", evaluators=kl, fitted=())
    energy = Energy(lambda key: 3.0, lambda params, x, y, t: params * jnp.sum(y))
    experiment = Fake(
        task, energy, toys.schedule(), (), Evaluation(8, 8, 8), task.inference
    )
    assert Scorer(experiment).score(3.0, 8) == {"kl": 6.0}
    others = baselines.score(task, Scorer(experiment), 8)
    assert others == {"flat": {"kl": 2.0}}
    (view,) = baselines.final_tables(task, {"kl": 6.0}, others)
    assert [*map(list, (c.cells for c in view.columns))] == [
        ["this model", "flat"],
        ["6", "2"],
    ]
    assert records.records(task, [{"kl": 6.0}])[0]["unit"] == "nats"


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_score_does_not_depend_on_the_evaluation_batch(batch_size):
    expected, score = score_in_batches(16), score_in_batches(batch_size)
    for name, value in expected.items():
        assert score[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_a_restart_has_start_noise_of_its_own_and_the_first_is_the_score_of_record():
    """On a flat landscape the answer is the clipped start over a_T-1: its signs."""
    experiment = board(inference=Inference(num_steps=0))
    solve = solver(experiment, experiment.task.train)
    x, index = {"a": np.zeros((4, 2), np.float32)}, np.arange(4)
    record, _ = solve(jnp.float32(0), x, index)
    like = experiment.task.example.y

    @toys.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def of_rows(restart, row):
        root = jax.random.fold_in(jax.random.key(HELD_OUT_SEED), restart)
        key = jax.random.fold_in(root, Stream.EVAL_START)
        keys = jax.random.split(jax.random.fold_in(key, row), 2)  # a leaf each
        return jax.random.normal(keys[1], like["rest"].shape)

    for restart in (0, 1):
        answer, _ = solve(jnp.float32(0), x, index, restart)
        starts = of_rows(restart, index)
        np.testing.assert_array_equal(np.sign(answer["rest"]), np.sign(starts))
        if restart == 0:
            np.testing.assert_array_equal(answer["rest"], record["rest"])


def test_the_answer_of_least_energy_is_kept_and_nan_is_never_the_least():
    energies = {0: [3.0, np.nan, np.nan], 1: [1.0, 2.0, np.nan], 2: [2.0, 1.0, np.nan]}

    def solve(params, x, index, restart):
        energy = jnp.array(energies[restart])
        steps = jnp.ones((3, 2), int)
        return {"y": jnp.full(3, restart)}, SolveInfo(energy, None, None, steps, None)

    y, energy, steps = lowest_of(solve, None, None, None, range(3))
    np.testing.assert_array_equal(y["y"][:2], [1, 2])
    np.testing.assert_array_equal(energy[:2], [1.0, 1.0])
    np.testing.assert_array_equal(steps, 6)


def _signs(y):
    return jax.tree.map(jnp.sign, y)


def _right(y):
    """An energy of discrete answers: the number of elements that are not 1."""
    return jnp.sum(_signs(y)["rest"] != 1).astype(float)


def _solved(restart=0, search=None, **of_energy):
    """Answers to 8 rows on an energy that is flat but for what `_right` counts."""

    def apply(params, x, y, t):
        return _right(y) + params * y["rest"].sum()

    flat = Energy(lambda key: jnp.float32(0), apply, **of_energy)
    how = {"inference": Inference(num_steps=0), "round": _signs}
    experiment = board(**how)._replace(energy=flat, search=search)
    x, index = {"a": np.zeros((8, 2), np.float32)}, np.arange(8)
    return solver(experiment, experiment.task.train)(jnp.float32(0), x, index, restart)


def test_answers_are_ranked_by_the_energy_of_what_they_round_to():
    answer, info = _solved()
    np.testing.assert_array_equal(info.energy, jax.vmap(_right)(answer))
    assert len(set(info.energy.tolist())) > 1


def test_what_the_energy_says_of_inference_is_done():
    def denoise(params, x, y, t):
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5 + t), y)

    def apply(params, x, y, t):
        return jnp.sum(y["rest"]) * 0.0

    answering = Energy(
        None, apply, denoise=denoise, score=lambda params, x, y0: y0["rest"].sum()
    )
    answer, info = _solved(answering=answering)
    np.testing.assert_allclose(answer["rest"], 0.5)
    np.testing.assert_allclose(answer["first"], KNOWN)
    np.testing.assert_allclose(info.energy, 1.0)


def test_a_search_goes_on_from_the_answer_and_is_never_worse():
    _, before = _solved()
    answer, after = _solved(search=Search(6, Move(9), temperature=0.0))
    assert np.all(after.energy <= before.energy)
    # Six fresh starts of two signs each: one of the eight rows stays wrong in 1.4.
    assert after.energy.mean() < before.energy.mean() - 0.4
    np.testing.assert_array_equal(after.energy, jax.vmap(_right)(answer))
    np.testing.assert_allclose(answer["first"], KNOWN)


def test_a_wider_box_leaves_what_is_known():
    task = board_task()
    x, y = task.train.at(task.train.data, 0)
    box = widened(task.train.box(x), 5.0, y)
    assert (box.low["first"], box.high["first"]) == (KNOWN, KNOWN)
    np.testing.assert_array_equal(box.low["rest"], -5.0)
    assert widened(Box(-1.0, 1.0), 5.0, jnp.zeros(3)) == 5.0


def test_training_rows_are_the_latest_that_the_seed_itself_saw():
    experiment, _ = inverse_run()
    rows = training_rows(experiment, 5, 3, 12)
    source, key = experiment.task.train, jax.random.key(5)
    size = {"batch_size": experiment.batch_size}
    draw = toys.jit(functools.partial(training.draw_examples, source, (), **size))
    last, before = draw(key, 2), draw(key, 1)
    np.testing.assert_allclose(
        rows.x, np.concatenate([last.x, before.x])[:12], rtol=1e-6
    )
    assert training_rows(experiment, 5, 0, 12) is None


def test_each_seed_is_scored_on_rows_of_its_own():
    (experiment, params), scorer = inverse_run(), inverse_scorer()
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), params)
    scores = score_seeds(scorer, experiment, stacked, 3, 8)
    for seed, score in zip(experiment.seeds, scores, strict=True):
        own = scorer.score(params, 8, training_rows(experiment, seed, 3, 8))
        assert score["train/task_mse"] == pytest.approx(own["train/task_mse"], rel=1e-5)
    assert scores[0]["val/task_mse"] == scores[1]["val/task_mse"]
    assert scores[0]["train/task_mse"] != scores[1]["train/task_mse"]


@pytest.mark.parametrize("better", ["low", "high"])
def test_the_best_row_is_the_best_by_the_direction_of_the_primary_metric(better):
    metric = board_task().metrics["close"]._replace(better=better)
    task = board_task(metrics={"close": metric})
    values = {3: 0.5, 6: np.nan, 9: 0.2, 12: 0.9, 15: 0.2, 18: 0.9}
    rows = [{"step": step, "val/close": value} for step, value in values.items()]
    best = records.best_row(task, [{"step": 1}, *rows])
    assert best["step"] == {"low": 9, "high": 12}[better]
    assert records.best_row(task, [{"step": 1}]) is None


def test_a_result_is_of_typed_records_with_the_interval_over_seeds():
    task = board_task()
    scores = {
        str(seed): {"val/close": value, "val/close/stderr": 0.1}
        for seed, value in enumerate((0.1, 0.2, 0.6))
    }
    rows = [{"step": 2, "val/close": 0.4}, {"step": 4, "val/close": 0.3}]
    result = records.result(task, scores, rows)
    assert result["best"] == {"step": 2, "val/close": 0.4}
    assert result["primary"] == "val/close"
    (record,) = result["records"]
    assert {k: record[k] for k in ("metric", "split", "unit", "better")} == {
        "metric": "close",
        "split": "val",
        "unit": "share",
        "better": "high",
    }
    half = 4.302653 * np.sqrt(0.07 / 3)  # the variance is .07, 2 degrees of freedom
    np.testing.assert_allclose(record["interval"], [0.3 - half, 0.3 + half], rtol=1e-6)
    assert result["metrics"]["val/close"] == pytest.approx(0.3)
    assert result["metrics"]["val/close/stderr"] == pytest.approx(np.sqrt(0.07 / 3))
    (alone,) = records.records(task, [scores["0"]])
    np.testing.assert_allclose(alone["interval"], [0.1 - 0.196, 0.1 + 0.196])


def test_baselines_are_fitted_on_raveled_trees_and_scored_by_every_metric():
    task = board_task(
        solvers={"right": lambda x: {"first": x["a"][:1], "rest": x["a"]}}
    )
    found = baselines.score(task, Scorer(board()), ROWS)
    assert list(found) == ["constant mean", "linear regression", "right"]
    data = np.float64(task.train.data)
    assert found["right"]["val/close"] == 1.0
    assert found["linear regression"]["hard/far"] < 1e-10
    # The mean is that of 4096 draws with replacement.
    constant = np.mean((data - data.mean(axis=0)) ** 2)
    assert found["constant mean"]["val/far"] == pytest.approx(constant, rel=0.01)
    metrics = {f"{s}/{m}": 0.5 for s in task.splits for m in task.metrics}
    metrics |= {f"{name}/stderr": 0.1 for name in metrics}
    views = baselines.final_tables(task, metrics, found)
    assert "close, share, high is better" in views[0].title
    assert views[0].caption is not None
    of_training = task._replace(primary="train/close")  # no baseline is scored there
    assert baselines.final_tables(of_training, metrics, found)[0].caption is None


def test_no_table_cuts_a_cell_at_eighty_columns(capsys):
    columns = {f"column {i}": [f"{i}.23456 +- 0.{i}", "-"] for i in range(9)}
    for view in tables("title", ["a run of some length", "b" * 60], columns):
        rich.get_console().width, before = WIDTH, rich.get_console().width
        rich.print(view)
        rich.get_console().width = before
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= WIDTH
    assert all(cell in said for cells in columns.values() for cell in cells)
    assert all(name in said for name in columns)


MUTANTS = [
    Mutant(
        "score",
        "what a whole model has to beat is left out",
        "experiments.score.baselines",
        one(
            "others = {k: of[name] for k, of in baselines.items() if name in of}",
            "others = {}",
        ),
        test_an_evaluator_gets_the_model_and_needs_no_rows,
    ),
    Mutant(
        "score",
        "every split is answered in the first one's size",
        "experiments.score.scorer",
        one("kind = source.box, str(source.example.y)", "kind = source.box"),
        test_splits_of_other_sizes_are_answered_in_their_own,
        error=Exception,
    ),
    Mutant(
        "q209",
        "start noise keyed by the place in the batch",
        "experiments.score.scorer",
        one("rows.x, index, restarts)", "rows.x, index - index[0], restarts)"),
        test_a_score_does_not_depend_on_the_evaluation_batch,
        {"batch_size": 7},
    ),
    Mutant(
        "score",
        "training rows of every seed are the first seed's",
        "experiments.score.scorer",
        one(
            "training_rows(experiment, seed, step, num_examples)",
            "training_rows(experiment, experiment.seeds[0], step, num_examples)",
        ),
        test_each_seed_is_scored_on_rows_of_its_own,
    ),
    Mutant(
        "score",
        "the best row is the worst",
        "experiments.score.records",
        one('if better == "low" else', 'if better == "high" else'),
        test_the_best_row_is_the_best_by_the_direction_of_the_primary_metric,
        {"better": "high"},
    ),
    Mutant(
        "score",
        "the lowest value is the best, whatever the metric",
        "experiments.score.records",
        one('value < other if better == "low" else value > other', "value < other"),
        test_the_best_row_is_the_best_by_the_direction_of_the_primary_metric,
        {"better": "high"},
    ),
    Mutant(
        "score",
        "known elements count in the denoising error",
        "experiments.score.scorer",
        (
            (
                "boxes.still(box, jax.grad(energy_fn)(y, t))",
                "jax.grad(energy_fn)(y, t)",
            ),
            ("boxes.mean_free(box, trees", "boxes.mean_free(None, trees"),
        ),
        test_every_metric_of_every_split_is_scored_in_float64,
    ),
    Mutant(
        "score",
        "restarts from the same start noise",
        "experiments.score.solver",
        one("restart, Stream.EVAL_START", "0, Stream.EVAL_START"),
        test_a_restart_has_start_noise_of_its_own_and_the_first_is_the_score_of_record,
    ),
    Mutant(
        "score",
        "answers are ranked as they are, not as they are read",
        "experiments.score.solver",
        one("schedule.a[0] * leaf, rounded(y0)", "schedule.a[0] * leaf * 0, (y0)"),
        test_answers_are_ranked_by_the_energy_of_what_they_round_to,
    ),
    Mutant(
        "score",
        "a search that returns where it began",
        "experiments.score.solver",
        one("y0, found = metropolis(", "_, found = metropolis("),
        test_a_search_goes_on_from_the_answer_and_is_never_worse,
    ),
    Mutant(
        "score",
        "inference by the energy as it was trained",
        "experiments.score.solver",
        one("experiment.energy.answering or experiment.energy", "experiment.energy"),
        test_what_the_energy_says_of_inference_is_done,
    ),
    Mutant(
        "score",
        "of several answers that of most energy is kept",
        "experiments.score.solver",
        one("info.energy < kept[1]", "info.energy > kept[1]"),
        test_the_answer_of_least_energy_is_kept_and_nan_is_never_the_least,
    ),
    Mutant(
        "score",
        "the last level is never scored",
        "experiments.score.scorer",
        one("(), 0, schedule.num_levels)", "(), 0, schedule.num_levels - 1)"),
        test_every_level_is_scored_by_denoising_and_no_other,
    ),
    Mutant(
        "score",
        "the targets' moments are the answers'",
        "experiments.score.scorer",
        one('("target", truth)', '("target", answer)'),
        test_moments_are_those_of_answers_and_of_targets,
    ),
]
