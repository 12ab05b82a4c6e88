"""What compare sets side by side: figures of one definition, and no others."""

import json

import pytest

from experiments import compare, figures
from experiments.errors import UserError
from experiments.reporting import runs
from tests.mutants import Mutant, one
from tests.test_report import NAME, samples_of, write_run


def runs_of(folder, **others: dict) -> dict[str, compare.Run]:
    """Finished runs of three seeds, each with other figures and these changes."""
    paths = {
        name: write_run(folder, name, samples_of(index, 3), **changes)
        for index, (name, changes) in enumerate(others.items())
    }
    return {name: compare.finished(name, path) for name, path in paths.items()}


def cells_of(table) -> list[list[str]]:
    return [list(column.cells) for column in table.columns]


def test_runs_of_one_definition_are_paired_in_one_table(tmp_path):
    found = runs_of(tmp_path, a={}, b={"train__rate": 2})
    (table,) = compare.seeds_tables(found)
    names, _, ratios, p = cells_of(table)
    assert names == ["a", "b"]
    assert "[" in ratios[1]
    assert 0 <= float(p[1]) <= 1
    (table,) = compare.final_tables(found)
    assert cells_of(table)[0] == [NAME]
    assert compare.curves(found)[1] == [("err", (NAME,))]


@pytest.mark.parametrize(
    ("other", "marks"),
    [
        ({"task__n": 5}, ("task.n=4", "task.n=5")),
        ({"data__seed": 1}, ("data.seed=none", "data.seed=1")),
        ({"version": 2}, ("version=1", "version=2")),
        ({"num_examples": 32}, ("rows=64", "rows=32")),
    ],
)
def test_figures_of_other_definitions_are_in_no_row_no_pair_no_panel(
    tmp_path, other, marks
):
    found = runs_of(tmp_path, a={}, b={"train__rate": 2}, c=other)
    alike, alone = compare.seeds_tables(found)
    assert [str(t.title).split(":")[0] for t in (alike, alone)] == [
        f"{NAME}, {mark}" for mark in marks
    ]
    assert cells_of(alike)[0] == ["a", "b"]
    assert [len(cells_of(alike)), len(cells_of(alone))] == [4, 2]  # no ratio, no p
    assert cells_of(alone)[0] == ["c"]
    (table,) = compare.final_tables(found)
    labels, *columns = cells_of(table)
    assert labels == [f"{NAME}, {mark}" for mark in marks]
    is_there = [[cell != "-" for cell in column] for column in columns]
    assert is_there == [[True, False], [True, False], [False, True]]
    drawn = figures.learning_curves(*compare.curves(found))
    titles = [axis.get_title() for axis in drawn.axes if axis.axison]
    if "num_examples" in other:  # those of training are alike
        assert titles == ["err"]
    else:
        assert titles == [f"err, {mark}" for mark in marks]


def test_training_metrics_of_other_tasks_have_rows_and_panels_of_their_own(tmp_path):
    rows = [{"step": s, "margin": 1.0, "own/x": s, "own/x/min": s} for s in (20, 40)]
    found = runs_of(tmp_path, a={"rows": rows}, b={"rows": rows, "task__n": 5})
    (table,) = compare.final_tables(found)
    expected = [f"{n}, task.n={size}" for n in ("margin", "own/x") for size in (4, 5)]
    assert cells_of(table)[0][2:] == expected
    drawn = figures.learning_curves(*compare.curves(found))
    titles = [axis.get_title() for axis in drawn.axes if axis.axison]
    assert titles == [
        *(f"margin, nats, task.n={size}" for size in (4, 5)),
        *(f"own/x, task.n={size}" for size in (4, 5)),
    ]
    assert [len(axis.lines) for axis in drawn.axes if axis.axison] == [2] * 4


@pytest.mark.parametrize(
    "name, value",
    [
        ("records", None),
        ("records", [None]),
        ("records", [{"metric": "err", "split": 1, "unit": "", "better": "low"}]),
        ("seeds", None),
        ("seeds", {"0": None}),
        ("seeds", {"0": {NAME: "1"}}),
        ("metrics", {NAME: None}),
        ("primary", None),
        ("step", "40"),
    ],
)
def test_a_result_of_another_shape_is_one_sentence(name, value, tmp_path):
    run = write_run(tmp_path, "run", {0: 1.0, 1: 2.0})
    path = run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    sentence = f"run/result.json: is damaged, no run writes such {name}$"
    for read in (compare.finished, lambda _, path: runs.read(path)):
        with pytest.raises(UserError, match=sentence):
            read("run", run)


COMPARE = "experiments.compare"
TASK = {"other": {"task__n": 5}, "marks": ("task.n=4", "task.n=5")}
MUTANTS = [
    Mutant(
        "compare",
        "figures of all definitions in one pair",
        COMPARE,
        one("found.setdefault(definition, [])", "found.setdefault((), [])"),
        test_figures_of_other_definitions_are_in_no_row_no_pair_no_panel,
        TASK,
        error=ValueError,
    ),
    Mutant(
        "compare",
        "final figures are told apart as those of training",
        COMPARE,
        one("found = _alike(runs, metric)", "found = _alike(runs, metric, running=1)"),
        test_figures_of_other_definitions_are_in_no_row_no_pair_no_panel,
        {"other": {"num_examples": 32}, "marks": ("rows=64", "rows=32")},
        error=ValueError,
    ),
    Mutant(
        "compare",
        "curves of all definitions in one panel",
        COMPARE,
        one("if len(found) > 1 else ():", "if len(found) > 9 else ():"),
        test_figures_of_other_definitions_are_in_no_row_no_pair_no_panel,
        TASK,
    ),
]
