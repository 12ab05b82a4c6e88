"""Run directories as plain data: finished or not, of this version or an earlier one."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import UserError
from experiments.fields import flatten
from experiments.run.files import read_json
from experiments.run.logs import read_rows
from experiments.score import statistics
from experiments.score.records import read_result

SEEDS = ("seed", "train.num_seeds")  # runs that differ in these alone are one group
LAW = ("task", "data")  # groups of fields that say what a metric is measured on
LONGEST = 40  # characters that tell a definition from others
NONE = "none"  # of a field that a config does not have
Definition = tuple[tuple[str, Any], ...]


class Run(NamedTuple):
    """One run directory."""

    name: str
    path: Path
    values: dict[str, Any]  # every field of its config
    record: dict[str, Any]  # of config.json, beside the config
    result: dict[str, Any] | None  # None: not finished, or trained on since
    rows: list[dict[str, float]]

    @property
    def primary(self) -> str | None:
        return (self.result or self.record).get("primary")

    @property
    def metrics(self) -> dict[str, dict]:
        """{logged name: {better, unit, version}} of what can be scored."""
        if "metrics" in self.record:
            return self.record["metrics"]
        records = (self.result or {}).get("records", ())  # all that earlier ones have
        kept = ("better", "unit")
        return {
            "/".join(filter(None, (record["split"], record["metric"]))): {
                "version": record.get("version", 1),
                **{name: record[name] for name in kept},
            }
            for record in records
        }

    @property
    def step(self) -> int:
        last = self.rows[-1]["step"] if self.rows else 0
        return self.result["step"] if self.result else last

    @property
    def num_seeds(self) -> int:
        return self.values.get("train.num_seeds", 1)

    def has(self, config: Mapping[str, Any]) -> bool:
        """Whether {field: value} of another file are its own, where it has them."""
        own = self.values
        return all(_hashable(own.get(k, v)) == _hashable(v) for k, v in config.items())

    def definition(
        self,
        name: str,
        *,
        running: bool = False,
        scored: Mapping[str, Any] | None = None,
    ) -> Definition:
        """What must be the same where two figures of a name stand side by side.

        Args:
          name: logged.
          running: as it is scored during training, on fewer rows.
          scored: how another command did it: {rows, checkpoint, ..}.
        """
        found = dict(self.metrics.get(name, {}))
        if scored is not None:
            found |= scored
        elif found:
            is_final = self.result and not running
            found["rows"] = self.result.get("num_examples") if is_final else None
            field = "num_examples" if is_final else "num_examples_running"
            found["rows"] = found["rows"] or self.values.get(f"eval.{field}")
        read = LAW if name != "train/loss" else (*LAW, "objectives", "loss")
        found |= {k: v for k, v in self.values.items() if k.partition(".")[0] in read}
        return tuple((key, _hashable(found[key])) for key in sorted(found))


class Group(NamedTuple):
    """Runs of one config, but for their seeds."""

    name: str
    runs: list[Run]

    @property
    def primary(self) -> str | None:
        return self.runs[0].primary

    def seeds(self, name: str) -> dict[str, float]:
        """{seed: final figure} of its finished runs."""
        return {
            seed: scores[name]
            for run in self.runs
            for seed, scores in (run.result or {}).get("seeds", {}).items()
            if name in scores
        }

    def figure(self, name: str) -> tuple[float, float | None, float | None] | None:
        """(mean, low, high): 95 % over seeds, of one seed over rows; None: it has none.

        Of runs that are not finished, the mean of what they last logged.
        """
        values = [*self.seeds(name).values()]
        if len(values) > 1:
            mean, half = statistics.interval(values)
            return mean, mean - half, mean + half
        rows = [row for run in self.runs for row in run.rows if name in row][-1:]
        scores = [run.result["metrics"] for run in self.runs if run.result] or rows
        if not scores or name not in scores[0]:
            return None
        mean, error = scores[0][name], scores[0].get(f"{name}/stderr")
        if error is None:
            return mean, None, None
        half = error * statistics.quantile(self.runs[0].num_seeds)
        return mean, mean - half, mean + half


def read(path: Path) -> Run:
    """Reads a run directory.

    Raises:
      UserError: it is none, or a file in it is damaged.
    """
    if not (path / "config.json").exists():
        raise UserError(f"{path}: is not a run directory, it has no config.json")
    record = read_object(path / "config.json")
    result, rows = read_result(path), read_rows(path)
    if result and rows and result["step"] < rows[-1]["step"]:
        result = None  # of before it was trained on
    try:
        values = flatten(record.pop("config"))
    except (KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path / 'config.json'}: holds no config") from error
    return Run(path.resolve().name, path, values, record, result, rows)


def read_object(path: Path) -> dict:
    """An object of a JSON file.

    Raises:
      UserError: it cannot be read, or is none.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no object but {str(content)[:20]}")
    return content


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs of one config and the same metrics, but for their seeds, together.

    A run that is not finished stands alone: its figures are of another kind.

    Raises:
      UserError: two runs of a group hold the same seed.
    """
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        config = {k: v for k, v in run.values.items() if k not in SEEDS}
        scored = run.metrics, (run.result or {}).get("num_examples")
        key = json.dumps([config, *scored], sort_keys=True, default=str)
        groups.setdefault(key if run.result else run.name, []).append(run)
    found, names = [], {run.name for run in runs}
    for of_config in groups.values():
        seen: dict[str, str] = {}
        for run in of_config:
            for seed in (run.result or {}).get("seeds", ()):
                if seed in seen:
                    raise UserError(
                        f"--runs: {seen[seed]} and {run.name} are of one config and"
                        f" both hold seed {seed}: name one of them"
                    )
                seen[seed] = run.name
        found.append(Group(_name_of(of_config, names), of_config))
        names.add(found[-1].name)
    return found


def _name_of(runs: list[Run], taken: set[str]) -> str:
    """Of one run its name, of several what they have in common, if it is not taken."""
    name = runs[0].name
    short = re.sub(r"-seed\d+$", "", name)
    free = [other for other in (short, f"{short}-seeds") if other not in taken]
    return free[0] if len(runs) > 1 and free else name


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """{field: its value in each group, None where it has none} of all that differ."""
    configs = [group.runs[0].values for group in groups]
    names = dict.fromkeys(name for config in configs for name in config)
    columns = {name: [config.get(name) for config in configs] for name in names}
    return {
        name: values
        for name, values in columns.items()
        if name not in SEEDS and len({_hashable(value) for value in values}) > 1
    }


def alike(
    groups: Sequence[Group], name: str, *, running: bool = False
) -> list[tuple[dict[str, Any], str, list[Group]]]:
    """(a definition of a figure, what tells it from others, its groups) of each."""
    found: dict[Definition, list[Group]] = {}
    for group in groups:
        run = group.runs[0]
        if running:
            is_there = any(name in row for r in group.runs for row in r.rows)
        else:
            is_there = name in run.metrics and group.figure(name) is not None
        if is_there:
            definition = run.definition(name, running=running)
            found.setdefault(definition, []).append(group)
    items = [*found.items()]
    marks = apart(items)
    return [
        (dict(of), mark, same) for (of, same), mark in zip(items, marks, strict=True)
    ]


def apart(found: Sequence[tuple[Definition, list[Group] | list[Run]]]) -> list[str]:
    """What tells each of several definitions from the others, `` of one.

    `key=value, ..`, or whose it is where that would be long.
    """
    maps = [dict(definition) for definition, _ in found]
    keys = sorted({key for one in maps for key in one})
    keys = [key for key in keys if len({one.get(key, NONE) for one in maps}) > 1]
    told = [", ".join(f"{k}={one.get(k, NONE)}" for k in keys) for one in maps]
    if max(map(len, told), default=0) <= LONGEST:
        return told
    return [f"as in {same[0].name}" for _, same in found]


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    return value
