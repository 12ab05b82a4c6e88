"""The commands: what they take, what they leave, and what bad input gets."""

import csv
import json
import os
import signal

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import (
    calibrate,
    cli,
    compare,
    compute,
    diagnose,
    evaluate,
    figures,
    solve,
    train,
)
from experiments.build import build
from experiments.errors import UserError
from experiments.score import thinking, trained
from experiments.views import base, inverse
from ired_jax.samplers.inference import SolveInfo
from tests import plain, runs, tiny
from tests.mutants import Mutant, one
from tests.test_solve_tasks import untrained

CONFIG = "--config=configs/cd_full.py:smoke"
NONE = "--config=configs/none.py:smoke"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a finished run on 3 x 3 matrices."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = tiny.get_config(
        "none",
        **plain.of(4),
        train__num_steps=4,
        train__steps_per_dispatch=2,
        train__log_every=2,
        train__eval_every=2,
    )
    runs.train(config, directory)
    return directory


def matrices(count: int = 5) -> np.ndarray:
    m = np.random.default_rng(0).uniform(-1, 1, (count, 3, 3))
    return 2 * m @ m.transpose(0, 2, 1) + 0.5 * np.eye(3)


def solve_with(run, tmp_path, array, name="matrices.npy"):
    if array is not None:
        np.save(tmp_path / name, array)
    output = tmp_path / "inverses.npy"
    solve.main(
        [
            "solve",
            f"--workdir={run}",
            f"--input={tmp_path / name}",
            f"--output={output}",
        ]
    )
    return output


def echo(not_finite: int = -1):
    """What makes a solver that answers with x itself, and to one row without number."""

    def solve(params, x, index, restart):
        y = np.where(np.asarray(index)[:, None] == not_finite, np.nan, x)
        info = SolveInfo(y[:, 0], None, None, np.ones((len(x), 1), int), None)
        return y, info

    return lambda *_, **__: solve


def test_solve_writes_inverses_residuals_and_energies(run, tmp_path):
    a = matrices()
    output = solve_with(run, tmp_path, a)
    inverses = np.load(output)
    assert inverses.shape == a.shape
    with (tmp_path / "inverses.csv").open() as file:
        rows = list(csv.DictReader(file))
    residual = np.linalg.norm(a @ inverses - np.eye(3), axis=(1, 2))
    np.testing.assert_allclose(
        [float(row["residual"]) for row in rows], residual, rtol=1e-4
    )
    assert all(np.isfinite(float(row["energy"])) for row in rows)


def test_what_cannot_be_checked_is_unknown_and_each_level_is_drawn(run, tmp_path):
    np.save(tmp_path / "matrices.npy", matrices())
    output, path = tmp_path / "inverses.npy", tmp_path / "new" / "think.png"
    files = f"--input={tmp_path / 'matrices.npy'}", f"--output={output}"
    options = f"--picture={path}", "--picture_row=2"
    solve.main(["solve", f"--workdir={run}", *files, *options])
    assert path.stat().st_size > 1000
    with output.with_suffix(".csv").open() as file:
        assert {row["verdict"] for row in csv.DictReader(file)} == {"unknown"}
    answers = solve.load_solver(run)(matrices(), 2)
    thought = answers.thought
    assert thought.answers.shape == (10, 9)
    assert thought.energies.shape == (10,)
    np.testing.assert_allclose(thought.answers[-1], answers.y[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(thought.energies[-1], answers.energy[2], rtol=1e-4)
    axes = thinking.picture(base.view_of("inverse"), thought).axes
    titles = [axis.get_title() for axis in axes if axis.get_title()]
    assert titles[0].startswith("level 9, energy ")
    assert titles[-1].startswith("level 0, energy ")
    assert len(titles) == 10


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(run, tmp_path):
    picture, output = tmp_path / "folder.png", tmp_path / "inverses.npy"
    np.save(tmp_path / "matrices.npy", matrices())
    picture.mkdir()
    files = f"--input={tmp_path / 'matrices.npy'}", f"--output={output}"
    with pytest.raises(UserError, match=r"^--picture=.*folder.png: is a folder"):
        solve.main(["solve", f"--workdir={run}", *files, f"--picture={picture}"])
    assert not output.exists()


def test_where_no_file_can_be_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"^--output=.*: is a folder, must be a file"):
        cli.output_path(tmp_path)
    with pytest.raises(UserError, match=r"x.png could not be written: No such file"):
        figures.save(Figure(), tmp_path / "none" / "x.png")


def test_one_matrix_alone_is_solved_as_a_batch_of_one(run, tmp_path):
    assert np.load(solve_with(run, tmp_path, matrices(1)[0])).shape == (1, 3, 3)


def test_solve_from_python_gives_what_the_command_gives(run, tmp_path):
    answers = solve.load_solver(run)(matrices().tolist())
    written = np.load(solve_with(run, tmp_path, matrices()))
    np.testing.assert_array_equal(np.stack(answers.answer), written)


def test_solve_says_which_matrices_are_unlike_those_of_the_training(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(solve, "solver", echo())
    unlike = "not symmetric and positive definite"
    a = matrices()
    solve_with(run, tmp_path, a + 1e-7 * np.triu(a, 1))
    assert unlike not in capsys.readouterr().out
    tilted = a + 0.1 * np.triu(np.ones((3, 3)), 1)
    for other in (tilted, np.concatenate([a[:1], -a[:1]])):
        solve_with(run, tmp_path, other)
        said = " ".join(capsys.readouterr().out.split())
        assert unlike in said
    assert "input 1 is not symmetric" in said
    # Numbered as in the file, whatever was refused before it.
    singular = np.concatenate([0 * a[:1], a[:1], -a[:1]])
    with pytest.raises(SystemExit):
        solve_with(run, tmp_path, singular)
    assert "input 2 is not symmetric" in " ".join(capsys.readouterr().out.split())


def test_answers_lie_in_the_box_of_the_last_split(run, monkeypatch):
    seen = []
    right = solve.solver
    monkeypatch.setattr(
        solve,
        "solver",
        lambda e, source, how, like: seen.append(source) or right(e, source, how),
    )
    solve.load_solver(run)(matrices())
    assert float(seen[0].box(None).high) == 10.0  # of the harder set


def test_an_input_of_another_shape_is_refused_and_the_others_are_solved(
    run, monkeypatch
):
    view = solve.view_of("inverse")
    odd = view._replace(to_x=lambda a: view.to_x(a)[: 9 if a[0, 0] < 1e3 else 5])
    monkeypatch.setattr(solve, "view_of", lambda name: odd)
    a = matrices()
    answers = solve.load_solver(run)(np.concatenate([a[:1], 1e4 * a[:1], a[1:2]]))
    assert list(answers.refused) == [1]
    assert "has not the shape" in answers.refused[1]
    assert answers.answer[1] is None
    assert answers.answer[2] is not None


BAD_INPUTS = [
    (np.ones((2, 3, 4)), r"shape \(2, 3, 4\), must be \(N, n, n\)"),
    (np.ones((0, 3, 3)), "N >= 1"),
    (np.full((1, 3, 3), np.nan), "input 0 is not finite"),
    (np.ones((2, 3, 3)), "input 0 is singular .*; input 1 is singular"),
    (np.array([["a"]]), "dtype"),
    (None, "there is no such file"),
]


@pytest.mark.parametrize("array, message", BAD_INPUTS)
def test_solve_refuses_what_holds_no_good_matrix_and_writes_nothing(
    run, tmp_path, array, message
):
    with pytest.raises(UserError, match=message):
        solve_with(run, tmp_path, array)
    assert not (tmp_path / "inverses.npy").exists()


def test_bad_rows_are_named_and_the_others_solved_as_without_them(
    run, tmp_path, capsys
):
    a = matrices()
    good = np.load(solve_with(run, tmp_path, a))
    a[1], a[3, 0, 0] = 1.0, np.inf
    with pytest.raises(SystemExit) as caught:
        solve_with(run, tmp_path, a)
    assert caught.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: input 1 is singular (condition number")
    assert said.endswith("; input 3 is not finite")
    inverses = np.load(tmp_path / "inverses.npy")
    np.testing.assert_array_equal(inverses[[0, 2, 4]], good[[0, 2, 4]])
    assert np.isnan(inverses[[1, 3]]).all()
    with (tmp_path / "inverses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["residual"] == "" for row in rows] == [False, True, False, True, False]


def test_an_answer_that_is_not_finite_is_named_in_the_exit_code(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(solve, "solver", echo(not_finite=2))
    with pytest.raises(SystemExit) as caught:
        solve_with(run, tmp_path, matrices())
    assert caught.value.code == 1
    assert (
        capsys.readouterr().err == "error: input 2 has an answer that is not finite\n"
    )
    assert np.isnan(np.load(tmp_path / "inverses.npy")[2]).all()


def test_rows_are_numbered_through_the_file_and_not_in_each_batch():
    """Batches of 2: what keys a row's start noise is its place in the file."""
    seen, a = [], matrices()
    a[1] = 1.0

    def lowest_of(answer, params, x, index, restarts):
        seen.extend(np.asarray(index))
        return x, np.zeros(len(index)), np.zeros(len(index), int)

    config = tiny.get_config("none", eval__batch_size=2)
    model = trained.Trained(build(config), config, None, step=0, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "lowest_of", lowest_of)
        patch.setattr(trained, "load", lambda *_: model)
        patch.setattr(trained, "on_task", lambda *_: model.experiment)
        answers = solve.load_solver("run")(a)
    assert seen == [0, 2, 3, 4]
    assert list(answers.refused) == [1]


def test_a_view_may_leave_out_all_but_reading_and_writing():
    view = base.view_of("no_such_task")
    assert view.check(range(3)) == [None] * 3
    assert view.sizes([1]) == {}
    with pytest.raises(UserError, match="its module lacks `read` and `write`"):
        view.needs("read", "write")
    assert base.view_of("inverse").draw is inverse.draw


def test_evaluate_scores_a_run_with_another_configs_evaluation(run, tmp_path):
    output = tmp_path / "score.json"
    arguments = [f"--workdir={run}", f"--output={output}", "--num_examples=8"]
    other = ["--config=configs/none.py:smoke", "--config.task.n=3", "--batch_size=3"]
    evaluate.main(["evaluate", *arguments, *other])
    evaluation = json.loads(output.read_text())["evaluation"]
    assert (evaluation["num_examples"], evaluation["batch_size"]) == (8, 3)
    assert evaluation["num_steps"] == 5  # of the other config; the run's own is 1


@pytest.mark.parametrize(
    "arguments, count, name",
    [
        ([], 16, "last"),
        (["--seed=1"], 8, "last-num_examples=8-seed1"),
        (["--checkpoint=best", NONE, "--config.task.n=5"], 16, "best-none-smoke-n=5"),
        ([NONE, "--config.eval.num_examples=2"], 2, "last-none-smoke-num_examples=2"),
    ],
)
def test_scores_on_other_rows_are_another_file(arguments, count, name):
    argv = ["evaluate", "--workdir=run", *arguments]
    values, own = cli.parse(argv, evaluate.define), tiny.get_config("none")
    assert own.eval.num_examples == 16
    found = evaluate._file_name(argv, values, count, own)
    assert found == f"evaluation-{name}.json"


def test_an_energy_for_every_size_is_scored_and_used_at_another(monkeypatch, tmp_path):
    untrained(monkeypatch, "none")
    output = tmp_path / "score.json"
    other = ["--config=configs/none.py:smoke", "--config.task.n=4"]
    arguments = ["--workdir=run", f"--output={output}", "--num_examples=8"]
    evaluate.main(["evaluate", *arguments, *other])
    score = json.loads(output.read_text())
    assert score["task"] == {"name": "inverse", "n": 4}
    assert score["primary"] == "val/task_mse"
    assert {record["split"] for record in score["records"]} == {"val", "ood"}
    metrics = score["metrics"]
    assert metrics["val/task_mse"] > 0
    assert "train/task_mse" not in metrics
    a = np.eye(5)[None] * np.array([1.0, 2.0])[:, None, None]
    answers = solve.load_solver("run")(a)
    inverses = np.stack(answers.answer)
    assert inverses.shape == (2, 5, 5)
    expected = np.linalg.norm(a @ inverses - np.eye(5), axis=(1, 2))
    np.testing.assert_allclose(answers.figures["residual"], expected, rtol=1e-4)


def test_of_several_restarts_the_answer_of_least_energy_is_kept(run):
    a = matrices()
    first, three = (solve.load_solver(run, restarts=count)(a) for count in (1, 3))
    assert np.all(three.energy <= first.energy)
    assert np.any(three.energy < first.energy)
    np.testing.assert_array_equal(three.steps, 3 * first.steps)
    is_same = np.all(three.y == first.y, axis=1)
    np.testing.assert_array_equal(is_same, three.energy == first.energy)


def test_an_energy_of_one_size_is_refused_at_another():
    config = tiny.get_config("none", "mlp,smoke")
    experiment = build(config)
    params = jax.eval_shape(experiment.energy.init, jax.random.key(0))
    model = trained.Trained(experiment, config, params, step=0, seed=0)
    other = tiny.get_config("none", "mlp,smoke", task__n=4)
    with pytest.raises(UserError, match="takes x of 9 and y of 9 elements, this task"):
        trained.on_task(model, other)
    assert trained.on_task(model, config).task.example.x.size == 9


def test_a_tolerance_stops_soon_and_the_steps_are_reported(run, tmp_path):
    matrices_path, output = tmp_path / "matrices.npy", tmp_path / "inverses.npy"
    np.save(matrices_path, matrices())
    files = [f"--workdir={run}", f"--input={matrices_path}", f"--output={output}"]
    steps = {}
    for tolerance in (0, 1e-9, 1e9):
        options = ["--num_steps=3", f"--tolerance={tolerance}"]
        solve.main(["solve", *files, *options])
        with output.with_suffix(".csv").open() as file:
            steps[tolerance] = [int(row["steps"]) for row in csv.DictReader(file)]
    levels = 10
    assert steps[0] == [3 * levels] * 5
    assert steps[1e9] == [0] * 5
    assert all(0 < count <= 3 * levels for count in steps[1e-9])


def test_evaluate_writes_the_same_score_for_every_batch_size(run, tmp_path):
    scores = []
    for batch_size in (1, 5, 256):
        output = tmp_path / f"{batch_size}.json"
        evaluate.main(
            [
                "evaluate",
                f"--workdir={run}",
                f"--output={output}",
                f"--batch_size={batch_size}",
            ]
        )
        scores.append(json.loads(output.read_text())["metrics"])
    for name, value in scores[0].items():
        for other in scores[1:]:
            assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_calibrate_prints_thresholds_that_train_takes(run, capsys):
    calibrate.main(["calibrate", f"--workdir={run}", "--num_examples=32"])
    flags = capsys.readouterr().out.strip().splitlines()[-1].replace("'", "").split()
    argv = ["train", CONFIG, *flags]
    config = cli.config_of(cli.parse(argv, train.define))
    assert config.filter.mode == "fixed"
    assert len(config.filter.thresholds) == 10
    assert all(limit > 0 for limit in config.filter.thresholds)


def test_calibrate_refuses_residuals_that_are_not_finite(run, monkeypatch):
    limits = np.array([1.0, np.nan, np.inf])
    monkeypatch.setattr(calibrate, "thresholds", lambda *_, **__: limits)
    with pytest.raises(UserError, match="residuals at levels 1, 2 are not finite"):
        calibrate.main(["calibrate", f"--workdir={run}"])


def test_compare_sets_runs_side_by_side(run, tmp_path, capsys):
    compare.main(["compare", f"--runs={run}", f"--output={tmp_path / 'c.png'}"])
    assert "grad_norm_pos" in capsys.readouterr().out
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_metrics_of_an_objective_of_one_s_own_have_a_panel_and_a_line():
    there = {"own/loss", "own/loss/min", "train/loss", "train/loss/min", "step"}
    assert figures.other_metrics(there) == ["own/loss"]
    rows = [{"step": i, "own/loss": 1.0, "own/loss/min": 1.0} for i in (1, 2)]
    drawn = figures.learning_curves({"a": rows, "b": rows}, [])
    titles = [axis.get_title() for axis in drawn.axes if axis.axison]
    assert titles == ["own/loss"]
    assert [text.get_text() for text in drawn.legends[0].texts] == ["a", "b"]


def test_every_split_of_a_panel_is_drawn_in_a_style_of_its_own():
    names = tuple(f"{split}/boards" for split in "abcdef")
    rows = [{"step": i, **dict.fromkeys(names, 1.0)} for i in (1, 2)]
    drawn = figures.learning_curves({"": rows}, [("boards", names)])
    _, labels = drawn.axes[0].get_legend_handles_labels()
    assert labels == [*names]
    patterns = {str(line._dash_pattern) for line in drawn.axes[0].get_lines()}
    assert len(patterns) == len(names)


def test_paired_seeds_get_the_interval_of_a_paired_t_test():
    """Against the formula: the mean of log ratios, t quantile, standard error."""
    rng = np.random.default_rng(0)
    first = {str(i): float(np.exp(rng.normal())) for i in range(5)}
    second = {i: v * float(np.exp(rng.normal(0.5, 0.1))) for i, v in first.items()}
    logs = np.log([second[i] / first[i] for i in first])
    error = logs.std(ddof=1) / np.sqrt(5)
    bounds = np.exp(logs.mean() + 2.776445 * error * np.array([0, -1, 1]))
    text, p = compare.paired(second, first, "second")
    numbers = [
        float(v)
        for v in text.replace("[", "").replace("]", "").replace(",", "").split()
    ]
    np.testing.assert_allclose(numbers, bounds, rtol=5e-3)
    assert float(p) < 0.01
    with pytest.raises(UserError, match="has seeds"):
        compare.paired({"9": 1.0}, first, "second")


def test_diagnose_writes_every_study_of_both_splits(run, tmp_path, capsys):
    output = tmp_path / "new" / "diagnosis.json"
    arguments = [f"--workdir={run}", "--num_examples=4", "--restarts=2"]
    diagnose.main(["diagnose", *arguments, f"--output={output}"])
    result = json.loads(output.read_text())
    assert result["negatives"] == "langevin"
    assert set(result["splits"]) == {"val", "ood"}
    for split in result["splits"].values():
        assert len(split["levels"]) == 10
        names = {*diagnose.PAIRS.values(), *diagnose.RANKINGS.values()}
        assert names | {"negatives log det"} <= set(split["levels"][0])
        assert [row["answers"] for row in split["best_of"]] == [1, 2]
        assert {line["level"] for line in split["lines"]} == {0, 5, 9}
    for name in ("levels", "diagnostics", "ranking", "best-of", "lines"):
        path = output.parent / "figures" / f"diagnosis-{name}.png"
        assert path.stat().st_size > 1000
    assert "lowest energy of 2" in capsys.readouterr().out


def test_compute_scores_steps_and_restarts(run, tmp_path, capsys):
    output = tmp_path / "new" / "compute.png"
    arguments = [f"--runs={run}", "--steps=1", "--restarts=1", "--num_examples=4"]
    compute.main(["compute", *arguments, f"--output={output}"])
    assert output.stat().st_size > 1000
    result = json.loads(output.with_suffix(".json").read_text())
    scores = result["runs"]["run"]["splits"]["ood"]
    assert [entry["steps"] for entry in scores["steps"]] == [1, 5]
    assert [entry["restarts"] for entry in scores["restarts"]] == [1]
    # One restart at the run's own number of steps is the score at that number.
    one_step, one_restart = scores["steps"][0], scores["restarts"][0]
    assert one_step["value"] == one_restart["value"]
    assert one_step["displacement"]["mean"] > 0
    assert scores["steps"][1]["displacement"]["mean"] == 0
    assert "5 steps" in capsys.readouterr().out


BAD_COMMANDS = [
    (train, [], "--config"),
    (train, ["--config=configs/nowhere.py"], "configs/nowhere.py"),
    (train, ["--config=configs/base.py"], "must be another of configs"),
    (train, ["--config=README.md"], "--config=README.md: is no config file"),
    (train, ["--config=configs/none.py:tpu"], "preset 'tpu' is unknown"),
    (train, [CONFIG, "--config.sampler.steps=4"], "steps"),
    (train, [CONFIG, "--config.train.batch_size=many"], "must be a whole number"),
    (train, [CONFIG, "--config.train.learning_rate=inf"], "inf: must be finite"),
    (train, [CONFIG, "--config.sampler.adjusted=maybe"], "must be true or false"),
    (train, [CONFIG, "sampler.num_steps=4"], "unexpected argument"),
    (train, [CONFIG, "--workdirr=x"], "workdirr"),
    (train, [CONFIG, "--config.task.n=0"], "task.n=0: must be at least 1"),
    (evaluate, ["--workdir=nowhere"], "not a run directory"),
    (
        evaluate,
        ["--workdir=x", CONFIG, "--config.energy.layers=2"],
        "would change noth",
    ),
    (solve, ["--workdir=nowhere"], "input"),
    (solve, ["--workdir=x", "--input=a.npy", "--output=a.csv"], "must not be a .csv"),
    (solve, ["--workdir=x", "--input=a.npy", "--output=./a.npy"], "is the input"),
    (
        solve,
        ["--workdir=x", "--input=a.csv", "--output=./a.npy"],
        "would overwrite the input",
    ),
    (
        solve,
        ["--workdir=x", "--input=a.npy", "--output=b.npy", "--picture=a.pdf"],
        "must be a .png file",
    ),
    (
        solve,
        ["--workdir=x", "--input=a.npy", "--output=b.png", "--picture=./b.png"],
        "--picture=./b.png: is the output, must be another",
    ),
    (solve, ["--workdir=x", "--input=a.npy", "--output="], "--output=: must be a file"),
    (
        solve,
        ["--workdir=x", "--input=a.npy", "--output=b.npy", "--picture_row=1"],
        "--picture_row: needs a --picture",
    ),
    (compare, ["--runs=nowhere"], "not a finished run"),
    (compare, ["--runs="], "at least one run directory"),
    (compare, ["--runs=x", "--output=c.txt"], "--output=c.txt: must be a picture"),
    (diagnose, ["--workdir=nowhere"], "not a run directory"),
    (diagnose, ["--workdir=x", "--quantile=1"], "--quantile=1.0: must be above 0"),
    (diagnose, ["--workdir=x", "--restarts=0"], "restarts"),
    (diagnose, ["--workdir=x", "--right=-1"], "right"),
    (compute, ["--runs=nowhere"], "not a run directory"),
    (compute, ["--runs=x", "--steps=0,5"], "--steps=0,5: must be whole numbers"),
    (compute, ["--runs=x", "--output=x.pdf"], "must be a .png file"),
    (compute, ["--runs=a/x,b/x"], "two have the same name"),
]


@pytest.mark.parametrize(
    "option", [{"bounds": -2}, {"tolerance": -1}, {"num_steps": -1}, {"restarts": 0}]
)
def test_an_option_beyond_its_limits_is_refused(run, option):
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=f"{name}={value}: must be at least"):
        solve.load_solver(run, **option)


@pytest.mark.parametrize(
    "result, named", [("{", "is damaged"), ("{}", "no metrics and no primary")]
)
def test_a_result_that_is_not_one_is_refused(tmp_path, result, named):
    (tmp_path / "result.json").write_text(result)
    with pytest.raises(UserError, match=named):
        compare.main(["compare", f"--runs={tmp_path}"])


@pytest.mark.parametrize("command, arguments, named", BAD_COMMANDS)
def test_a_bad_command_gets_one_sentence(command, arguments, named, tmp_path, capsys):
    """No traceback, exit code 2, and nothing written."""
    workdir = tmp_path / "run"
    if command is train:
        arguments = [*arguments, f"--workdir={workdir}"]
    with pytest.raises(SystemExit) as caught:
        cli.run(command.main, [command.__name__, *arguments])
    assert caught.value.code == 2
    sentence = capsys.readouterr().err.strip()
    assert sentence.startswith("error: ")
    assert named in sentence
    assert "\n" not in sentence
    assert not workdir.exists()


def test_ctrl_c_is_a_sentence_and_ends_the_command_as_a_shell_knows_it(
    monkeypatch, capsys
):
    def stop(argv):
        raise KeyboardInterrupt

    sent, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli.os, "kill", lambda *to: sent.append(to))
    try:
        cli.run(stop, ["command"])
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent == [(os.getpid(), signal.SIGINT)]
    assert capsys.readouterr().err == "error: interrupted\n"


def test_who_has_no_home_keeps_no_compiled_programs(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cli.Path, "home", fail)
    monkeypatch.setattr(cli.jax.config, "update", None)  # it is left alone
    cli.enable_compilation_cache()


def test_the_default_directory_names_the_config_and_its_presets():
    argv = ["train", "--config=configs/cd_full.py:cpu,classic"]
    assert cli.config_name(argv) == "cd_full-cpu-classic"
    assert cli.config_name(["train", "--config", "configs/none.py"]) == "none"


def test_a_command_keeps_the_memory_that_it_frees_where_its_library_can(monkeypatch):
    calls = []

    class Library:
        def mallopt(self, option, value):
            calls.append((option, value))

    monkeypatch.setattr(cli.ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(cli.sys, "platform", "linux")
    cli.run(lambda argv: None, ["command"])
    assert dict(calls) == {-4: 0, -1: 2**31 - 1, -2: 2**30, -8: 1}
    monkeypatch.setattr(cli.ctypes, "CDLL", lambda name: object())  # another library
    cli.keep_memory()
    monkeypatch.setattr(cli.sys, "platform", "darwin")
    monkeypatch.delattr(cli.ctypes, "CDLL")
    cli.keep_memory()


MUTANTS = [
    Mutant(
        "compare",
        "a fifth split is not drawn",
        "experiments.figures",
        one("itertools.cycle(STYLES)", "STYLES[:4]"),
        test_every_split_of_a_panel_is_drawn_in_a_style_of_its_own,
    ),
    Mutant(
        "solve",
        "a picture in the place of a folder",
        "experiments.cli",
        one("if path.is_dir():", "if False:"),
        test_where_no_file_can_be_is_one_sentence,
    ),
    Mutant(
        "solve",
        "a picture that cannot be written ends in a traceback",
        "experiments.figures",
        one("except OSError", "except ZeroDivisionError"),
        test_where_no_file_can_be_is_one_sentence,
        error=FileNotFoundError,
    ),
    Mutant(
        "solve",
        "rows numbered from 0 again in each batch",
        "experiments.solve",
        one(
            "numbers = index[first : first + batch_size]",
            "numbers = index[first : first + batch_size] - index[first]",
        ),
        test_rows_are_numbered_through_the_file_and_not_in_each_batch,
    ),
]
