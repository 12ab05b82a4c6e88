"""What the page says, as plain data: texts, grids and charts, in sections."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from experiments import fields
from experiments.build import make_experiment
from experiments.configuration import show
from experiments.errors import UserError
from experiments.figures import CURVES
from experiments.reporting import runs as reading
from experiments.reporting.runs import Group, Run
from experiments.run.meter import duration, seconds_of
from experiments.run.schema import EXTREMES
from experiments.score import statistics
from experiments.score.tables import with_bounds

MANY = 10  # seeds from which on the interquartile mean is told
NOTHING = "-"


class Grid(NamedTuple):
    """A table: each row has a cell for every column."""

    title: str
    columns: list[str]  # the first heads the labels
    rows: list[list[str]]
    is_folded: bool = False  # behind its title, until asked for


class Series(NamedTuple):
    """A curve of one group, and its band: as long, NaN where there is none."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


class Chart(NamedTuple):
    title: str
    x: str
    series: list[Series]
    log_x: bool = False


class Section(NamedTuple):
    title: str
    blocks: list[str | Grid | Chart]


class Page(NamedTuple):
    title: str
    names: list[str]  # of the groups: the n-th has the n-th colour everywhere
    sections: list[Section]
    places: dict[str, int]  # {group or one of its runs: n}
    again: float | None = None  # seconds until the page is to be read again


def page(runs: Sequence[Run], studies: Sequence[Section] = ()) -> Page:
    """All sections. `studies`: those of other commands, after the curves."""
    groups = reading.grouped(runs)
    names = [group.name for group in groups]
    of_runs = {r.name: n for n, group in enumerate(groups) for r in group.runs}
    sections = [
        configs(groups), final(groups), curves(groups), *studies, resources(groups)
    ]  # fmt: skip
    title = ", ".join(names) if len(names) < 4 else f"{len(names)} configs"
    places = of_runs | {name: n for n, name in enumerate(names)}
    return Page(title, names, sections, places)


def configs(groups: Sequence[Group]) -> Section:
    """What differs between the configs; of one, what differs from the defaults."""
    title, heads = "What differs", ["field", *(group.name for group in groups)]
    partly: dict[str, list] = {}
    if len(groups) > 1:
        everything = reading.differences(groups)
        partly = {k: values for k, values in everything.items() if None in values}
        found = {k: values for k, values in everything.items() if k not in partly}
        text = "All other fields are the same, but for seeds."
    else:
        values, title = groups[0].runs[0].values, "What differs from the defaults"
        try:
            text = "Beside this, all fields have their defaults."
            changed = fields.differing(make_experiment, values)
        except UserError:
            text, changed = "Every field: they are not those of this version.", values
        found = {name: [value] for name, value in changed.items()}
    rows, more = (
        [[name, *map(_shown, values)] for name, values in fields_.items()]
        for fields_ in (found, partly)
    )
    folded = Grid("Fields of parts that not all of them chose", heads, more, True)
    first = Grid("", heads, rows) if rows else "No field that all of them have."
    return Section(title, [first, *[folded] * bool(more), text])


def final(groups: Sequence[Group]) -> Section:
    """The primary metrics, each definition in a table of its own; then all figures."""
    unfinished = [run for group in groups for run in group.runs if not run.result]
    blocks: list = [_state(run) for run in unfinished]
    for name in dict.fromkeys(group.primary for group in groups if group.primary):
        found = reading.alike(groups, name)
        if len(found) > 1:
            blocks.append(
                f"{name} is not defined alike in all runs; figures of different"
                " definitions are not compared, each has a table of its own."
            )
        for definition, mark, same in found:
            blocks += _primary(name, definition, same, mark)
    everything = _all_figures(groups)
    return Section("Figures", [*blocks, *everything] or ["None yet."])


def _state(run: Run) -> str:
    """Of a run that is not finished, and how long it takes yet."""
    num_steps = run.values.get("train.num_steps", 0)
    text = f"{run.name} is not finished: step {run.step:,} of {num_steps:,}"
    if run.rows and run.rows[-1].get("steps_per_second"):
        left = (num_steps - run.step) / run.rows[-1]["steps_per_second"]
        text += f", {duration(max(left, 0))} left, evaluations aside"
    return f"{text}. Its figures are those of its last evaluation."


def _primary(name: str, definition: dict, groups: Sequence[Group], mark: str) -> list:
    """A table of mean, interval, and each group beside the first; what it means."""
    better = f"{definition['better']} is better"
    title = ", ".join(filter(None, (name, definition["unit"], better, mark)))
    seeds = [group.seeds(name) for group in groups]
    heads = ["config", "seeds", "mean [95 %]"]
    rows = [
        [group.name, str(len(of) or group.runs[0].num_seeds), _cell(group.figure(name))]
        for group, of in zip(groups, seeds, strict=True)
    ]
    text = ["Intervals: over seeds (t), of one seed over the rows it was scored on."]
    if any(len(of) >= MANY for of in seeds):
        heads.append("interquartile mean [95 %]")
        for row, of in zip(rows, seeds, strict=True):
            middle = of and len(of) >= MANY and statistics.interquartile([*of.values()])
            row.append(with_bounds(*middle) if middle else NOTHING)
        text.append(
            f"The interquartile mean, from {MANY} seeds on, is that of the middle half"
            " of them, with the interval of a bootstrap (arXiv 2108.13264)."
        )
    is_ratio = all(value > 0 for of in seeds for value in of.values())
    tests = [statistics.paired(of, seeds[0], is_ratio=is_ratio) for of in seeds[1:]]
    if any(tests):
        kind = "ratio" if is_ratio else "difference"
        heads += [f"{kind} to the first [95 %]", "p", "p corrected"]
        corrected = iter(statistics.holm([test.p for test in tests if test]))
        for row, test in zip(rows, [None, *tests], strict=True):
            row += (
                [with_bounds(*test[:3]), f"{test.p:.2g}", f"{next(corrected):.2g}"]
                if test else [NOTHING] * 3
            )  # fmt: skip
        text.append(
            f"The {kind} to {groups[0].name} is that of a paired t-test over shared"
            f" seeds{', on logarithms' * is_ratio}; p corrected for the number of"
            f" comparisons here, {sum(map(bool, tests))} (Holm)."
        )
    return [Grid(title, heads, rows), " ".join(text)]


def _all_figures(groups: Sequence[Group]) -> list[Grid]:
    """A column a metric and definition."""
    names = dict.fromkeys(name for g in groups for name in g.runs[0].metrics)
    columns: dict[str, list[str]] = {}
    for name in names:
        for kind, mark, same in reading.alike(groups, name):
            head = ", ".join(filter(None, (name, kind["unit"], kind["better"], mark)))
            columns[head] = [
                _cell(group.figure(name)) if group in same else NOTHING
                for group in groups
            ]
    rows = [
        [group.name, *(cells[index] for cells in columns.values())]
        for index, group in enumerate(groups)
    ]
    return [Grid("All figures", ["config", *columns], rows)] if columns else []


def curves(groups: Sequence[Group]) -> Section:
    """A chart a metric and definition, the primary ones first."""
    logged = dict.fromkeys(
        key for g in groups for run in g.runs for row in run.rows for key in row
    )
    scored = [name for g in groups for run in g.runs for name in run.metrics]
    names = [group.primary for group in groups] + scored
    names += ["train/loss", *(name for _, panel in CURVES for name in panel)]
    charts = []
    for name in dict.fromkeys(name for name in names if name in logged):
        for kind, mark, same in reading.alike(groups, name, running=True):
            title = ", ".join(filter(None, (name, kind.get("unit"), mark)))
            charts.append(Chart(title, "steps", [curve(group, name) for group in same]))
    text = (
        "Bands are 95 %: over runs or seeds (t), or the rows of an evaluation. Those of"
        " a training metric of one run are the least and the greatest of its steps."
    )
    return Section("Learning curves", [text, *charts] if charts else ["None yet."])


def curve(group: Group, name: str) -> Series:
    """The mean over runs at the steps that all of them logged, and its band."""
    width = statistics.quantile(group.runs[0].num_seeds)
    by_step = [{r["step"]: r for r in run.rows if name in r} for run in group.runs]
    steps = [step for step in by_step[0] if all(step in of for of in by_step)]
    y, low, high = [], [], []
    for step in steps:
        rows = [of[step] for of in by_step]
        values = [row[name] for row in rows]
        mean, bounds = float(np.mean(values)), (np.nan, np.nan)
        if len(values) > 1:
            _, half = statistics.interval(values)
            bounds = mean - half, mean + half
        elif f"{name}/stderr" in rows[0]:
            half = width * rows[0][f"{name}/stderr"]
            bounds = mean - half, mean + half
        elif f"{name}/min" in rows[0]:
            bounds = tuple(rows[0][f"{name}/{end}"] for end in EXTREMES)
        y, low, high = [*y, mean], [*low, float(bounds[0])], [*high, float(bounds[1])]
    return Series(group.name, steps, y, low, high)


def resources(groups: Sequence[Group]) -> Section:
    """Device, time and cost."""
    heads = ["config", "device", "steps/s", "training", "device hours", "jax", "commit"]
    rows = []
    for group in groups:
        seconds = [seconds_of(run.rows) for run in group.runs]
        steps = [run.rows[-1]["step"] if run.rows else 0 for run in group.runs]
        devices = [run.record.get("device") for run in group.runs]
        counts = [device["count"] if device else 1 for device in devices]
        hours = sum(s * count / 3600 for s, count in zip(seconds, counts, strict=True))
        told = [f"{d['count']} {d['kind']}" if d else "not recorded" for d in devices]
        versions = [run.record.get("versions", {}).get("jax") for run in group.runs]
        rows.append(
            [
                group.name,
                _once(told),
                f"{sum(steps) / sum(seconds):.3g}" if sum(seconds) else NOTHING,
                duration(sum(seconds)),
                f"{hours:.3g}",
                _once(versions),
                _once([run.record.get("commit") for run in group.runs]),
            ]
        )
    text = "Over all runs of a config: steps alone, no evaluation and no compilation."
    return Section("Device, time, cost", [Grid("", heads, rows), text])


def of_table(table: Table) -> Grid:
    """A grid of a table that is made for a terminal."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    heads = [str(column.header) for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Grid(str(table.title or ""), heads, rows)


def _once(values: Sequence) -> str:
    return ", ".join(dict.fromkeys(str(v or "not recorded") for v in values))


def _cell(figure: tuple | None) -> str:
    if figure is None:
        return NOTHING
    mean, low, high = figure
    return f"{mean:.3g}" if low is None else with_bounds(mean, low, high)


def _shown(value: object) -> str:
    if value is None:
        return NOTHING
    return show(tuple(value) if isinstance(value, list) else value)
