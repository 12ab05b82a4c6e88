"""The facts of a page as Markdown, and as HTML that needs no other file."""

import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from experiments.reporting.content import Chart, Grid, Page
from experiments.reporting.curves import samples, svg

HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text()
SCRIPT = (HERE / "page.js").read_text()


def markdown(page: Page) -> str:
    """Everything, with the numbers of charts instead of their curves."""
    parts = [f"# {page.title}"]
    for section in page.sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            block = samples(block) if isinstance(block, Chart) else block
            parts.append(block if isinstance(block, str) else _table_text(block))
    return "\n\n".join(parts) + "\n"


def html(page: Page) -> str:
    """One file, readable without script, in dark and light, on any width."""
    head = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(page.title)}</title>",
    ]
    if page.again is not None:  # after each writing, and not faster than can be read
        head.append(f'<meta http-equiv="refresh" content="{max(page.again, 5):.0f}">')
    hidden = "".join(
        f"body:has(#s{i}:not(:checked)) svg .s{i}{{display:none}}"
        for i in range(len(page.names))
    )
    body = [f"<style>{STYLE}{hidden}</style><body><main><h1>{escape(page.title)}</h1>"]
    body.append(_legend(page.names))
    for section in page.sections:
        body.append(f"<section><h2>{escape(section.title)}</h2>")
        body += _blocks(section.blocks, page.places)
        body.append("</section>")
    body.append(f"</main><script>{SCRIPT}</script></body></html>\n")
    return "\n".join([*head, *body])


def _legend(names: list[str]) -> str:
    """A box a config, which shows or hides its curves."""
    if len(names) < 2:
        return ""
    boxes = "".join(
        f'<label><input type="checkbox" id="s{index}" checked autocomplete="off">'
        f"{_swatch(index)}{escape(name)}</label>"
        for index, name in enumerate(names)
    )
    return f'<div class="legend" role="group" aria-label="curves">{boxes}</div>'


def _blocks(
    blocks: Iterable[str | Grid | Chart], places: Mapping[str, int]
) -> Iterable[str]:
    """HTML of blocks; charts that follow each other stand side by side."""
    is_open = False
    for block in blocks:
        if isinstance(block, Chart) != is_open:
            is_open = not is_open
            yield '<div class="charts">' if is_open else "</div>"
        if isinstance(block, str):
            yield f"<p>{_text(block)}</p>"
        elif isinstance(block, Grid):
            yield _table(block, places)
        else:
            numbers = _table(samples(block)._replace(title=""), places)
            yield (
                f"<figure><figcaption>{escape(block.title)}</figcaption>"
                f'{svg(block, places)}<output aria-live="off"></output>'
                f"<details><summary>numbers</summary>{numbers}</details></figure>"
            )
    if is_open:
        yield "</div>"


def _table(grid: Grid, places: Mapping[str, int]) -> str:
    """A table that scrolls inside its own box; configs have their colour."""
    title = escape(grid.title)
    caption = f"<caption>{title}</caption>" if title and not grid.is_folded else ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in grid.columns)
    rows = []
    for label, *cells in grid.rows:
        mark = _swatch(places[label]) if label in places else ""
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{mark}{escape(label)}</th>{row}</tr>')
    head, body = f"<thead><tr>{heads}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    table = f"<table>{caption}{head}{body}</table>"
    box = f'<div class="scroll" tabindex="0">{table}</div>'
    if grid.is_folded:
        return f"<details><summary>{title}</summary>{box}</details>"
    return box


def _table_text(grid: Grid) -> str:
    lines = [grid.columns, ["---"] * len(grid.columns), *grid.rows]
    rows = ("| " + " | ".join(_cell_text(c) for c in line) + " |" for line in lines)
    return "\n".join([*([f"**{grid.title}**", ""] if grid.title else []), *rows])


def _cell_text(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def _swatch(index: int) -> str:
    return f'<i class="swatch c{index % 8}{" again" * (index >= 8)}"></i>'


def _text(text: str) -> str:
    """Escaped, with `code` in its own face."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
