"""The report's sections of other commands: whose figures they are, beside which."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import compute
from experiments.errors import UserError
from experiments.reporting import curves, page
from experiments.score import verdict
from experiments.score.scorer import Rows
from tests.mutants import Mutant, one
from tests.test_judge import ENERGY, RIGHT
from tests.test_report import charts, grids, of_compute, of_judge, told, write_run

CONTENT, STUDIES = (f"experiments.reporting.{n}" for n in ("content", "studies"))


def without(of_run: dict, name: str) -> dict:
    return {k: v for k, v in of_run.items() if k != name}


def write(folder: Path, name: str, of_runs: dict[str, dict], **options) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"num_examples": 64, "runs": of_runs} | options))
    return path


def test_the_seeds_of_a_config_have_its_colour_and_its_box(tmp_path):
    names = [f"e-seed{seed}" for seed in range(3)]
    paths = [
        write_run(tmp_path, name, {seed: 1.0}, seed=seed)
        for seed, name in enumerate(names)
    ]
    paths.append(write_run(tmp_path, "other", {0: 1.0}, train__rate=2))
    write(tmp_path, "compute", {name: of_compute() for name in (*names, "other")})
    write(tmp_path, "judge", {name: of_judge() for name in (*names, "other")})
    page_ = told(*paths)
    assert page_.names == ["e", "other"]
    of_studies = [c for c in charts(page_) if c.log_x]
    assert [s.name for s in of_studies[0].series] == [*names, "other"]
    for chart in of_studies:
        svg = curves.svg(chart, page_.places)
        assert re.findall(r'<g class="(\w+) (\w+)', svg) == [
            *[("s0", "c0")] * 3,
            ("s1", "c1"),
        ]
    assert "e-seed2" in page.html(page_)


def test_answers_of_no_steps_have_a_place_on_a_linear_axis(tmp_path):
    of = of_compute()
    (split,) = of["splits"].values()
    split["steps"].insert(0, split["steps"][0] | {"steps": 0})
    run = write_run(tmp_path, "run", {0: 1.0})
    write(tmp_path, "compute", {"run": of})
    steps, _ = [chart for chart in charts(told(run)) if chart.log_x]
    svg = curves.svg(steps, {"run": 0})
    assert "nan" not in svg
    at = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]  # of 0, 1, 5
    assert (at[2] - at[0]) / (at[1] - at[0]) == pytest.approx(5, rel=0.01)
    scales = [axis.get_xscale() for axis in compute.figure({"run": of}).axes]
    assert scales == ["linear", "log"]


def test_answers_that_are_not_finite_are_counted_beside_the_mean_of_the_others():
    """Also in the JSON; an earlier version's has no such count."""

    def split(*values: float) -> dict:
        """One start noise, 5 steps all finite, 9 steps with these errors."""
        figures, energy = {"err": np.array(values)}, np.ones(4)
        answers = np.where(np.isfinite(values), 0.0, np.nan)[:, None]
        rows = Rows(figures, energy, None, answers, None)
        first = Rows({"err": np.ones(4)}, energy, None, np.zeros((4, 1)), None)
        return {
            "steps": [
                compute._step_figures(5, first, first, "err"),
                compute._step_figures(9, rows, first, "err"),
            ],
            "restarts": compute._restart_figures([rows], (1,), "err"),
        }

    of_seeds = [split(1, 3, np.nan, np.inf), split(1, 2, 3, 2)]
    for count, texts in ((1, ["1 +- 0", "2 +- 2"]), (2, ["1 +- 0", "2 +- 0"])):
        merged = compute._merged(of_seeds[:count])
        rows = 4 * count
        value = merged["steps"][1]["value"]
        assert (value["not_finite"], value["rows"]) == (2, rows)
        left_out = f" (2 of {rows} not finite)"
        columns = {
            column.header: [*column.cells]
            for table in compute.final_tables({"a": of_compute(splits={"val": merged})})
            for column in table.columns
        }
        assert columns["5 steps"] == texts[:1]
        assert columns["9 steps"] == [texts[1] + left_out]
        assert columns["moved in 9"] == ["0" + left_out]
        assert columns["best of 1"] == ["2" + left_out]


def test_runs_of_other_steps_have_columns_of_their_own():
    value = {"mean": 0.5, "half": 0.1}
    more = {"mean": 1.5, "half": 0.1}
    runs = {"a": of_compute(), "b": of_compute()}
    (split,) = runs["b"]["splits"].values()
    split["steps"].append({"steps": 9, "value": more, "displacement": value})
    split["restarts"] = [{"restarts": 4, "value": more}]
    columns = {
        column.header: [*column.cells]
        for table in compute.final_tables(runs)
        for column in table.columns
    }
    assert columns["5 steps"] == ["0.5 +- 0.1"] * 2
    assert columns["9 steps"] == ["-", "1.5 +- 0.1"]
    assert (columns["5 / 5 steps"], columns["9 / 5 steps"]) == (["1", "-"], ["-", "3"])
    assert columns["moved in 9"] == ["-", "0.5"]
    assert (columns["best of 1"], columns["best of 4"]) == (["0.5", "-"], ["-", "1.5"])


@pytest.mark.parametrize("other", [{"task__n": 5}, {"version": 2}])
def test_figures_of_other_definitions_share_no_chart_and_no_table(tmp_path, other):
    paths = [
        write_run(tmp_path, name, {0: 1.0}, **of)
        for name, of in (("a", {}), ("b", {"train__rate": 2}), ("c", other))
    ]
    write(tmp_path, "compute", {name: of_compute() for name in "cab"})
    write(tmp_path, "judge", {name: of_judge(unit="-") for name in "cab"})
    page_ = told(*paths)
    names = [{s.name for s in c.series} for c in charts(page_) if c.log_x]
    assert names == [{"a", "b"}] * 2 + [{"c"}] * 2 + [{"a", "b"}, {"c"}]
    found = grids(page_)
    (key, value), *_ = other.items()
    field, before = key.replace("__", "."), {"task__n": 4, "version": 1}[key]
    for title in ("err, -, against compute", "err, share right"):
        rows = [found[f"{title}, {field}={n}"].rows for n in (before, value)]
        assert [[row[0] for row in of] for of in rows] == [
            ["a, val", "b, val"],
            ["c, val"],
        ]


def test_figures_of_other_numbers_of_rows_share_no_chart(tmp_path):
    paths = [write_run(tmp_path, n, {0: 1.0}, train__rate=n) for n in ("a", "b")]
    written = [write(path, "compute", {path.name: of_compute()}) for path in paths]
    written[1].write_text(written[1].read_text().replace(": 64", ": 32"))
    titles = [chart.title for chart in charts(told(*paths)) if chart.log_x]
    assert titles == [f"val/err, -, rows={n}" for n in (64, 64, 32, 32)]


@pytest.mark.parametrize(
    ("first", "second", "marks"),
    [
        ({"restarts": 16}, {"restarts": 64}, ["restarts=16", "restarts=64"]),
        ({"work": 900}, {"work": 100}, ["work=900", "work=100"]),
        ({}, {"checkpoint": "best"}, ["checkpoint=last", "checkpoint=best"]),
        ({"checkpoint": "last"}, {}, [""]),
        # An earlier version wrote the default beside the work.
        ({"work": 9, "restarts": 16}, {"work": 9, "restarts": None}, [""]),
    ],
)
def test_shares_right_of_other_answers_or_checkpoints_are_not_paired(
    tmp_path, first, second, marks
):
    share = {"mean": 0.5, "stderr": 0.1, "count": 3, "each": [0.4, 0.5, 0.7]}
    best = [{"restarts": n, "first": share, "any": share} for n in (1, 2)]
    split = {"best": best, "auroc": {"same x": share, "any x": share}}
    of = of_judge(seeds=[0, 1, 2], splits={"val": split})
    paths = [write_run(tmp_path, n, {0: 1.0}, train__rate=n) for n in ("a", "b")]
    for path, options in zip(paths, (first, second), strict=True):
        write(path, "judge", {path.name: of}, **options)
    found = grids(told(*paths))
    titles = [title for title in found if title.startswith("err, share right")]
    text = "err, share right"
    assert titles == [f"{text}, {mark}" if mark else text for mark in marks]
    is_paired = any("first of R, beside" in title for title in found)
    assert is_paired == (len(marks) == 1)


def test_figures_of_another_run_of_the_same_name_are_left_out(tmp_path):
    run = write_run(tmp_path, "run", {0: 1.0}, task__sides=[1, 2])
    own = {"seed": 0, "task.n": 4, "task.sides": (1, 2), "field.of.before": 1}
    path = write(tmp_path, "compute", {"run": of_compute(config=own)})
    assert [c.title for c in charts(told(run)) if c.log_x] == ["val/err, -"] * 2
    write(tmp_path, "compute", {"run": of_compute(config=own | {"seed": 1})})
    page_ = told(run)
    assert not [chart for chart in charts(page_) if chart.log_x]
    assert f"{path} tells of another run with the name run." in page.markdown(page_)


@pytest.mark.parametrize(
    "name, content",
    [
        ("compute.json", {"runs": {"run": {"splits": {"val": {"steps": [1]}}}}}),
        ("judge.json", {"runs": {"run": {"splits": {"val": {"best": {}}}}}}),
        ("compute.json", {"runs": {"run": without(of_compute(), "step")}}),
        ("judge.json", {"runs": {"run": without(of_judge(), "metric")}}),
        ("diagnosis.json", {"splits": {}}),
        ("diagnosis.json", {"step": 4, "better": "low", "splits": {"val": []}}),
    ],
)
def test_a_study_of_another_shape_is_named(name, content, tmp_path):
    run = write_run(tmp_path, "run", {0: 1.0})
    (run / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{name}: is damaged, or of another version"):
        told(run)


def test_a_share_right_has_the_interval_over_its_seeds(tmp_path):
    seeds = [verdict.judged(ENERGY, right) for right in (RIGHT, ~RIGHT, RIGHT)]
    shares = [RIGHT.mean(), 1 - RIGHT.mean(), RIGHT.mean()]
    run = write_run(tmp_path, "run", dict.fromkeys(range(3), 1.0))
    splits = {"val": verdict.merged(seeds)}
    write(tmp_path, "judge", {"run": of_judge(seeds=[0, 1, 2], splits=splits)})
    (chart,) = [c for c in charts(told(run)) if "share right" in c.title]
    bounds = stats.ttest_1samp(shares, 0.0).confidence_interval(0.95)
    found = chart.series[0].low[0], chart.series[0].high[0]
    np.testing.assert_allclose(found, bounds)


MUTANTS = [
    Mutant(
        "report",
        "answers that are not finite are left out in silence",
        "experiments.compute",
        one('if value.get("not_finite")', "if False"),
        test_answers_that_are_not_finite_are_counted_beside_the_mean_of_the_others,
    ),
    Mutant(
        "report",
        "answers of 0 steps on a logarithmic axis",
        "experiments.reporting.curves",
        one("chart.log_x and x_ends[0] > 0", "chart.log_x"),
        test_answers_of_no_steps_have_a_place_on_a_linear_axis,
        error=RuntimeWarning,
    ),
    Mutant(
        "report",
        "a study of another shape is a traceback",
        STUDIES,
        one("except (AttributeError, LookupError, ", "except (AttributeError, "),
        test_a_study_of_another_shape_is_named,
        {"name": "diagnosis.json", "content": {"splits": {}}},
        error=KeyError,
    ),
    Mutant(
        "report",
        "a study without its step is a traceback",
        STUDIES,
        one("                NEEDED(of)\n", "                pass\n"),
        test_a_study_of_another_shape_is_named,
        {
            "name": "compute.json",
            "content": {"runs": {"run": without(of_compute(), "step")}},
        },
        error=KeyError,
    ),
    Mutant(
        "report",
        "runs of several seeds have no place",
        CONTENT,
        one("of_runs | {name", "{name"),
        test_the_seeds_of_a_config_have_its_colour_and_its_box,
        error=KeyError,
    ),
    Mutant(
        "report",
        "columns of the first run alone",
        "experiments.compute",
        one("for of_run in cells for name", "for of_run in cells[:1] for name"),
        test_runs_of_other_steps_have_columns_of_their_own,
        error=KeyError,
    ),
    *(
        Mutant(
            "report",
            f"studies of another {says} in one chart",
            STUDIES,
            one(old, new),
            test,
            arguments,
        )
        for says, old, new, test, arguments in (
            (
                "task",
                "setdefault(definition, [])",
                "setdefault((), [])",
                test_figures_of_other_definitions_share_no_chart_and_no_table,
                {"other": {"task__n": 5}},
            ),
            (
                "number of rows",
                '"rows": study.get("num_examples")',
                '"rows": 1',
                test_figures_of_other_numbers_of_rows_share_no_chart,
                {},
            ),
            (
                "number of answers",
                "scored[by] = study.get(by)",
                "pass",
                test_shares_right_of_other_answers_or_checkpoints_are_not_paired,
                {
                    "first": {"restarts": 16},
                    "second": {"restarts": 64},
                    "marks": ["restarts=16", "restarts=64"],
                },
            ),
        )
    ),
    Mutant(
        "report",
        "a run is what has its name",
        STUDIES,
        one('if by_name[name].has(of.get("config", {}))', "if True"),
        test_figures_of_another_run_of_the_same_name_are_left_out,
    ),
    Mutant(
        "report",
        "normal quantiles over seeds of a share right",
        STUDIES,
        one('value["count"] if "each" in value else 1', "1"),
        test_a_share_right_has_the_interval_over_its_seeds,
    ),
]
