"""Tables that a terminal of 80 columns shows whole: wide ones become several."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

WIDTH = 80
LABEL = 36  # the most characters of the first column, longer ones are folded


def tables(
    title: str,
    rows: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    *,
    corner: str = "",
    caption: str | None = None,
) -> list[Table]:
    """A row a label, a column a name; each table repeats the labels.

    Args:
      title: above each of them.
      rows: the labels.
      columns: {name: a cell for each row}.
      corner: above the labels.
      caption: below the last.
    """
    if not columns:
        return []
    label = min(LABEL, max(map(len, (corner, *rows))))
    groups, used = [[]], WIDTH
    for name, cells in columns.items():
        width = 2 + max(map(len, (name, *cells)))
        if used + width > WIDTH:
            groups, used = [*groups, []], label + 3
        groups[-1].append(name)
        used += width
    views = []
    for group in filter(None, groups):
        view = Table(title=escape(title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        view.add_column(corner, overflow="fold", max_width=LABEL)
        for name in group:
            view.add_column(name, justify="right", overflow="fold")
        for index, row in enumerate(rows):
            view.add_row(row, *(columns[name][index] for name in group))
        views.append(view)
    views[-1].caption = caption and escape(caption)
    return views


def with_error(value: float | None, error: float | None) -> str:
    """`1.23 +- 0.04`, or `-` for what is not there."""
    if value is None:
        return "-"
    return f"{value:.3g}" + (f" +- {error:.1g}" if error is not None else "")


def with_bounds(value: float, low: float, high: float) -> str:
    """`1.23 [1.19, 1.27]`."""
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
