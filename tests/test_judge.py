"""What an energy is worth, counted by hand, and what an answer costs."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import configuration, judge
from experiments.build import build, resolve
from experiments.errors import UserError
from experiments.score import verdict
from experiments.score.trained import Trained
from tests import tiny
from tests.mutants import Mutant, one

# Three rows of four answers: right ones have less energy, but for the last row.
ENERGY = np.array([[1.0, 5.0, 2.0, 9.0], [7.0, 3.0, 8.0, 6.0], [4.0, 1.5, 0.5, 2.5]])
RIGHT = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], bool)


def test_the_first_by_energy_and_any_are_those_counted_by_hand():
    best = verdict.judged(ENERGY, RIGHT)["best"]
    assert [entry["restarts"] for entry in best] == [1, 2, 4]
    # Of two: pairs of columns (0, 1) and (2, 3).
    first = [RIGHT.mean(), np.mean([1, 1, 1, 0, 0, 0]), 2 / 3]
    any_of = [RIGHT.mean(), np.mean([1, 1, 1, 0, 1, 0]), 1.0]
    for entry, chosen, oracle in zip(best, first, any_of, strict=True):
        assert entry["first"]["mean"] == pytest.approx(chosen)
        assert entry["any"]["mean"] == pytest.approx(oracle)


def test_the_auroc_is_of_pairs_within_a_row_and_of_all_pairs():
    auroc = verdict.judged(ENERGY, RIGHT)["auroc"]
    right, wrong = ENERGY[RIGHT], ENERGY[~RIGHT]
    everywhere = np.mean(wrong[None] > right[:, None])
    assert auroc["any x"]["mean"] == pytest.approx(everywhere)
    assert auroc["same x"]["mean"] == pytest.approx(np.mean([1, 1, 0]))


def test_the_calibration_has_every_answer_once_in_order_of_energy():
    bins = verdict.judged(ENERGY, RIGHT)["calibration"]
    assert sum(part["count"] for part in bins) == RIGHT.size
    assert np.all(np.diff([part["energy"] for part in bins]) > 0)
    right = sum(part["count"] * part["right"] for part in bins)
    assert right == pytest.approx(RIGHT.sum())


def test_figures_of_several_seeds_are_means_with_the_error_over_seeds():
    seeds = [verdict.judged(ENERGY, right) for right in (RIGHT, ~RIGHT, RIGHT)]
    assert verdict.merged(seeds[:1]) is seeds[0]
    merged = verdict.merged(seeds)
    shares = [RIGHT.mean(), 1 - RIGHT.mean(), RIGHT.mean()]
    one_answer = merged["best"][0]["first"]
    assert one_answer["each"] == pytest.approx(shares)
    assert one_answer["mean"] == pytest.approx(np.mean(shares))
    assert one_answer["stderr"] == pytest.approx(np.std(shares, ddof=1) / 3**0.5)
    assert [entry["restarts"] for entry in merged["best"]] == [1, 2, 4]


ASSUMING = {"eval__rounds": 5, "eval__moves": 3, "eval__move": "assumption"}


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("sudoku", {"eval__rounds": 5}, 4 * 5),
        ("sudoku", {"eval__rounds": 5, "eval__denoise": "gradient"}, 4 * 5 * 3),
        # Each answer is ranked, by a level's rounds.
        ("sudoku", {"eval__rounds": 5, "eval__moves": 3}, (4 + 3 * 2) * 5 + 4 * 5),
        ("sudoku", ASSUMING, (4 + 3 * 4) * 5 + 4 * 5),
        ("sudoku", ASSUMING | {"eval__choose": "doubt"}, (4 + 3 * 4) * 5),
        ("sudoku", {"eval__rounds": 5, "eval__first_rounds": 9}, 3 * 5 + 9),
        ("sudoku", {"presets": "smoke,net"}, 4 * 2),
        ("sudoku", {"presets": "smoke,net", "eval__rounds": 7}, 7),
    ],
)
def test_an_answer_costs_levels_times_rounds_and_a_gradient_three(name, changes, count):
    config = tiny.get_config(name, eval__num_steps=0, **changes)
    assert verdict.evaluations(build(config)) == count


def test_the_net_has_as_many_rounds_in_one_as_the_energy_in_all_levels():
    configs = ("configs/sudoku.py:cpu", "configs/sudoku.py:cpu,net")
    energy, net = (resolve(configuration.load(config)) for config in configs)
    assert energy["eval.first_rounds"] > energy["eval.rounds"] == 12
    assert net["eval.rounds"] == energy["eval.first_rounds"] + 3 * 12
    assert net["eval.first_rounds"] == 0
    assert net["diffusion.num_levels"] == 1


@pytest.mark.parametrize(
    ("presets", "work", "count"),
    # 4 levels of 2 rounds and 2 to rank; the net ranks by its doubt.
    [("smoke", 8, 1), ("smoke", 29, 2), ("smoke", 30, 3), ("smoke,net", 30, 3)],
)
def test_equal_work_counts_the_ranking_too(presets, work, count):
    experiment = build(tiny.get_config("sudoku", presets=presets, eval__num_steps=0))
    assert verdict.affordable(experiment, work) == count
    assert verdict.cost(experiment, count) <= work < verdict.cost(experiment, count + 1)
    assert verdict.cost(experiment, 1) == 8  # alone it is not ranked
    with pytest.raises(UserError, match="--work=7: an answer alone takes 8 rounds"):
        verdict.affordable(experiment, 7)


def test_all_answers_count_where_they_are_no_power_of_two():
    best = verdict.judged(ENERGY[:, :3], RIGHT[:, :3])["best"]
    assert [entry["restarts"] for entry in best] == [1, 2, 3]
    assert best[-1]["first"]["mean"] == pytest.approx(2 / 3)


def test_runs_stand_beside_the_first_in_pairs_of_seeds():
    def run(seeds, shares):
        entry = {"first": {"mean": np.mean(shares), "each": shares}}
        return {
            "metric": "boards",
            "seeds": seeds,
            "splits": {"hard": {"best": [entry]}},
        }

    runs = {"a": run([1, 2, 3], [0.5, 0.6, 0.7]), "b": run([3, 2, 9], [0.9, 0.7, 0.1])}
    pair = verdict.beside(runs, "hard")["b"]
    assert (pair.count, pair.middle) == (2, pytest.approx(0.15))  # .2 and .1
    (table,) = judge._beside_table(runs, "boards")
    assert "0.15 [" in str([list(column.cells) for column in table.columns])
    assert judge._beside_table({"a": runs["a"]}, "boards") == []


def test_runs_of_another_task_or_data_are_in_no_pair():
    entry = {"first": {"mean": 0.5, "each": [0.4, 0.6, 0.8]}}
    run = {
        "metric": "boards",
        "seeds": [1, 2, 3],
        "splits": {"hard": {"best": [entry]}},
    }

    def of(**fields):
        config = {name.replace("__", "."): value for name, value in fields.items()}
        return run | {"config": config}

    first = of(task__n=4, data__file=None, train__rate=1)
    others = {
        "other task": of(task__n=5, data__file=None, train__rate=1),
        "other data": of(task__n=4, data__file="x", train__rate=1),
        "other rate": of(task__n=4, data__file=None, train__rate=2),
        "other metric": first | {"metric": "cells"},
        "of an earlier version": run,
    }
    (table,) = judge._beside_table({"first": first} | others, "boards")
    assert [*table.columns[0].cells] == [
        "other rate, hard",
        "of an earlier version, hard",
    ]


def test_a_split_that_there_is_not_is_refused_before_any_run_is_scored(monkeypatch):
    def load(directory, *_):
        config = tiny.get_config(directory.name)
        return Trained(build(config), config, None, 7, 0)

    scored = []
    monkeypatch.setattr(judge.trained, "load", load)
    monkeypatch.setattr(judge, "score_run", lambda *run: scored.append(run))
    with pytest.raises(UserError, match="--splits=minimal: connectivity has val, "):
        judge.main(["judge", "--runs=sudoku,connectivity", "--splits=minimal"])
    assert not scored


def test_an_energy_without_rounds_is_one_sentence():
    with pytest.raises(UserError, match="has no rounds to count"):
        verdict.evaluations(build(tiny.get_config("none")))


def test_of_an_energy_without_rounds_no_work_is_counted(monkeypatch):
    experiment = build(tiny.get_config("sudoku_published"))
    right = np.array([1.0, 0.0])
    rows = SimpleNamespace(energy=right, figures={"boards": right}, answer=right)
    monkeypatch.setattr(
        judge, "Scorer", lambda _: SimpleNamespace(rows=lambda *_: rows)
    )
    model = Trained(experiment, None, None, 7, 0)
    (found,) = judge._answers([model], Path("run"), ("val",), 2, 2)
    assert (found["val"]["work"], len(found["val"]["best"])) == ([], 2)
    run = {"metric": "boards", "seeds": (0,), "splits": found}
    assert judge.figure({"run": run}).axes


def test_a_metric_that_is_no_verdict_is_refused_at_the_first_answers(monkeypatch):
    rows, calls = SimpleNamespace(energy=0, figures={"boards": np.array([0.5])}), []
    scorer = SimpleNamespace(rows=lambda *at: calls.append(at) or rows)
    monkeypatch.setattr(judge, "Scorer", lambda _: scorer)
    model = Trained(build(tiny.get_config("sudoku")), None, None, 7, 0)
    with pytest.raises(UserError, match="--runs=run: boards must be 0 or 1"):
        judge._answers([model], Path("run"), ("val",), 16, 2)
    assert len(calls) == 1


def test_every_seed_is_read_from_the_checkpoint_that_is_asked_for(monkeypatch):
    config, loaded = tiny.get_config("sudoku", train__num_seeds=2), []
    experiment = build(config)

    def load(directory, checkpoint="last", seed=None):
        loaded.append((checkpoint, seed))
        return Trained(experiment, config, None, 7, seed)

    monkeypatch.setattr(judge.trained, "load", load)
    monkeypatch.setattr(judge, "_answers", lambda models, *_: [m.seed for m in models])
    of = judge.asked(Path("run"), restarts=2, rounds=(), checkpoint="best")
    found = judge.score_run(of, 8)
    assert loaded == [("best", None), ("best", 0), ("best", 1)]
    assert (found["step"], found["splits"]) == (7, 0.5)
    assert found["config"]["task.name"] == "sudoku"
    assert "eval.num_examples" not in found["config"]  # it may change on resuming


def test_tables_and_pictures_hold_every_run_and_split():
    of_split = verdict.judged(ENERGY, RIGHT)
    value = of_split["best"][0]["first"]
    of_split["work"] = [{"evaluations": 20, "restarts": 1, "right": value}]
    run = {"metric": "boards", "seeds": [0], "splits": {"val": of_split}}
    runs = {"one": run, "two": run | {"splits": {"val": of_split, "hard": of_split}}}
    (table,) = judge.final_tables(runs)
    assert table.row_count == 3
    assert len(judge.figure(runs).axes) >= 6


@pytest.mark.parametrize(
    "answers, is_said", [([0.5, 0.5], True), ([0.5, 0.25], False), ([0.5], False)]
)
def test_answers_that_start_noise_does_not_reach_are_said_to_be_one(answers, is_said):
    trees = [{"a": np.array([1.0, np.nan]), "b": np.float32([0, x])} for x in answers]
    of_split = verdict.judged(ENERGY, RIGHT) | {"alike": verdict.are_alike(trees)}
    runs = {"a": {"splits": {"val": of_split}}, "earlier": {"splits": {}}}
    said = "a, val: all 4 answers to each x are the same, start noise does not reach"
    assert verdict.alike_text(runs).startswith(said) == is_said
    one = verdict.merged([of_split, of_split | {"alike": False}])
    assert verdict.alike_text({"a": {"splits": {"val": one}}}) == ""


@pytest.mark.parametrize(("energy", "scale"), [(ENERGY, "log"), (-ENERGY, "linear")])
def test_energies_below_0_are_drawn_on_a_linear_axis(energy, scale):
    of_split = verdict.judged(energy, RIGHT) | {"work": []}
    run = {"metric": "boards", "seeds": [0], "splits": {"val": of_split}}
    assert judge.figure({"run": run}).axes[2].get_xscale() == scale


@pytest.mark.parametrize(("work", "restarts"), [(100, None), (0, 16)])
def test_with_work_the_file_names_no_restarts(work, restarts, tmp_path, monkeypatch):
    of_split = verdict.judged(ENERGY, RIGHT) | {"work": []}
    run = {"metric": "boards", "seeds": [0], "splits": {"val": of_split}}
    monkeypatch.setattr(judge, "score_run", lambda *_: run)
    monkeypatch.setattr(judge, "asked", lambda *_, **__: None)
    output = tmp_path / "judge.png"
    judge.main(["judge", "--runs=run", f"--work={work}", f"--output={output}"])
    written = json.loads(output.with_suffix(".json").read_text())
    assert (written["work"], written["restarts"]) == (work, restarts)


MUTANTS = [
    Mutant(
        "judge",
        "energies below 0 on a logarithmic axis",
        "experiments.judge",
        one('if all(b["energy"] > 0 for b in bins)', "if True"),
        test_energies_below_0_are_drawn_on_a_linear_axis,
        {"energy": -ENERGY, "scale": "linear"},
        error=UserWarning,
    ),
    Mutant(
        "judge",
        "the work of an energy without rounds is counted",
        "experiments.judge",
        one(" if experiment.energy.answering else []", ""),
        test_of_an_energy_without_rounds_no_work_is_counted,
        error=UserError,
    ),
    Mutant(
        "judge",
        "the last checkpoint, whichever is asked for",
        "experiments.judge",
        one("trained.load(directory, checkpoint, seed)",
            'trained.load(directory, "last", seed)'),
        test_every_seed_is_read_from_the_checkpoint_that_is_asked_for,
    ),
    Mutant(
        "judge",
        "ranking is for nothing",
        "experiments.score.verdict",
        one("work // (one + ranking(experiment))", "work // one"),
        test_equal_work_counts_the_ranking_too,
        {"presets": "smoke", "work": 29, "count": 2},
    ),
    Mutant(
        "judge",
        "the picture's several answers are not ranked",
        "experiments.score.verdict",
        one("if restarts > 1 else 0", "if restarts > 99 else 0"),
        test_equal_work_counts_the_ranking_too,
        {"presets": "smoke", "work": 29, "count": 2},
    ),
    Mutant(
        "judge",
        "runs of other tasks in one pair",
        "experiments.judge",
        one("if _are_alike(run, runs[first])", "if True"),
        test_runs_of_another_task_or_data_are_in_no_pair,
    ),
    Mutant(
        "judge",
        "a run is set beside the first the wrong way round",
        "experiments.score.verdict",
        one("paired(shares(run), shares(first)", "paired(shares(first), shares(run)"),
        test_runs_stand_beside_the_first_in_pairs_of_seeds,
    ),
    Mutant(
        "judge",
        "answers are one where one leaf is",
        "experiments.score.verdict",
        one("bool(others) and all(", "bool(others) and any("),
        test_answers_that_start_noise_does_not_reach_are_said_to_be_one,
        {"answers": [0.5, 0.25], "is_said": False},
    ),
    Mutant(
        "judge",
        "the worst answer is the first",
        "experiments.score.verdict",
        one("statistics.best_of(energy, 1.0", "statistics.best_of(-energy, 1.0"),
        test_the_first_by_energy_and_any_are_those_counted_by_hand,
    ),
    Mutant(
        "judge",
        "right answers are told apart from right ones",
        "experiments.score.verdict",
        one('"same x": statistics.summary(statistics.auroc(energy, right))',
            '"same x": statistics.summary(statistics.auroc(-energy, right))'),
        test_the_auroc_is_of_pairs_within_a_row_and_of_all_pairs,
    ),
    Mutant(
        "judge",
        "the net has the rounds of one level",
        "configs.base",
        one("rounds = first + others * (", "rounds = first + 0 * ("),
        test_the_net_has_as_many_rounds_in_one_as_the_energy_in_all_levels,
    ),
    Mutant(
        "judge",
        "a search is for nothing",
        "experiments.score.verdict",
        one("rounds += search.moves", "rounds += 0 * search.moves"),
        test_an_answer_costs_levels_times_rounds_and_a_gradient_three,
        {"name": "sudoku", "changes": {"eval__moves": 3}, "count": (4 + 3 * 2) * 2},
    ),
]  # fmt: skip
