"""Checkpoints of a run: the last two and the best, whole or not at all (orbax)."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from experiments.errors import UserError
from experiments.run.logs import read_rows
from experiments.score import records
from ired_jax.objectives.base import Parameters
from ired_jax.tasks.base import Task
from ired_jax.training import TrainState
from ired_jax.types import Params, Tree

ITEMS = ("params", "own", "ema", "ema_own", "opt", "memory", "aux")
# orbax measures the time of a save by the wall clock, which may jump by years.
NEVER = 4 * 10**9  # seconds
Item = dict[str, Any]  # the leaves of a tree by their path, empty ones left out
logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates each save there


class _LatestAndBest(policies.PreservationPolicy):
    """Keeps the last two checkpoints and the best one.

    Its `errors`, lower is better, come from metrics.jsonl: metrics that orbax keeps
    itself are read when it opens a directory, and one damaged file would then hide
    every checkpoint.
    """

    def __init__(self, errors: dict[int, float]):
        self._errors = errors

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        keep = set(sorted(steps)[-2:])
        scored = [step for step in steps if step in self._errors]
        keep |= {min(scored, key=self._errors.get)} if scored else set()
        return [step in keep for step in steps]


class Checkpoints:
    """The checkpoints of one run directory; use it in a `with` statement.

    Leaving it waits for the save under way: a process that ends without it loses its
    last checkpoint. Which one is the best, is said by the primary metric of the task.
    """

    def __init__(self, workdir: Path, task: Task, *, read_only: bool = False):
        self._directory = Path(workdir).resolve() / "checkpoints"
        if read_only and not self._directory.is_dir():
            raise UserError(f"{workdir}: holds no checkpoints")
        better, _ = records.kinds(task)[task.primary]
        self._primary, self._sign = task.primary, 1 if better == "low" else -1
        self._errors: dict[int, float] = {}
        for row in read_rows(workdir):
            self._remember(row["step"], row)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(self._errors),
            read_only=read_only,
            create=not read_only,
            async_options=ocp.AsyncOptions(timeout_secs=NEVER),
        )
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=ITEMS
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Saves the whole state in the background, unless its step is saved already.

        Args:
          state: at its step.
          metrics: with the primary one, where the state was evaluated.

        Raises:
          UserError: it could not be written (a full disk); earlier ones stay.
        """
        step = int(np.max(state.step))  # the same for all seeds
        if step in self._manager.all_steps():
            return
        items = {name: ocp.args.StandardSave(i) for name, i in split(state).items()}
        self._remember(step, metrics or {})
        try:
            saved = self._manager.save(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError) as error:
            raise self._save_error(step, error) from error
        if not saved:
            raise UserError(f"checkpoint {step}: orbax refused to save it")

    def wait(self) -> None:
        """Waits until the save under way is on disk.

        Raises:
          UserError: it could not be written; earlier ones stay.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError) as error:
            raise self._save_error("under way", error) from error

    def restore(self, like: TrainState) -> TrainState | None:
        """The last whole state, or None; damaged ones are named and passed over.

        Args:
          like: a state of the right structure, shapes and dtypes, or an abstract one.
        """
        args = {n: ocp.args.StandardRestore(item) for n, item in split(like).items()}
        for step in reversed(self.steps):
            restored = self._try(step, args)
            if restored is not None:
                self._drop_after(step)
                return join(restored, like)
        if self.steps:
            raise UserError(f"{self._directory}: every checkpoint is damaged")
        return None

    def restore_ema(self, like: Params, which: str) -> tuple[int, Params]:
        """(step, EMA parameters of the energy) of the `last` or the `best` checkpoint.

        Nothing else is read. A damaged one is named and passed over for the next by age
        or by merit.

        Raises:
          UserError: there is no whole checkpoint.
        """
        steps = list(reversed(self.steps))
        if which == "best":
            # Of equals the first, as in `records.best_row`: the sort is stable.
            scored = [step for step in self.steps if step in self._errors]
            scored.sort(key=self._errors.get)
            steps = scored + [step for step in steps if step not in scored]
        for step in steps:
            item = ocp.args.StandardRestore(_flatten(like))
            restored = self._try(step, {"ema": item})
            if restored is not None:
                return step, _unflatten(restored["ema"], like)
        raise UserError(f"{self._directory}: holds no whole checkpoint")

    def _remember(self, step: int, row: dict[str, float]) -> None:
        value = row.get(self._primary, np.nan)
        if np.isfinite(value):
            self._errors[step] = self._sign * value

    def _try(self, step: int, args: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(**args)))
        except Exception as error:  # orbax, tensorstore and json raise many kinds
            line = _line(error)[:100]
            print(f"checkpoint {step} cannot be read ({line}): trying an earlier one")
            return None

    def _drop_after(self, step: int) -> None:
        """Deletes damaged later checkpoints: orbax saves no step below the latest."""
        for later in [s for s in self.steps if s > step]:
            self._manager.delete(later)

    def _save_error(self, step: int | str, error: Exception) -> UserError:
        line = _line(error)[:200]
        return UserError(
            f"checkpoint {step} could not be written to {self._directory} ({line});"
            f" whole checkpoints: {self.steps[:-1] or 'none'}"
        )


def split(state: TrainState) -> dict[str, Item]:
    """The state as separate items, so that evaluation reads parameters only."""
    items = {name: _flatten(tree) for name, tree in _trees(state).items()}
    return {name: item for name, item in items.items() if item}  # orbax takes no empty


def join(items: dict[str, Item], like: TrainState) -> TrainState:
    """The inverse of `split`; `like` has the structure of the state."""
    trees = _trees(like)
    trees = {name: _unflatten(items.get(name, {}), t) for name, t in trees.items()}
    return TrainState(
        step=trees["aux"]["step"],
        key=trees["aux"]["key"],
        params=Parameters(trees["params"], trees["own"]),
        ema_params=Parameters(trees["ema"], trees["ema_own"]),
        opt_state=trees["opt"],
        memory=trees["memory"],
    )


def _trees(state: TrainState) -> dict[str, Tree]:
    return {
        "params": state.params.energy,
        "own": state.params.own,
        "ema": state.ema_params.energy,
        "ema_own": state.ema_params.own,
        "opt": state.opt_state,
        "memory": state.memory,
        "aux": {"step": state.step, "key": state.key},
    }


def _flatten(tree: Tree) -> Item:
    """The leaves that have elements, by their path: orbax refuses those without."""
    return {path: leaf for path, leaf in _leaves(tree) if leaf.size}


def _unflatten(item: Item, like: Tree) -> Tree:
    leaves = [
        item[path] if leaf.size else jnp.zeros(leaf.shape, leaf.dtype)
        for path, leaf in _leaves(like)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _line(error: Exception) -> str:
    """What an error says first, or its name where it has no words."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _leaves(tree: Tree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
