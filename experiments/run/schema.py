"""What a run may log: the house's own names, and those of its objectives and task."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from experiments.score import records

if TYPE_CHECKING:
    from experiments.build import Experiment

# name or pattern: (unit, meaning)
SCHEMA = {
    "step": ("steps", "finished train steps"),
    "steps_per_second": ("1/s", "since the last line, evaluation left out"),
    "train/loss": ("-", "what the optimizer lowers"),
    "norm/(param|grad|update)": ("-", "global norms"),
}
EXTREMES = ("min", "max")  # of the steps since the last line, beside their mean
_MUST_BE_FINITE = re.compile(r"train/loss|norm/.*")


class Schema(NamedTuple):
    """Every name that a run may log: {name or pattern: (unit, meaning)}.

    `columns` are those of the line on the screen, the last `num_figures` the task's.
    """

    entries: Mapping[str, tuple[str, str]]
    columns: tuple[str, ...]
    num_figures: int

    def fitting(self, width: int, width_of: Callable[[str], int]) -> list[str]:
        """The columns that a line has room for: those of objectives go, the last first.

        The loss and the task's figures are always there.
        """
        loss, *others = self.columns[: -self.num_figures]
        figures = self.columns[-self.num_figures :]
        while others and sum(map(width_of, (loss, *others, *figures))) > width:
            others.pop()
        return [loss, *others, *figures]

    def check(self, names: Iterable[str]) -> None:
        """Raises KeyError for names that nothing has declared."""
        known = "|".join(f"(?:{name})" for name in self.entries)
        pattern = re.compile(f"(?:{known})(?:/(?:{'|'.join(EXTREMES)}))?")
        unknown = [name for name in names if not pattern.fullmatch(name)]
        if unknown:
            raise KeyError(
                f"metrics {unknown} are neither in the schema of"
                " experiments/run/schema.py nor declared by an objective or the task"
            )


def schema_of(experiment: "Experiment") -> Schema:
    """The schema of a run; its columns are the loss, each objective's first three, and
    the primary metric of each split."""
    task, objectives = experiment.task, experiment.objectives.values()
    entries, columns = dict(SCHEMA), ["train/loss"]
    for objective in objectives:
        entries |= objective.metrics
        columns += [n for n in objective.metrics if re.fullmatch(r"[\w/]+", n)][:3]
    scored = records.schema(task)
    split, _, metric = task.primary.rpartition("/")
    figures = [f"{s}/{metric}" for s in task.splits] if split else [task.primary]
    columns = [*dict.fromkeys(name for name in columns if name not in figures)]
    return Schema(entries | scored, (*columns, *figures), len(figures))


def must_be_finite(name: str) -> bool:
    """Whether a run stops where the metric is NaN; infinite none may be.

    Others are NaN where there was nothing to measure, such as a level without rows.
    """
    return _MUST_BE_FINITE.fullmatch(name) is not None
