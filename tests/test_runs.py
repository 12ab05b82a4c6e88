"""A run on disk: complete, resumable bit for bit, and the same however it is scored."""

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from experiments import cli, figures, trained, workdir
from experiments.build import build
from experiments.checkpoint import Checkpoints, abstract
from experiments.errors import UserError
from experiments.logs import SCHEMA, Logs, check_names, read_rows
from experiments.loop import train_and_evaluate
from experiments.scoring import Scorer
from tests import tiny

CONTRACT = {
    "train/denoise_mse",
    "val/denoise_mse",
    "val/task_mse",
    "ood/task_mse",
    "train/task_mse",
}
KILLS = 10
EVERY_STEP = {
    "train__steps_per_dispatch": 1,
    "train__log_every": 1,
    "train__eval_every": 3,
    "train__lr_schedule": "constant",  # a cosine would tie a run to its length
    "train__ema_warmup": 1,  # so that the average differs from the parameters
    "train__ema_every": 1,
}


def train(config, directory: Path):
    """A run without its figures, which take a third of the time of a tiny one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_all", lambda *_: None)
        return train_and_evaluate(config, directory)


def config_of(num_steps: int, **overrides):
    overrides = EVERY_STEP | overrides
    return tiny.get_config("cd_full", train__num_steps=num_steps, **overrides)


def last_state(directory: Path, config):
    like = abstract(build(config).init_state())
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.restore(like)


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
    assert set(stored) == {"config", "versions", "commit"}
    result = json.loads((directory / "result.json").read_text())
    assert set(result["metrics"]) >= CONTRACT
    assert result["answer_shape"] == [16, 9]
    rows = read_rows(directory)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert set(rows[-1]) >= CONTRACT
    names = ("learning_curves", "energy_by_level", "energy_along_chains", "answers")
    for name in names:
        assert (directory / "figures" / f"{name}.png").stat().st_size > 1000
    assert list((directory / "tensorboard").iterdir())
    chex.assert_trees_all_equal(last_state(directory, config), state)


def test_late_shaping_denoises_first_and_has_negatives_afterwards(tmp_path):
    """Up to its own phase, the run is bit for bit the one without negatives."""
    options = EVERY_STEP | {"train__num_steps": 4, "train__log_every": 4}
    train(tiny.get_config("on_trajectory", **options), tmp_path)
    rows = read_rows(tmp_path)
    assert [row["step"] for row in rows] == [2, 3, 4]  # a line where they begin, too
    assert ["margin" in row for row in rows] == [False, True, True]
    steps = {}
    for name in ("on_trajectory", "none"):
        experiment = build(tiny.get_config(name, **options))
        run = experiment.dispatch(with_negatives=False)
        steps[name] = run.lower(experiment.init_state()).as_text()
    assert steps["on_trajectory"] == steps["none"]


def test_three_steps_and_three_more_are_six_steps_bit_for_bit(finished, tmp_path):
    directory, config, state = finished
    # The cosine and the ramps know the length of the run: it is 6 in both, and the
    # first process is stopped as a signal would stop it.
    with pytest.raises(UserError, match="interrupted at step 3"):
        train(stop_at(3, config), tmp_path)
    assert int(last_state(tmp_path, config).step) == 3
    resumed = train(config, tmp_path)
    chex.assert_trees_all_equal(resumed, state)
    undisturbed, rows = read_rows(directory), read_rows(tmp_path)
    for row in (*undisturbed, *rows):
        row.pop("steps_per_second")
    assert rows == undisturbed


def stop_at(step: int, config):
    """Sends this process a SIGTERM when the run logs `step`."""
    original = Logs.write

    def write(self, metrics):
        original(self, metrics)
        if metrics["step"] == step:
            Logs.write = original
            os.kill(os.getpid(), signal.SIGTERM)

    Logs.write = write
    return config


def train_in_child(
    config_text: str, directory: str, cache_home: str, file_limit: int | None
):
    """Entry of a child process; exit code 3 for a UserError."""
    cli.enable_compilation_cache(cache_home)
    config = config_of(**json.loads(config_text))
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    try:
        train(config, Path(directory))
    except UserError:
        os._exit(3)


@pytest.fixture(scope="module")
def children():
    """Starts children from a server that has imported everything and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_runs"])

    def start(directory, file_limit=None, **overrides):
        cache_home = os.environ["XDG_CACHE_HOME"]
        arguments = json.dumps(overrides), str(directory), cache_home, file_limit
        child = context.Process(target=train_in_child, args=arguments)
        child.start()
        return child

    return start


def test_a_run_killed_ten_times_ends_like_the_undisturbed_one(children, tmp_path):
    """kill -9 at random moments, half of them while a checkpoint is being written."""
    length = {"num_steps": 30, "replay__capacity": 64}
    undisturbed = children(tmp_path / "undisturbed", **length)
    undisturbed.join()
    assert undisturbed.exitcode == 0
    chance, directory = random.Random(0), tmp_path / "killed"
    for _ in range(KILLS):
        child = children(directory, **length)
        before = progress(directory)
        while child.is_alive() and progress(directory) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        child.join()
    child = children(directory, **length)
    child.join()
    assert child.exitcode == 0
    config = config_of(**length)
    first, second = (
        last_state(tmp_path / n, config) for n in ("undisturbed", "killed")
    )
    assert int(first.step) == 30
    chex.assert_trees_all_equal(first, second)
    rows = [row["step"] for row in read_rows(directory)]
    assert rows == list(range(1, 31))


def progress(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def test_a_full_disk_keeps_the_last_good_checkpoint(children, tmp_path):
    wide = {"energy__channels": 64}  # parameters that the limit cannot hold
    config = config_of(3, **wide)
    first = children(tmp_path, num_steps=3, **wide)
    first.join()
    assert first.exitcode == 0
    good = last_state(tmp_path, config)
    second = children(tmp_path, file_limit=20_000, num_steps=6, **wide)
    second.join()
    assert second.exitcode == 3
    chex.assert_trees_all_equal(last_state(tmp_path, config), good)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(finished, tmp_path, capsys):
    config = config_of(6)
    train(config, tmp_path)
    damage(tmp_path / "checkpoints" / "6")
    assert int(last_state(tmp_path, config).step) == 3
    assert "checkpoint 6 cannot be read" in capsys.readouterr().out
    chex.assert_trees_all_equal(train(config, tmp_path), finished[2])
    for step in ("3", "6"):
        damage(tmp_path / "checkpoints" / step)
    with pytest.raises(UserError, match="damaged"):
        train(config, tmp_path)


def damage(checkpoint: Path) -> None:
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.name != "_CHECKPOINT_METADATA":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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
    knowing = {"train__lr_schedule": "cosine"}, {"train__denoise_share": 0.5}
    for i, fields in enumerate(knowing):
        workdir.claim(tmp_path / str(i), config_of(6, **fields))
        with pytest.raises(UserError, match=r"train\.num_steps is 6 there and 9 here"):
            workdir.claim(tmp_path / str(i), config_of(9, **fields))
    workdir.claim(tmp_path / "b", config_of(6))
    workdir.claim(tmp_path / "b", config_of(9))


def test_a_start_that_was_killed_at_once_can_be_started_again(tmp_path):
    (tmp_path / "config.json.tmp").write_text("{")
    workdir.claim(tmp_path, config_of(3))
    assert (tmp_path / "config.json").exists()


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not empty and holds no config\.json"):
        train(config_of(3), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    config = config_of(30, train__learning_rate=1e30, train__grad_clip=1e30)
    with pytest.raises(UserError, match=r"step \d+: norm/.* not finite; the last good"):
        train(config, tmp_path)
    state = last_state(tmp_path, config)
    assert state is None or np.all(np.isfinite(jax.tree.leaves(state.params)[0]))


def test_an_early_stop_after_evaluations_without_a_better_one(tmp_path):
    # A learning rate that changes no bit: no evaluation is better than the first.
    config = config_of(30, train__learning_rate=1e-30, train__patience=2)
    assert int(train(config, tmp_path).step) == 9


@pytest.mark.parametrize("batch_size", [1, 7, 16, 64])
def test_a_score_does_not_depend_on_the_evaluation_batch(finished, batch_size):
    directory, _, _ = finished
    model = trained.load(directory)
    expected = json.loads((directory / "result.json").read_text())["metrics"]
    evaluation = model.experiment.evaluation._replace(batch_size=batch_size)
    metrics = Scorer(model.experiment, evaluation).score(model.params, 16)
    for name, value in metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


def test_the_best_checkpoint_is_kept_and_can_be_asked_for(tmp_path):
    """Errors are planted: step 3 is the best, 6, 9, 12 are worse, 2 last are kept."""
    config = config_of(3)
    state = build(config).init_state()
    errors = {3: 0.1, 6: 0.3, 9: 0.2, 12: 0.4}
    for part in ((3, 6), (9, 12)):  # a resumed run remembers its best
        with (
            Logs(tmp_path, step=part[0] - 1, num_steps=12) as logs,
            Checkpoints(tmp_path) as checkpoints,
        ):
            for step in part:
                row = {"val/task_mse": errors[step]}
                logs.write({"step": step} | row)
                checkpoints.save(state._replace(step=np.int32(step)), row)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps == [3, 9, 12]
        like = abstract(state).ema_params
        assert checkpoints.restore_ema(like, "best")[0] == 3
        assert checkpoints.restore_ema(like, "last")[0] == 12


def test_a_metric_that_the_schema_does_not_name_is_an_error():
    check_names({"val/task_mse": 1.0, "filter/q50_level3": 2.0, "step": 3})
    with pytest.raises(KeyError, match="val/task_mae"):
        check_names({"val/task_mae": 1.0})
    assert all(unit is not None and meaning for unit, meaning in SCHEMA.values())


def test_each_of_several_seeds_takes_the_steps_that_it_takes_alone():
    """Nothing goes from one to the next in the dispatch that they share."""

    def after_a_dispatch(**fields):
        experiment = build(tiny.get_config("none", **fields))
        return experiment, experiment.dispatch()(experiment.init_state())[0]

    experiment, several = after_a_dispatch(train__num_seeds=3, seed=5)
    for index in range(3):
        _, alone = after_a_dispatch(seed=5 + index)
        of_seed = experiment.of_seed(several, index)
        assert of_seed.step == alone.step > 0
        chex.assert_trees_all_close(of_seed.params, alone.params, rtol=1e-3, atol=1e-5)


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
    second = jax.tree.map(lambda leaf: leaf[1], both.ema_params)
    chex.assert_trees_all_equal(model.params, second)
    with pytest.raises(UserError, match=r"--seed=7: .* has \(0, 1\)"):
        trained.load(tmp_path, seed=7)
