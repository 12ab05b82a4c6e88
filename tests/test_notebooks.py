"""The notebooks run from their first cell to the last, small, and draw pictures."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

from experiments import configuration, fields, figures
from tests import plain, tiny

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {"01_landscapes": 3, "02_sudoku": 1, "03_compare": 1}


def cells_of(path, kind):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "20")
    monkeypatch.setattr(figures, "write_all", lambda *_: None)  # tested elsewhere
    monkeypatch.setattr(configuration, "overridden", tiny_of(configuration.overridden))
    monkeypatch.syspath_prepend(str(tmp_path))  # what a notebook adds is taken back
    matplotlib.use("agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(drawn(tmp_path)))
    names = {"__name__": "notebook"}
    for index, cell in enumerate(cells_of(path, "code")):
        exec(compile(cell, f"{path.name}, cell {index}", "exec"), names)
    assert len(shown) == PICTURES[path.stem]
    assert all(size > 2_000 for size in shown), shown


def tiny_of(overridden):
    """The same at the sizes of tests, of inversions with a plain energy."""

    def smaller(*given):
        values = fields.flatten(overridden(*given))
        is_board = values.get("task.name") == "sudoku"
        return tiny.resized(values, plain.PROPOSING if is_board else plain.of(4))

    return smaller


def drawn(folder):
    """Bytes of the picture that a reader would see now."""
    plt.gcf().savefig(folder / "shown.png")
    plt.close("all")
    return (folder / "shown.png").stat().st_size


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_in_short_cells(path):
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        assert len(cell["source"]) <= 30
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert notebook["cells"][0]["source"][0].startswith("# ")


def test_every_notebook_is_known_here():
    assert {path.stem for path in NOTEBOOKS} == set(PICTURES)
