"""The commands: what they take, what they leave, and what bad input gets."""

import csv
import json

import jax
import numpy as np
import pytest

from experiments import (
    calibrate,
    cli,
    compare,
    compute,
    diagnose,
    evaluate,
    solve,
    train,
    trained,
)
from experiments.build import build
from experiments.errors import UserError
from experiments.loop import train_and_evaluate
from tests import tiny

CONFIG = "--config=configs/cd_full.py:smoke"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a finished run on 3 x 3 matrices."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = tiny.get_config(
        "none",
        train__num_steps=4,
        train__steps_per_dispatch=2,
        train__log_every=2,
        train__eval_every=2,
    )
    train_and_evaluate(config, directory)
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


def test_one_matrix_alone_is_solved_as_a_batch_of_one(run, tmp_path):
    assert np.load(solve_with(run, tmp_path, matrices(1)[0])).shape == (1, 3, 3)


def test_solve_from_python_gives_what_the_command_gives(run, tmp_path):
    answers = solve.load_solver(run)(matrices().tolist())
    written = np.load(solve_with(run, tmp_path, matrices()))
    np.testing.assert_array_equal(answers.inverse, written)


def test_solve_says_which_matrices_are_unlike_those_of_the_training(
    run, tmp_path, capsys
):
    unlike = "not symmetric and positive definite"
    a = matrices()
    solve_with(run, tmp_path, a + 1e-7 * np.triu(a, 1))
    assert unlike not in capsys.readouterr().out
    tilted = a + 0.1 * np.triu(np.ones((3, 3)), 1)
    for other in (tilted, np.concatenate([a[:1], -a[:1]])):
        solve_with(run, tmp_path, other)
        said = " ".join(capsys.readouterr().out.split())
        assert unlike in said
    assert "1 of 2 matrices, number 1 first, are not symmetric" in said


BAD_INPUTS = [
    (np.ones((2, 3, 4)), r"shape \(2, 3, 4\), must be \(N, n, n\)"),
    (np.ones((0, 3, 3)), "N >= 1"),
    (np.full((1, 3, 3), np.nan), "matrix 0 is not finite"),
    (np.stack([np.eye(3), np.ones((3, 3))]), "matrix 1 is singular"),
    (np.array([["a"]]), "dtype"),
    (None, "there is no such file"),
]


@pytest.mark.parametrize("array, message", BAD_INPUTS)
def test_solve_refuses_bad_matrices_and_writes_nothing(run, tmp_path, array, message):
    with pytest.raises(UserError, match=message):
        solve_with(run, tmp_path, array)
    assert not (tmp_path / "inverses.npy").exists()


def test_evaluate_scores_a_run_with_another_configs_evaluation(run, tmp_path):
    output = tmp_path / "score.json"
    arguments = ["evaluate", f"--workdir={run}", f"--output={output}"]
    evaluate.main([*arguments, "--num_examples=8", "--batch_size=3"])
    assert output.exists()
    other = ["--config=configs/none.py:smoke", "--config.task.n=3"]
    evaluate.main([*arguments, "--num_examples=8", *other])


def test_an_energy_for_every_size_is_scored_and_used_at_another(run, tmp_path):
    output = tmp_path / "score.json"
    other = ["--config=configs/none.py:smoke", "--config.task.n=4"]
    arguments = [f"--workdir={run}", f"--output={output}", "--num_examples=8"]
    evaluate.main(["evaluate", *arguments, *other])
    score = json.loads(output.read_text())
    assert score["task"] == {"name": "inverse", "n": 4}
    metrics = score["metrics"]
    assert metrics["val/task_mse"] > 0
    assert "train/task_mse" not in metrics
    a = np.eye(5)[None] * np.array([1.0, 2.0])[:, None, None]
    answers = solve.load_solver(run)(a)
    assert answers.inverse.shape == (2, 5, 5)
    np.testing.assert_allclose(
        answers.residual,
        np.linalg.norm(a @ answers.inverse - np.eye(5), axis=(1, 2)),
        rtol=1e-4,
    )


def test_of_several_restarts_the_answer_of_least_energy_is_kept(run):
    a = matrices()
    one, three = (solve.load_solver(run, restarts=count)(a) for count in (1, 3))
    assert np.all(three.energy <= one.energy)
    assert np.any(three.energy < one.energy)
    np.testing.assert_array_equal(three.steps, 3 * one.steps)
    is_same = np.all(three.inverse == one.inverse, axis=(1, 2))
    np.testing.assert_array_equal(is_same, three.energy == one.energy)


def test_an_energy_of_one_size_is_refused_at_another():
    config = tiny.get_config("none", "mlp,smoke")
    experiment = build(config)
    params = experiment.problem.energy.init(jax.random.key(0))
    model = trained.Trained(experiment, config, params, step=0, seed=0)
    other = tiny.get_config("none", "mlp,smoke", task__n=4)
    with pytest.raises(UserError, match="takes x of 9 and y of 9 elements, this task"):
        trained.on_task(model, other)
    assert trained.on_task(model, config).task.x_size == 9


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


def test_compare_sets_runs_side_by_side(run, tmp_path, capsys):
    compare.main(["compare", f"--runs={run}", f"--output={tmp_path / 'c.png'}"])
    assert "grad_norm_pos" in capsys.readouterr().out
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_paired_seeds_get_the_interval_of_a_paired_t_test():
    """Against the formula: the mean of log ratios, t quantile, standard error."""
    rng = np.random.default_rng(0)
    first = {str(i): float(np.exp(rng.normal())) for i in range(5)}
    second = {i: v * float(np.exp(rng.normal(0.5, 0.1))) for i, v in first.items()}
    logs = np.log([second[i] / first[i] for i in first])
    error = logs.std(ddof=1) / np.sqrt(5)
    bounds = np.exp(logs.mean() + 2.776445 * error * np.array([0, -1, 1]))
    text, p = compare.paired_ratio(second, first, "second")
    numbers = [
        float(v)
        for v in text.replace("[", "").replace("]", "").replace(",", "").split()
    ]
    np.testing.assert_allclose(numbers, bounds, rtol=5e-3)
    assert float(p) < 0.01
    with pytest.raises(UserError, match="has seeds"):
        compare.paired_ratio({"9": 1.0}, first, "second")


def test_diagnose_writes_every_study_of_both_splits(run, tmp_path, capsys):
    output = tmp_path / "new" / "diagnosis.json"
    arguments = [f"--workdir={run}", "--num_examples=4", "--restarts=2"]
    diagnose.main(["diagnose", *arguments, f"--output={output}"])
    result = json.loads(output.read_text())
    assert result["negatives"] == "cd_langevin"
    for split in ("val", "ood"):
        assert len(result[split]["levels"]) == 10
        names = {name for _, name in (*diagnose.PAIRS, *diagnose.RANKINGS)}
        assert names <= set(result[split]["levels"][0])
        assert [row["answers"] for row in result[split]["best_of"]] == [1, 2]
        assert {line["level"] for line in result[split]["lines"]} == {0, 5, 9}
    for name in ("levels", "conditioning", "ranking", "best-of", "lines"):
        path = output.parent / "figures" / f"diagnosis-{name}.png"
        assert path.stat().st_size > 1000
    assert "lowest energy of 2" in capsys.readouterr().out


def test_compute_scores_steps_and_restarts(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compute, "SPLITS", {"ood": "harder"})  # half the time
    output = tmp_path / "new" / "compute.png"
    arguments = [f"--runs={run}", "--steps=1", "--restarts=1", "--num_examples=4"]
    compute.main(["compute", *arguments, f"--output={output}"])
    assert output.stat().st_size > 1000
    result = json.loads(output.with_suffix(".json").read_text())
    scores = result["runs"]["run"]["ood"]
    assert [entry["steps"] for entry in scores["steps"]] == [1, 5]
    assert [entry["restarts"] for entry in scores["restarts"]] == [1]
    # One restart at the run's own number of steps is the score at that number.
    one_step, one_restart = scores["steps"][0], scores["restarts"][0]
    assert one_step["error"] == one_restart["error"]
    assert one_step["displacement"]["mean"] > 0
    assert scores["steps"][1]["displacement"]["mean"] == 0
    assert "5 steps" in capsys.readouterr().out


BAD_COMMANDS = [
    (train, [], "--config"),
    (train, ["--config=configs/nowhere.py"], "configs/nowhere.py"),
    (train, ["--config=configs/base.py"], "holds what all configs share"),
    (train, ["--config=README.md"], "--config=README.md: is no config file"),
    (train, ["--config=configs/none.py:tpu"], "preset 'tpu' is unknown"),
    (train, [CONFIG, "--config.sampler.steps=4"], "steps"),
    (train, [CONFIG, "--config.train.batch_size=many"], "must be a whole number"),
    (train, [CONFIG, "--config.train.learning_rate=inf"], "inf: must be finite"),
    (train, [CONFIG, "--config.sampler.adjusted=yes"], "must be true or false"),
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
    (solve, ["--workdir=x", "--input=a.npy", "--output=./a.npy"], "is the input"),
    (compare, ["--runs=nowhere"], "not a finished run"),
    (compare, ["--runs="], "at least one run directory"),
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


@pytest.mark.parametrize("result, named", [("{", "is damaged"), ("{}", "no metrics")])
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


def test_the_default_directory_names_the_config_and_its_presets():
    argv = ["train", "--config=configs/cd_full.py:cpu,classic"]
    assert cli.config_name(argv) == "cd_full-cpu-classic"
    assert cli.config_name(["train", "--config", "configs/none.py"]) == "none"
