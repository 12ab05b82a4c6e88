"""A run on disk: complete, resumable bit for bit, and the same however it is scored."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.logs import read_rows
from experiments.run.loop import train_and_evaluate
from experiments.score import trained
from experiments.score.scorer import Scorer
from tests.mutants import Mutant, one
from tests.runs import CONTRACT, config_of, last_state, stop_at, train
from tests.test_checkpoint import damage


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 6 steps: (directory, config, last state)."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    config = config_of(6)
    return directory, config, train_and_evaluate(config, directory)


def test_a_finished_run_is_complete_on_disk(finished):
    directory, config, state = finished
    stored = json.loads((directory / "config.json").read_text())
    assert stored["config"]["train"]["num_steps"] == 6
    assert set(stored) == {"format", "config", "versions", "commit", "device"} | {
        "primary",
        "metrics",
    }
    result = json.loads((directory / "result.json").read_text())
    assert set(result["metrics"]) >= CONTRACT
    assert result["answer_shape"] == [16, 9]
    rows = read_rows(directory)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert set(rows[-1]) >= CONTRACT
    for name in ("train/loss", "norm/grad", "margin"):
        assert all(r[f"{name}/min"] <= r[name] <= r[f"{name}/max"] for r in rows)
    names = ("learning_curves", "energy_by_level", "energy_along_chains", "answers")
    for name in names:
        assert (directory / "figures" / f"{name}.png").stat().st_size > 1000
    assert list((directory / "tensorboard").iterdir())
    restored = last_state(directory, config)
    chex.assert_trees_all_equal(restored, state)
    # Placed alike: a resumed run has the program of a new one, compiled already.
    assert restored.step.committed == state.step.committed


def test_three_steps_and_three_more_are_six_steps_bit_for_bit(finished, tmp_path):
    directory, config, state = finished
    # The cosine and the ramps know the length of the run: it is 6 in both, and the
    # first process is stopped as a signal would stop it, after no evaluation.
    with pytest.raises(UserError, match="interrupted at step 4, saved"):
        train(stop_at(4, config), tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert int(last_state(tmp_path, config).step) == 4
    resumed = train(config, tmp_path, report=False)
    chex.assert_trees_all_equal(resumed, state)
    undisturbed, rows = read_rows(directory), read_rows(tmp_path)
    for row in (*undisturbed, *rows):
        row.pop("steps_per_second")
    assert rows == undisturbed


def test_a_damaged_checkpoint_falls_back_to_the_one_before(finished, tmp_path, capsys):
    directory, config, state = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoints" / "6")
    assert int(last_state(tmp_path, config).step) == 3
    assert "checkpoint 6 cannot be read" in capsys.readouterr().out
    resumed = train(config, tmp_path, report=False)
    chex.assert_trees_all_equal(resumed, state)
    for step in ("3", "6"):
        damage(tmp_path / "checkpoints" / step)
    with pytest.raises(UserError, match="damaged"):
        train(config, tmp_path)


def test_a_directory_of_another_config_is_refused_by_the_names_of_fields(finished):
    directory, _, _ = finished
    before = sorted(p.read_bytes() for p in directory.rglob("*.json*") if p.is_file())
    other = config_of(6, loss__weight=0.5, seed=3)
    with pytest.raises(UserError, match=r"loss\.weight is 0\.05 there and 0\.5 here"):
        train(other, directory)
    assert before == sorted(
        p.read_bytes() for p in directory.rglob("*.json*") if p.is_file()
    )


def test_a_longer_run_is_refused_where_a_schedule_knows_the_length(tmp_path):
    knowing = (
        {"train__lr_schedule": "cosine"},
        {"train__denoise_share": 0.5},
        {"replay__curriculum": 0.5},
        {"negatives__curriculum": 0.5},
        {"negatives__noise_scale_end": 0.5},
    )
    for i, fields in enumerate(knowing):
        workdir.claim(tmp_path / str(i), config_of(6, **fields))
        with pytest.raises(UserError, match=r"train\.num_steps is 6 there and 9 here"):
            workdir.claim(tmp_path / str(i), config_of(9, **fields))
    workdir.claim(tmp_path / "b", config_of(6))
    workdir.claim(tmp_path / "b", config_of(9))


def test_evaluations_on_other_rows_are_another_runs(tmp_path):
    """The best one and an early stop compare those of one run with each other."""
    workdir.claim(tmp_path, config_of(6))
    with pytest.raises(UserError, match=r"num_examples_running is 8 there and 4 here"):
        workdir.claim(tmp_path, config_of(6, eval__num_examples_running=4))
    workdir.claim(tmp_path, config_of(6, eval__num_examples=32))


def test_a_run_that_goes_on_keeps_the_figures_of_its_earlier_end(finished, tmp_path):
    """Under another name: until it ends again it has none."""
    directory, _, _ = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "result.json").read_bytes()
    train(config_of(7), tmp_path, report=False)
    assert (tmp_path / "result-6.json").read_bytes() == before
    assert not (tmp_path / "result.json").exists()


def test_a_start_that_was_killed_at_once_can_be_started_again(tmp_path):
    (tmp_path / "config.json.tmp").write_text("{")
    workdir.claim(tmp_path, config_of(3))
    assert (tmp_path / "config.json").exists()


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not empty and holds no config\.json"):
        train(config_of(3), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def scoring(finished):
    """(scorer of the finished run, its parameters), as read from disk."""
    model = trained.load(finished[0])
    return Scorer(model.experiment), model.params


@pytest.mark.parametrize("batch_size", [1, 7, 16, 64])
def test_a_score_does_not_depend_on_the_evaluation_batch(finished, scoring, batch_size):
    directory, _, _ = finished
    expected = json.loads((directory / "result.json").read_text())["metrics"]
    scorer, params = scoring  # no program of it knows the size
    scorer.evaluation = scorer.evaluation._replace(batch_size=batch_size)
    metrics = scorer.score(params, 16)
    for name, value in metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


def test_several_seeds_are_one_run_with_a_result_each(finished, tmp_path):
    """One directory, a result for each seed, and each seed the run that it is alone."""
    directory, _, alone = finished
    both = train(config_of(6, train__num_seeds=2), tmp_path)
    first = jax.tree.map(lambda leaf: leaf[0], both)
    chex.assert_trees_all_close(
        first.ema_params, alone.ema_params, rtol=1e-3, atol=1e-5
    )
    result = json.loads((tmp_path / "result.json").read_text())
    single = json.loads((directory / "result.json").read_text())
    assert set(result["seeds"]) == {"0", "1"}
    values = [result["seeds"][seed]["val/task_mse"] for seed in ("0", "1")]
    assert values[0] == pytest.approx(single["metrics"]["val/task_mse"], rel=1e-2)
    assert values[0] != values[1]
    assert result["metrics"]["val/task_mse"] == pytest.approx(np.mean(values))
    model = trained.load(tmp_path, seed=1)
    second = jax.tree.map(lambda leaf: leaf[1], both.ema_params.energy)
    chex.assert_trees_all_equal(model.params, second)
    with pytest.raises(UserError, match=r"--seed=7: .* has \(0, 1\)"):
        trained.load(tmp_path, seed=7)


MUTANTS = [
    Mutant(
        "run",
        "evaluations of one run may be on different rows",
        "experiments.configuration",
        one(
            "if spec.field.on_resume}",
            'if spec.field.on_resume or name.startswith("eval.num")}',
        ),
        test_evaluations_on_other_rows_are_another_runs,
        error=pytest.fail.Exception,
    ),
]
