"""Charts as SVG that stands in a page: drawn in its colours, told by its titles."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib import ticker

from experiments.reporting.content import Chart, Grid, Series
from experiments.score.tables import with_bounds

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 8, 36
MOST_POINTS = 200  # of a curve that are drawn
MOST_TITLES = 60  # of a curve that say their value
SAMPLES = 6  # columns of the numbers
DECADES = 1.0  # log10 of the range from which on the axis of y is logarithmic


class Axis(NamedTuple):
    to: Callable[[np.ndarray], np.ndarray]  # value -> coordinate
    ticks: list[float]


def svg(chart: Chart, places: Mapping[str, int]) -> str:
    """A chart; a series at the place n has the classes `sn` (which hides it), `cn`."""
    x, y = _axes(chart)
    title = escape(chart.title)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    parts += _frame(x, y, chart.x)
    for series in chart.series:
        index = places[series.name]
        parts.append(f'<g class="s{index} c{index % 8}{" again" * (index >= 8)}">')
        parts += _drawn(_thinned(series, MOST_POINTS), x, y)
        parts += _points(_thinned(series, MOST_TITLES), x, y, chart.x)
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def samples(chart: Chart) -> Grid:
    """The numbers of a chart at a few places, a row a series."""
    longest = max(chart.series, key=lambda series: len(series.x))
    at = _thinned(longest, SAMPLES).x
    rows = []
    for series in chart.series:
        cells = dict(zip(series.x, map(_told, *series[2:]), strict=True))
        rows.append([series.name, *(cells.get(value, "-") for value in at)])
    return Grid(chart.title, [chart.x, *(f"{value:,g}" for value in at)], rows)


def _axes(chart: Chart) -> tuple[Axis, Axis]:
    """Both, over all that is finite; of y the bands within reach of the curves."""
    x = _finite(value for series in chart.series for value in series.x)
    y = _finite(value for series in chart.series for value in series.y)
    ends = _finite(v for s in chart.series for v in (*s.low, *s.high))
    low, high = y.min(initial=np.inf), y.max(initial=-np.inf)
    if not len(y):
        low, high = 0.0, 1.0
    is_log = low > 0 and np.log10(high / low) > DECADES
    reach = (low / 3, high * 3) if is_log else (low - (high - low), 2 * high - low)
    ends = ends[(ends > reach[0]) & (ends < reach[1])]
    low, high = min([low, *ends]), max([high, *ends])
    x_ends = (x.min(), x.max()) if len(x) else (0.0, 1.0)
    log_x = chart.log_x and x_ends[0] > 0  # an answer of 0 steps has a place too
    return (
        _axis(*x_ends, LEFT, WIDTH - RIGHT, log_x, [*np.unique(x)]),
        _axis(low, high, HEIGHT - BOTTOM, TOP, is_log),
    )


def _axis(
    low: float, high: float, start: float, end: float, is_log: bool, at: Sequence = ()
) -> Axis:
    """From `low` at the coordinate `start` to `high` at `end`, with a little room."""
    scale = _log if is_log else np.asarray
    first, last = float(scale(low)), float(scale(high))
    room = 0.04 * (last - first) or 0.5
    first, last = first - room, last + room

    def to(values: np.ndarray) -> np.ndarray:
        share = (scale(np.asarray(values, float)) - first) / (last - first)
        return start + np.clip(share, 0, 1) * (end - start)

    if is_log and len(at):  # each number of steps or restarts
        ticks = at
    elif is_log:
        subs = (1.0,) if last - first > 3 else (1.0, 2.0, 5.0)
        locator = ticker.LogLocator(subs=subs, numticks=6)
        ticks = locator.tick_values(10.0**first, 10.0**last)
    else:
        ticks = ticker.MaxNLocator(5).tick_values(first, last)
    inside = [float(tick) for tick in ticks if first <= scale(tick) <= last]
    return Axis(to, inside)


def _log(values: np.ndarray) -> np.ndarray:
    """log10, the least of all where a value is not above 0: at the end of the axis."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.less_equal(values, 0), -np.inf, np.log10(values))


def _frame(x: Axis, y: Axis, label: str) -> Iterable[str]:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick, at in zip(y.ticks, y.to(y.ticks), strict=True):
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>'
        yield f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for tick, at in zip(x.ticks, x.to(x.ticks), strict=True):
        yield f'<path class="grid" d="M{at:.1f} {floor}v4"/>'
        place = f'x="{at:.1f}" y="{floor + 16}"'
        yield f'<text {place} text-anchor="middle">{tick:,g}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{right}"/>'
    yield f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">{escape(label)}</text>'


def _drawn(series: Series, x: Axis, y: Axis) -> Iterable[str]:
    """Band and line, both with gaps where a value is not finite."""
    at = x.to(series.x)
    y_at, low, high = (y.to(values) for values in series[2:])
    for part in _runs(np.isfinite(low + high)):
        corners = [*zip(at[part], high[part], strict=True)]
        corners += [*zip(at[part], low[part], strict=True)][::-1]
        yield f'<path class="band" d="M{_path(corners)}Z"/>'
    for part in _runs(np.isfinite(y_at)):
        points = [*zip(at[part], y_at[part], strict=True)]
        yield f'<path class="line" d="M{_path(points)}"/>'


def _points(series: Series, x: Axis, y: Axis, label: str) -> Iterable[str]:
    """A spot a point that says its value where a pointer rests."""
    told = map(_told, *series[2:])
    places = zip(series.x, x.to(series.x), y.to(series.y), told, strict=True)
    for step, left, top, text in places:
        if np.isfinite(top):
            title = escape(f"{series.name}: {text} at {step:,g} {label}")
            yield f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4">'
            yield f"<title>{title}</title></circle>"


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{left:.1f} {top:.1f}" for left, top in points)


def _runs(is_there: np.ndarray) -> list[np.ndarray]:
    """The indices of each stretch without a gap."""
    index = np.flatnonzero(is_there)
    return [part for part in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
            if len(part)]  # fmt: skip


def _thinned(series: Series, most: int) -> Series:
    """Evenly chosen points, the first and the last among them."""
    count = len(series.x)
    index = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    return Series(series.name, *([of[i] for i in index] for of in series[1:]))


def _told(value: float, low: float, high: float) -> str:
    return with_bounds(value, low, high) if np.isfinite(low + high) else f"{value:.3g}"


def _finite(values: Iterable[float]) -> np.ndarray:
    found = np.array([*values], float)
    return found[np.isfinite(found)]
