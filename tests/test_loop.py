"""The loop: phases, seeds, early stops, interrupts, and the final report."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

from experiments.build import Experiment, build
from experiments.errors import UserError
from experiments.run import loop, workdir
from experiments.run.checkpoint import Checkpoints
from experiments.run.logs import Logs, read_rows
from experiments.run.programs import Programs
from experiments.run.schema import schema_of
from experiments.score import baselines, scorer
from experiments.score.scorer import Scorer
from ired_jax import training
from tests import plain, tiny
from tests.mutants import Mutant, one
from tests.runs import CONTRACT, EVERY_STEP, last_state, stop_at, train, without_scores
from tests.test_logs import experiment as experiment_of


def test_late_shaping_denoises_first_and_has_negatives_afterwards(
    tmp_path, monkeypatch
):
    """Up to its own phase, the run is bit for bit the one without negatives."""
    options = EVERY_STEP | {"train__num_steps": 4, "train__eval_every": 2}
    options |= plain.of(4) | {"train__log_every": 4}
    config = tiny.get_config("on_trajectory", train__denoise_share=0.75, **options)
    without_scores(monkeypatch)
    programs_take(monkeypatch, seconds=1e4, at_steps=(0, 3))
    train(config, tmp_path, report=False)
    rows = read_rows(tmp_path)
    assert [row["step"] for row in rows] == [2, 3, 4]  # a line where they begin, too
    assert all(row["steps_per_second"] > 1e-3 for row in rows)  # no step waited for
    assert ["margin" in row for row in rows] == [False, False, True]
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    late = last_state(tmp_path, config)
    experiment = build(tiny.get_config("none", **options))
    run, never = experiment.dispatch(), experiment.init_state()
    for _ in range(2):
        never, _ = run(never, experiment.train_data)
    assert late.step == never.step == 2
    chex.assert_trees_all_equal(late.params.energy, never.params.energy)


def programs_take(patch: pytest.MonkeyPatch, *, seconds: float, at_steps: tuple):
    """The phases that begin at those steps are waited for so long, says the clock."""
    news, now, waited = Programs.news, time.monotonic, []

    def slow(programs, step):
        waited.extend([seconds] if step in at_steps else [])
        return news(programs, step)

    patch.setattr(Programs, "news", slow)
    patch.setattr(time, "monotonic", lambda: now() + sum(waited))


@pytest.mark.parametrize("lead", ["denoising", "proposal"])
def test_a_run_begins_with_denoising_or_else_the_proposal_alone(lead):
    names = (lead, "contrast")
    options = plain.PROPOSING | {"objectives": names, "train__denoise_share": 0.5}
    options |= {"loss__contrastive": "logistic", "negatives__strategy": "corrupted"}
    experiment = build(tiny.get_config("sudoku", train__num_steps=20, **options))
    first = experiment.phases[1][0]
    assert experiment.phases == ((0, (lead,)), (first, names))
    assert first == pytest.approx(10, abs=experiment.periods.steps_per_dispatch)


def test_a_share_that_leaves_nothing_to_the_others_is_refused():
    options = {"train__num_steps": 40, "train__steps_per_dispatch": 5}
    said = r"denoise_share=0\.95: must leave steps to the others \(5 of 40"
    with pytest.raises(UserError, match=said):
        build(tiny.get_config("cd_full", train__denoise_share=0.95, **options))
    build(tiny.get_config("cd_full", train__denoise_share=0.9, **options))


def run_of(num_steps: int, **changes):
    """Denoising alone, the smallest program."""
    options = EVERY_STEP | {"train__num_steps": num_steps} | plain.of(4) | changes
    return tiny.get_config("none", **options)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    config = run_of(30, train__learning_rate=1e30, train__grad_clip=1e30)
    message = r"step \d+: norm/.* not finite; the last good"
    with pytest.raises(UserError, match=message) as stopped:
        train(config, tmp_path)
    state = last_state(tmp_path, config)
    assert state is None or np.all(np.isfinite(jax.tree.leaves(state.params)[0]))
    (spike,) = (tmp_path / "spikes").iterdir()
    assert f"step {json.loads(spike.read_text())['step']}:" in str(stopped.value)


def test_an_early_stop_after_evaluations_without_a_better_one(tmp_path, monkeypatch):
    scores = iter((3.0, 1.0, 2.0, 1.0, 0.5))  # the last would be better
    monkeypatch.setattr(Scorer, "score", lambda *_: {"val/task_mse": next(scores)})
    config = run_of(30, train__patience=2)
    assert int(train(config, tmp_path, report=False).step) == 12


def test_each_of_several_seeds_takes_the_steps_that_it_takes_alone():
    """Nothing goes from one to the next in the dispatch that they share."""

    def of(**fields):
        return build(tiny.get_config("none", **plain.of(4), **fields))

    experiment = of(train__num_seeds=3, seed=5)
    data = experiment.train_data
    several, _ = experiment.dispatch(0)(jax.jit(experiment.init_state)(), data)
    one = of().dispatch(0)  # the seed is in the state alone
    for index in range(3):
        alone = of(seed=5 + index)
        expected, _ = one(alone.init_state(), data)
        of_seed = experiment.of_seed(several, index)
        assert of_seed.step == expected.step > 0
        chex.assert_trees_all_close(
            of_seed.params, expected.params, rtol=1e-3, atol=1e-5
        )


def test_a_single_held_out_row_has_no_error_and_ends_no_run(tmp_path, monkeypatch):
    scores = {"val/task_mse": 1.0, "val/task_mse/stderr": float("nan")}
    monkeypatch.setattr(Scorer, "score", lambda *_: scores)
    assert int(train(run_of(3), tmp_path, report=False).step) == 3
    assert read_rows(tmp_path)[-1]["val/task_mse"] == 1.0


def run_before_its_end(directory: Path):
    """A run of 6 steps on disk of which only the final report is left to do."""
    config = run_of(6)
    experiment = build(config)
    workdir.claim(directory, config)
    rows = [dict.fromkeys(CONTRACT, value) for value in (3.0, 1.0, 2.0)]
    with (
        Logs(directory, schema_of(experiment), step=0, num_steps=6) as lines,
        Checkpoints(directory, experiment.task) as checkpoints,
    ):
        for step, row in zip((2, 4, 6), rows, strict=True):
            lines.write(row | {"step": step})
        state = jax.device_put(tiny.drawn_state(experiment)._replace(step=np.int32(6)))
        checkpoints.save(state, rows[-1])
    return config


def test_the_result_is_on_disk_and_names_the_best_evaluation(tmp_path):
    train(run_before_its_end(tmp_path), tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["best"] == {"step": 4, "val/task_mse": 1.0}
    assert (result["step"], result["num_steps"], result["patience"]) == (6, 6, 0)
    assert set(result["metrics"]) >= CONTRACT


def without_figures(patch: pytest.MonkeyPatch) -> None:
    """A report in no time: where nothing is said of what it computes."""
    without_scores(patch)
    patch.setattr(baselines, "score", lambda task, *_: {n: {} for n in task.fitted})


@pytest.mark.parametrize("patience", [0, 1])
def test_the_command_of_a_finished_run_keeps_its_origin_and_figures(
    patience, tmp_path, monkeypatch
):
    """Finished by its length, or by its patience after the worse row of step 6."""
    without_figures(monkeypatch)
    run_before_its_end(tmp_path)
    config = run_of(9 if patience else 6, train__patience=patience)
    trained, compiled = workdir.provenance(), []
    monkeypatch.setattr(Experiment, "dispatch", lambda _, phase: compiled.append(phase))
    train(config, tmp_path)
    assert not compiled
    first = (tmp_path / "result.json").read_bytes()
    monkeypatch.setattr(workdir, "provenance", lambda: trained | {"commit": "other"})
    config.eval.num_examples += 8
    train(config, tmp_path)
    rows = {"result.json": 24, "result-6-16.json": 16}
    for name, num_examples in rows.items():
        result = json.loads((tmp_path / name).read_text())
        assert (result["num_examples"], result["commit"]) == (
            num_examples,
            trained["commit"],
        )
    assert (tmp_path / "result-6-16.json").read_bytes() == first
    assert {p.name for p in tmp_path.glob("result*")} == {*rows}
    stored = json.loads((tmp_path / "config.json").read_text())
    assert {name: stored[name] for name in trained} == trained


def test_a_run_that_is_longer_than_it_shall_be_says_so(tmp_path, monkeypatch, capsys):
    without_figures(monkeypatch)
    run_before_its_end(tmp_path)
    train(run_of(3), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "train.num_steps=3 is less: the figures are of step 6" in said


def test_a_run_that_another_goes_on_with_names_both(tmp_path, monkeypatch):
    config, first = run_before_its_end(tmp_path), workdir.provenance()
    second = first | {"commit": "other"}
    monkeypatch.setattr(workdir, "provenance", lambda: second)
    workdir.sign(tmp_path, 6)
    for _ in range(2):  # the command once more
        workdir.claim(tmp_path, config)
        assert workdir.origin(tmp_path) == second | {"earlier": [{"up_to": 6, **first}]}


def test_a_run_that_lost_its_lines_is_still_reported(tmp_path, monkeypatch):
    without_figures(monkeypatch)
    config = run_before_its_end(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    train(config, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["best"] is None


def test_each_seed_is_scored_on_the_rows_that_it_was_trained_on():
    experiment, seen = build(tiny.get_config("none", train__num_seeds=2, seed=4)), []
    judge = SimpleNamespace(
        score=lambda params, count, train: seen.append((params, train)) or {}
    )
    params = {"w": np.arange(6.0).reshape(2, 3)}
    scorer.score_seeds(judge, experiment, params, 3, 16)
    for index, (own, rows) in enumerate(seen):
        np.testing.assert_array_equal(own["w"], params["w"][index])
        key, source = jax.random.key(4 + index), experiment.task.train
        last = training.draw_examples(source, source.data, key, 2, 8)
        chex.assert_trees_all_close(rows.x[:8], last.x, rtol=1e-6)
        assert len(rows.x) == 16
    assert len(seen) == 2


def test_an_interrupt_is_saved_where_no_evaluation_was(tmp_path):
    config = run_of(6)
    with pytest.raises(UserError, match="interrupted at step 1, saved"):
        train(stop_at(1, config), tmp_path)
    state = last_state(tmp_path, config)
    assert state is not None
    assert int(state.step) == 1


def test_a_score_that_is_not_finite_ends_the_run_before_it_is_logged(tmp_path):
    config = run_of(6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "score", lambda *_: {"val/task_mse": float("nan")})
        with pytest.raises(UserError, match="step 3: val/task_mse not finite"):
            train(config, tmp_path)
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]
    assert last_state(tmp_path, config) is None


@pytest.mark.parametrize("primary, sign", [("val/task_mse", 1), ("coverage", -1)])
def test_patience_ends_where_nothing_is_better_for_so_long(primary, sign):
    task = experiment_of(primary).task
    kl = task.evaluators["kl"]
    task = task._replace(evaluators={"coverage": kl._replace(better="high")})
    errors = [5.0, 3.0, 4.0, 3.0, 3.5]
    rows = [{"step": i, primary: sign * e} for i, e in enumerate(errors)]
    rows.insert(2, {"step": 1.5})  # without an evaluation
    ends = [loop._should_stop_early(task, rows, patience) for patience in (0, 2, 3, 4)]
    assert ends == [False, True, True, False]


LOOP = "experiments.run.loop"
MUTANTS = [
    Mutant(
        "run",
        "a first phase may take the whole run",
        "experiments.parts",
        one("if first == num_steps:", "if first > num_steps:"),
        test_a_share_that_leaves_nothing_to_the_others_is_refused,
        error=pytest.fail.Exception,
    ),
    Mutant(
        "run",
        "the steps of a run that patience ended are compiled",
        "experiments.run.loop",
        one("experiment.periods.num_steps if is_over else step", "step"),
        test_the_command_of_a_finished_run_keeps_its_origin_and_figures,
        {"patience": 1},
    ),
    Mutant(
        "run",
        "a single held-out row ends a run",
        "experiments.run.loop",
        one('if not n.endswith("/stderr")}', "}"),
        test_a_single_held_out_row_has_no_error_and_ends_no_run,
        error=UserError,
    ),
    Mutant(
        "run",
        "the wait for a phase's program is taken for its steps' time",
        "experiments.run.loop",
        one("meter.skip()", "pass"),
        test_late_shaping_denoises_first_and_has_negatives_afterwards,
    ),
    Mutant(
        "run",
        "the whole begins at once, whatever leads",
        "experiments.build",
        one("phases = ((0, (lead_of(terms),)),", "phases = ((0, tuple(terms)),"),
        test_a_run_begins_with_denoising_or_else_the_proposal_alone,
        {"lead": "proposal"},
    ),
    Mutant(
        "9",
        "results written to a scratch directory that is then removed",
        "experiments.run.report",
        one(
            'write_json(directory / "result.json", result)',
            """import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        write_json(Path(scratch) / "result.json", result)""",
        ),
        test_the_result_is_on_disk_and_names_the_best_evaluation,
        error=FileNotFoundError,
    ),
    Mutant(
        "run",
        "a finished run is signed by who looks at it again",
        LOOP,
        one("if not _is_over(experiment, step, logs.rows):", "if True:"),
        test_the_command_of_a_finished_run_keeps_its_origin_and_figures,
        {"patience": 0},
    ),
    Mutant(
        "run",
        "figures on other rows are overwritten",
        "experiments.run.report",
        one("if rows != num_examples:", "if False:"),
        test_the_command_of_a_finished_run_keeps_its_origin_and_figures,
        {"patience": 0},
        error=FileNotFoundError,
    ),
    Mutant(
        "run",
        "the worst evaluation is called the best",
        "experiments.score.records",
        one("value < other if", "value > other if"),
        test_the_result_is_on_disk_and_names_the_best_evaluation,
    ),
    Mutant(
        "run",
        "every seed scored on the first seed's rows",
        "experiments.score.scorer",
        one(
            "training_rows(experiment, seed, step",
            "training_rows(experiment, experiment.seeds[0], step",
        ),
        test_each_seed_is_scored_on_the_rows_that_it_was_trained_on,
    ),
    Mutant(
        "run",
        "an interrupt saves nothing",
        LOOP,
        one("checkpoints.save(state, None)", "pass"),
        test_an_interrupt_is_saved_where_no_evaluation_was,
    ),
    Mutant(
        "run",
        "a run without a single good score goes on",
        LOOP,
        one("if bad:", "if False:"),
        test_a_score_that_is_not_finite_ends_the_run_before_it_is_logged,
        error=KeyError,
    ),
    Mutant(
        "run",
        "patience ends at the worst",
        LOOP,
        one("row is not best", "row is best"),
        test_patience_ends_where_nothing_is_better_for_so_long,
        {"primary": "val/task_mse", "sign": 1},
    ),
    Mutant(
        "run",
        "the phase of the end from the start",
        LOOP,
        one("phase = experiment.phase_at(step)", "phase = len(experiment.phases) - 1"),
        test_late_shaping_denoises_first_and_has_negatives_afterwards,
    ),
    Mutant(
        "run",
        "no line where a phase begins",
        LOOP,
        one("or is_eval or is_new", "or is_eval"),
        test_late_shaping_denoises_first_and_has_negatives_afterwards,
    ),
]
