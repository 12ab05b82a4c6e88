"""Checkpoints: the whole state comes back, and the best is kept by the task."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from experiments.errors import UserError
from experiments.run.checkpoint import Checkpoints
from experiments.run.logs import read_rows
from experiments.score import records
from ired_jax.objectives.base import Parameters
from ired_jax.tasks.base import Evaluator
from ired_jax.tasks.inverse import make_inverse
from ired_jax.training import TrainState
from tests.mutants import Mutant, one

TASK = make_inverse(n=2)
LOW = TASK.primary
HIGH = TASK._replace(
    primary="coverage", evaluators={"coverage": Evaluator(lambda *_: 0.0, "high", "-")}
)


class Ring(NamedTuple):
    rows: jax.Array
    size: jax.Array


# What objectives keep: much, nothing at all, and trees in which only some parts are.
MEMORIES = {
    "rings": {
        "denoising": (),
        "contrast": {
            "replay": Ring(jnp.arange(6.0).reshape(2, 3), jnp.int32([2, 0])),
            "thresholds": None,
            "none yet": jnp.zeros((0, 3)),
            "is full": jnp.array([True, False]),
        },
    },
    "nothing": {"denoising": ()},
    "no objective": {},
    "no elements": {"contrast": {"rows": jnp.zeros((4, 0), jnp.int32)}},
}


def state_at(step: int, memory="rings", scale: float = 1.0) -> TrainState:
    """No two parts of it hold the same numbers."""
    w = {"w": scale * jnp.arange(4.0), "b": jnp.bfloat16(scale)}
    own = {"denoising": (), "contrast": {"log_z": jnp.float32(scale / 3)}}
    params = Parameters(w, own if memory == "rings" else {"denoising": ()})
    return TrainState(
        step=jnp.int32(step),
        key=jax.random.key(step),
        params=params,
        ema_params=jax.tree.map(lambda leaf: leaf + leaf / 7, params),
        opt_state=optax.adam(optax.constant_schedule(0.1)).init(params),
        memory=MEMORIES[memory],
    )


def save(directory: Path, *states: TrainState, task=TASK, figures=()) -> None:
    figures = figures or [None] * len(states)
    with Checkpoints(directory, task) as checkpoints:
        for state, figure in zip(states, figures, strict=True):
            row = None if figure is None else {task.primary: figure}
            checkpoints.save(state, row)


def abstract(state: TrainState) -> TrainState:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def restore(directory: Path, like: TrainState):
    with Checkpoints(directory, TASK, read_only=True) as checkpoints:
        return checkpoints.restore(abstract(like))


def restore_ema(directory: Path, which: str, task=TASK):
    like = abstract(state_at(0)).ema_params.energy
    with Checkpoints(directory, task, read_only=True) as checkpoints:
        return checkpoints.restore_ema(like, which)


def write_rows(directory: Path, name: str, figures: dict[int, float]) -> None:
    lines = [json.dumps({"step": step, name: v}) + "\n" for step, v in figures.items()]
    (directory / "metrics.jsonl").write_text("".join(lines))


def damage(checkpoint: Path) -> None:
    for path in checkpoint.rglob("*"):
        if path.is_file() and path.name != "_CHECKPOINT_METADATA":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_state_comes_back_whole_whatever_its_objectives_keep(memory, tmp_path):
    state = state_at(3, memory)
    save(tmp_path, state)
    restored = restore(tmp_path, state_at(0, memory, scale=0.0))
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    chex.assert_trees_all_equal(restored, state)


def test_the_states_of_several_seeds_come_back(tmp_path):
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), state_at(3), state_at(3))
    save(tmp_path, state)
    chex.assert_trees_all_equal(restore(tmp_path, state), state)


def test_evaluation_needs_the_averaged_parameters_of_the_energy_alone(tmp_path):
    state = state_at(3)
    save(tmp_path, state)
    for item in ("params", "own", "ema_own", "opt", "memory", "aux"):
        shutil.rmtree(tmp_path / "checkpoints" / "3" / item)
    step, params = restore_ema(tmp_path, "last")
    assert step == 3
    chex.assert_trees_all_equal(params, state.ema_params.energy)


@pytest.mark.parametrize(
    "task, figures, best",
    [
        (TASK, {3: 0.1, 6: 0.3, 9: 0.2, 12: 0.4}, 3),
        (HIGH, {3: 0.4, 6: 0.2, 9: 0.3, 12: 0.1}, 3),
        (TASK, {3: np.nan, 6: 0.1, 9: 0.3, 12: 0.4}, 6),
        (HIGH, {3: 0.5, 6: 1.0, 9: 1.0, 12: 1.0}, 6),
    ],
    ids=[
        *("low is better", "high is better", "not a number is never best"),
        "of equals the first",
    ],
)
def test_the_best_checkpoint_and_the_last_two_are_kept(task, figures, best, tmp_path):
    """The second process did not see the best."""
    for steps in ((3, 6), (9, 12)):
        states = [state_at(step) for step in steps]
        save(tmp_path, *states, task=task, figures=[figures[step] for step in steps])
        seen = {step: value for step, value in figures.items() if step <= steps[-1]}
        write_rows(tmp_path, task.primary, seen)
    with Checkpoints(tmp_path, task, read_only=True) as checkpoints:
        assert checkpoints.steps == [best, 9, 12]
    assert restore_ema(tmp_path, "best", task)[0] == best
    assert records.best_row(task, read_rows(tmp_path))["step"] == best
    assert restore_ema(tmp_path, "last", task)[0] == 12


def test_a_damaged_best_gives_way_to_the_next_best(tmp_path, capsys):
    figures = {3: 0.1, 6: 0.2, 9: 0.3}
    save(tmp_path, *map(state_at, figures), figures=[*figures.values()])
    write_rows(tmp_path, LOW, figures)
    damage(tmp_path / "checkpoints" / "3")
    assert restore_ema(tmp_path, "best")[0] == 6
    assert "checkpoint 3 cannot be read" in capsys.readouterr().out


def test_an_error_without_words_is_a_damaged_checkpoint_too(
    tmp_path, monkeypatch, capsys
):
    save(tmp_path, state_at(3))

    def fail(*_, **__):
        raise EOFError

    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        restore(tmp_path, state_at(0))
    assert "checkpoint 3 cannot be read (EOFError)" in capsys.readouterr().out


def test_steps_after_a_damaged_checkpoint_can_be_saved_again(tmp_path):
    save(tmp_path, state_at(3), state_at(6))
    damage(tmp_path / "checkpoints" / "6")
    with Checkpoints(tmp_path, TASK) as checkpoints:
        assert checkpoints.restore(abstract(state_at(0))).step == 3
        checkpoints.save(state_at(5), None)
    assert restore(tmp_path, state_at(0)).step == 5
    for step in (3, 5):
        damage(tmp_path / "checkpoints" / str(step))
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        restore(tmp_path, state_at(0))


def test_a_save_that_would_write_nothing_is_an_error(tmp_path):
    """orbax returns False for a step below the latest; one that is there is left."""
    save(tmp_path, state_at(6))
    save(tmp_path, state_at(6, scale=2.0))
    saved = restore(tmp_path, state_at(0))
    chex.assert_trees_all_equal(saved, state_at(6))
    with pytest.raises(UserError, match="checkpoint 4: orbax refused"):
        save(tmp_path, state_at(4))


def test_no_checkpoint_is_none_for_a_run_and_an_error_for_its_reader(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoints"):
        restore_ema(tmp_path, "last")
    with Checkpoints(tmp_path, TASK) as checkpoints:
        assert checkpoints.restore(abstract(state_at(0))) is None
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        restore_ema(tmp_path, "last")


CHECKPOINT = "experiments.run.checkpoint"
LOWEST = {"task": TASK, "figures": {3: 0.1, 6: 0.3, 9: 0.2, 12: 0.4}, "best": 3}
HIGHEST = {"task": HIGH, "figures": {3: 0.4, 6: 0.2, 9: 0.3, 12: 0.1}, "best": 3}
MUTANTS = [
    Mutant(
        "checkpoint",
        "an error without words is one of our own",
        CHECKPOINT,
        one(
            "next(iter(str(error).strip().splitlines()), type(error).__name__)",
            "str(error).strip().splitlines()[0]",
        ),
        test_an_error_without_words_is_a_damaged_checkpoint_too,
        error=IndexError,
    ),
    Mutant(
        "checkpoint",
        "raw parameters saved as the average",
        CHECKPOINT,
        one('"ema": state.ema_params.energy', '"ema": state.params.energy'),
        test_a_state_comes_back_whole_whatever_its_objectives_keep,
        {"memory": "rings"},
    ),
    Mutant(
        "checkpoint",
        "the memory of objectives begins again",
        CHECKPOINT,
        one('memory=trees["memory"]', "memory=like.memory"),
        test_a_state_comes_back_whole_whatever_its_objectives_keep,
        {"memory": "rings"},
    ),
    Mutant(
        "checkpoint",
        "arrays without elements handed to orbax",
        CHECKPOINT,
        one("in _leaves(tree) if leaf.size}", "in _leaves(tree)}"),
        test_a_state_comes_back_whole_whatever_its_objectives_keep,
        {"memory": "no elements"},
        error=UserError,
    ),
    Mutant(
        "checkpoint",
        "the lowest is the best, whatever the figure",
        CHECKPOINT,
        one('1 if better == "low" else -1', "1"),
        test_the_best_checkpoint_and_the_last_two_are_kept,
        HIGHEST,
    ),
    Mutant(
        "checkpoint",
        "the last two only",
        CHECKPOINT,
        one("keep |= {min(scored, key=self._errors.get)} if scored else set()", "pass"),
        test_the_best_checkpoint_and_the_last_two_are_kept,
        LOWEST,
    ),
    Mutant(
        "checkpoint",
        "a resumed run forgets its best",
        CHECKPOINT,
        one('self._remember(row["step"], row)', "pass"),
        test_the_best_checkpoint_and_the_last_two_are_kept,
        LOWEST,
    ),
    Mutant(
        "checkpoint",
        "what is not a number may be the best",
        CHECKPOINT,
        one("if np.isfinite(value):", "if True:"),
        test_the_best_checkpoint_and_the_last_two_are_kept,
        {"task": TASK, "figures": {3: np.nan, 6: 0.1, 9: 0.3, 12: 0.4}, "best": 6},
    ),
    Mutant(
        "checkpoint",
        "the last of equals is read as the best",
        CHECKPOINT,
        one(
            "step for step in self.steps if step in",
            "step for step in steps if step in",
        ),
        test_the_best_checkpoint_and_the_last_two_are_kept,
        {"task": HIGH, "figures": {3: 0.5, 6: 1.0, 9: 1.0, 12: 1.0}, "best": 6},
    ),
    Mutant(
        "checkpoint",
        "a refusal by orbax taken for a save",
        CHECKPOINT,
        one("if not saved:", "if False:"),
        test_a_save_that_would_write_nothing_is_an_error,
    ),
    Mutant(
        "checkpoint",
        "damaged later checkpoints stay",
        CHECKPOINT,
        one("self._drop_after(step)", "pass"),
        test_steps_after_a_damaged_checkpoint_can_be_saved_again,
        error=UserError,
    ),
    Mutant(
        "checkpoint",
        "evaluation reads the whole state",
        CHECKPOINT,
        one(
            'self._try(step, {"ema": item})',
            "self._try(step, dict.fromkeys(ITEMS, item))",
        ),
        test_evaluation_needs_the_averaged_parameters_of_the_energy_alone,
        error=UserError,
    ),
]
