"""Checkpoints of a run: the last two and the best, whole or not at all (orbax)."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from experiments.errors import UserError
from experiments.logs import read_rows
from ired_jax.training import TrainState

BEST_METRIC = "val/task_mse"  # lower is better
ITEMS = ("params", "ema", "opt", "replay", "aux")
logging.getLogger("absl").setLevel(logging.ERROR)  # orbax narrates each save there


class _LatestAndBest(policies.PreservationPolicy):
    """Keeps the last two checkpoints and the one with the lowest error.

    The errors come from metrics.jsonl: metrics that orbax keeps itself are read when it
    opens a directory, and one damaged file would then hide every checkpoint.
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
    last checkpoint.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False):
        self._directory = Path(workdir).resolve() / "checkpoints"
        if read_only and not self._directory.is_dir():
            raise UserError(f"{workdir}: holds no checkpoints")
        self._errors = {
            row["step"]: row[BEST_METRIC]
            for row in read_rows(workdir)
            if np.isfinite(row.get(BEST_METRIC, np.nan))
        }
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LatestAndBest(self._errors),
            read_only=read_only,
            create=not read_only,
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

        Raises:
          UserError: it could not be written (a full disk); earlier ones stay.
        """
        step = int(np.max(state.step))  # the same for all seeds
        if step in self._manager.all_steps():
            return
        items = {
            name: ocp.args.StandardSave(tree)
            for name, tree in split(state).items()
            if tree is not None
        }
        if metrics is not None:
            self._errors[step] = metrics[BEST_METRIC]
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
          like: a state of the right structure, shapes and dtypes (or its eval_shape).
        """
        trees = {name: tree for name, tree in split(like).items() if tree is not None}
        args = {name: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
        for step in reversed(self.steps):
            restored = self._try(step, args)
            if restored is not None:
                self._drop_after(step)
                return join(restored)
        if self.steps:
            raise UserError(f"{self._directory}: every checkpoint is damaged")
        return None

    def restore_ema(self, like: Any, which: str) -> tuple[int, Any]:
        """(step, EMA parameters) of the `last` or the `best` checkpoint.

        A damaged one is named and passed over for the next by age or by merit.

        Raises:
          UserError: there is no whole checkpoint.
        """
        steps = list(reversed(self.steps))
        if which == "best":
            steps.sort(key=lambda step: self._errors.get(step, np.inf))
        for step in steps:
            restored = self._try(step, {"ema": ocp.args.StandardRestore(like)})
            if restored is not None:
                return step, restored["ema"]
        raise UserError(f"{self._directory}: holds no whole checkpoint")

    def _try(self, step: int, args: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(**args)))
        except Exception as error:  # orbax, tensorstore and json raise many kinds
            line = str(error).strip().splitlines()[0][:100]
            print(f"checkpoint {step} cannot be read ({line}): trying an earlier one")
            return None

    def _drop_after(self, step: int) -> None:
        """Deletes damaged later checkpoints: orbax saves no step below the latest."""
        for later in [s for s in self.steps if s > step]:
            self._manager.delete(later)

    def _save_error(self, step: int | str, error: Exception) -> UserError:
        line = str(error).strip().splitlines()[0][:200]
        return UserError(
            f"checkpoint {step} could not be written to {self._directory} ({line});"
            f" whole checkpoints: {self.steps[:-1] or 'none'}"
        )


def split(state: TrainState) -> dict[str, Any]:
    """The state as separate items, so that evaluation reads parameters only."""
    aux = {"step": state.step, "key": state.key}
    if state.thresholds is not None:
        aux["thresholds"] = state.thresholds
    return {
        "params": state.params,
        "ema": state.ema_params,
        "opt": state.opt_state,
        "replay": state.replay,
        "aux": aux,
    }


def join(items: dict[str, Any]) -> TrainState:
    """The inverse of `split`."""
    aux = items["aux"]
    return TrainState(
        step=aux["step"],
        key=aux["key"],
        params=items["params"],
        ema_params=items["ema"],
        opt_state=items["opt"],
        replay=items.get("replay"),
        thresholds=aux.get("thresholds"),
    )


def abstract(state: TrainState) -> TrainState:
    """Shapes, dtypes and placement of a state, without its memory."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
