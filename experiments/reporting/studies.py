"""Sections made from the JSON of other commands: compute, judge and diagnose."""

import contextlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments import compute, diagnose, judge
from experiments.errors import UserError
from experiments.reporting.content import Chart, Grid, Section, Series, of_table
from experiments.reporting.runs import Definition, Run, apart, read_object
from experiments.score import statistics

KINDS = {"compute.json": "steps", "judge.json": "best"}  # what a split of each holds
TABLES = {"steps": compute.final_tables, "best": judge.final_tables}
NEEDED = operator.itemgetter("step", "metric")  # of each run
Studies = dict[str, dict[str, dict]]  # {kind: {run: what its command wrote}}


def sections(runs: Sequence[Run], given: Iterable[Path] = ()) -> list[Section]:
    """Error against inference compute, answers and energies, the diagnosis.

    Raises:
      UserError: a file that is given, or lies with a run, is none of these, or has
        another shape than its command writes.
    """
    found, strangers = _found(runs, given)
    paths = ",".join(str(run.path) for run in runs)
    work, judged = found["steps"], found["best"]
    blocks = [*strangers, *_stale(runs, work)]
    for metric, mark, same in _alike(runs, work):
        blocks += _compute(_joined(metric, mark), same)
        blocks += _grids(compute.final_tables(same), mark)
    blocks += _stale(runs, judged)
    for metric, mark, same in _alike(runs, judged):
        blocks += _work(_joined(metric, mark), same)
        blocks += _grids(judge.final_tables(same), mark)
    missing = [name for name, kind in KINDS.items() if not found[kind]]
    blocks += [
        f"`python -m experiments.{name.removesuffix('.json')} --runs={paths}` makes"
        f" more of this section; its .json is given with --studies, or lies in the"
        f" run's folder or beside it."
        for name in missing
    ]
    return [Section("Error against inference compute", blocks), _diagnosis(runs)]


def _found(runs: Sequence[Run], given: Iterable[Path]) -> tuple[Studies, list[str]]:
    """What lies there of the runs; a sentence for each other run of the same name."""
    by_name, strangers = {run.name: run for run in runs}, []
    paths = [run.path.resolve() for run in runs]
    folders = dict.fromkeys([*(path.parent for path in paths), *paths])
    beside = [folder / name for folder in folders for name in KINDS]
    found: Studies = {kind: {} for kind in KINDS.values()}
    for path in (*(path for path in beside if path.exists()), *given):
        study = read_object(path)
        with _whole(path):
            of_runs = study.get("runs")
            kind = _kind(of_runs)
            if kind is None:
                raise UserError(
                    f"{path}: is no study, must be the .json of experiments.compute or"
                    " experiments.judge"
                )
            TABLES[kind](of_runs)
            for of in of_runs.values():
                NEEDED(of)
        for name in filter(by_name.get, of_runs):
            of = of_runs[name] | {"scored": _scored(study, kind)}
            if by_name[name].has(of.get("config", {})):  # earlier versions wrote none
                found[kind][name] = of
            else:
                strangers.append(f"{path} tells of another run with the name {name}.")
    return found, strangers


def _scored(study: Mapping, kind: str) -> dict[str, Any]:
    """What must be the same of two files whose figures stand side by side.

    Of judge the answers to each x too, or the work that pays for them: then each run
    has as many as it can afford.
    """
    scored = {
        "rows": study.get("num_examples"),
        "checkpoint": study.get("checkpoint", "last"),  # compute reads no other
    }
    if kind == "best":
        by = "work" if study.get("work") else "restarts"
        scored[by] = study.get(by)
    return scored


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Names the file whose shape is another than the one that is read."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: is damaged, or of another version ({why})") from error


def _kind(of_runs: object) -> str | None:
    if not isinstance(of_runs, dict):
        return None
    splits = [s for of in of_runs.values() for s in of.get("splits", {}).values()]
    kinds = [kind for kind in KINDS.values() if all(kind in split for split in splits)]
    return kinds[0] if splits and kinds else None


def _stale(runs: Sequence[Run], found: Mapping[str, dict]) -> list[str]:
    """A sentence for each run that was trained on since."""
    return [
        f"Of {run.name} these are figures of step {found[run.name]['step']:,}, it is"
        f" now at {run.step:,}."
        for run in runs
        if run.name in found and found[run.name]["step"] != run.step
    ]


def _alike(
    runs: Sequence[Run], found: Mapping[str, dict]
) -> Iterable[tuple[str, str, dict[str, dict]]]:
    """(`metric, unit`, what tells it from others, its runs) of each definition."""
    metrics: dict[str, dict[Definition, list[Run]]] = {}
    for run in runs:
        if run.name in found:
            of = found[run.name]
            name = f"{next(iter(of['splits']))}/{of['metric']}"
            definition = run.definition(name, scored=of["scored"])
            metric = _joined(of["metric"], of.get("unit"))
            metrics.setdefault(metric, {}).setdefault(definition, []).append(run)
    for metric, definitions in metrics.items():
        marks = apart([*definitions.items()])
        for same, mark in zip(definitions.values(), marks, strict=True):
            yield metric, mark, {run.name: found[run.name] for run in same}


def _joined(*parts: str | None) -> str:
    return ", ".join(filter(None, parts))


def _grids(tables: Iterable[Table], mark: str) -> list[Grid]:
    return [of_table(t)._replace(title=_joined(t.title, mark)) for t in tables]


def _compute(title: str, same: Mapping[str, dict]) -> list[Chart]:
    """A chart a split and axis."""
    axes = {"steps": "descent steps a level", "restarts": "restarts R"}
    charts = []
    for split in dict.fromkeys(split for of in same.values() for split in of["splits"]):
        for kind, label in axes.items():
            series = [
                _series(name, of["splits"][split][kind], kind)
                for name, of in same.items()
                if split in of["splits"]
            ]
            charts.append(Chart(f"{split}/{title}", label, series, log_x=True))
    return charts


def _series(name: str, entries: list[dict], kind: str) -> Series:
    mean = [entry["value"]["mean"] for entry in entries]
    half = [entry["value"]["half"] for entry in entries]
    low, high = ([m + s * h for m, h in zip(mean, half, strict=True)] for s in (-1, 1))
    return Series(name, [entry[kind] for entry in entries], mean, low, high)


def _work(title: str, same: Mapping[str, dict]) -> list[Chart]:
    """The share right against the number of answers to choose from, by energy."""
    charts = []
    for split in dict.fromkeys(s for of in same.values() for s in of["splits"]):
        series = []
        for name, of in same.items():
            entries = [
                {"restarts": entry["restarts"], "value": _with_half(entry["first"])}
                for entry in of["splits"].get(split, {"best": []})["best"]
            ]
            series.append(_series(name, entries, "restarts"))
        text = f"{split}/{title}, share right of the answer of least energy"
        charts.append(Chart(text, "answers to choose from", series, log_x=True))
    return charts


def _with_half(value: Mapping) -> dict:
    """{mean, half}: 95 % over seeds (t), or over the rows of one."""
    nothing = float("nan")
    mean = nothing if value["mean"] is None else value["mean"]
    width = statistics.quantile(value["count"] if "each" in value else 1)
    return {"mean": mean, "half": width * (value["stderr"] or 0.0)}


def _diagnosis(runs: Sequence[Run]) -> Section:
    """The tables of diagnosis.json, and what makes those that are missing."""
    blocks: list = []
    for run in runs:
        path = run.path / "diagnosis.json"
        if not path.exists():
            continue
        found = read_object(path)
        with _whole(path):
            blocks += _stale([run], {run.name: found})
            blocks += _of_splits(run.name, found)
    missing = [run.path for run in runs if not (run.path / "diagnosis.json").exists()]
    if missing:
        command = f"`python -m experiments.diagnose --workdir={missing[0]}`"
        others = f", and so on for {len(missing) - 1} more" if len(missing) > 1 else ""
        blocks.append(f"{command} makes the diagnosis of a run{others}.")
    return Section("Diagnosis", blocks)


def _of_splits(run: str, found: Mapping) -> Iterator:
    """A summary and tables of each split."""
    sign = 1 if found["better"] == "low" else -1
    for name, split in found["splits"].items():
        title = f"{run}, {name}"
        yield diagnose.summary(f"{title}, {found['metric']}", split, sign)
        for table in diagnose.level_tables(title, split):
            yield of_table(table)._replace(is_folded=True)
