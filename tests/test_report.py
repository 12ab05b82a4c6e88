"""The report: statistics, what may share a column, curves, the page in a browser."""

import json
import re
import shutil
import subprocess
import time
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from experiments import cli, report, startup
from experiments.build import build
from experiments.errors import UserError
from experiments.reporting import content, curves, page, runs, studies, watch
from experiments.reporting.content import Chart, Grid, Series
from experiments.run import loop
from experiments.run.meter import seconds_of
from experiments.score import records, statistics
from tests import plain, tiny
from tests.mutants import Mutant, one
from tests.runs import EVERY_STEP, train, without_scores

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NAME = "val/err"


def write_run(folder: Path, name: str, scores, *, is_finished=True, rows=None, **other):
    """A run directory with these figures {seed: value}, and nothing trained.

    `other`: num_examples, of the metric `better`, `unit` and `version`, and fields of
    the config as `group__field`.
    """
    fields = {k: v for k, v in other.items() if k == "seed" or "__" in k}
    metric = {"better": "low", "unit": "per element", "version": 1}
    metric |= {k: v for k, v in other.items() if k in metric}
    config = {"seed": 0, "objectives": ["denoising"], "task": {"name": "any", "n": 4}}
    config |= {"train": {"num_steps": 40, "num_seeds": len(scores)}}
    config["eval"] = {"num_examples": 64, "num_examples_running": 8}
    for key, value in fields.items():
        group, _, field = key.rpartition("__")
        (config.setdefault(group, {}) if group else config)[field] = value
    about = {"versions": {"jax": "0.10"}, "commit": "abc"}
    about |= {"device": {"kind": "H100", "count": 2}}
    described = {"primary": NAME, "metrics": {NAME: metric}}
    directory = folder / name
    directory.mkdir(parents=True)
    content_ = {"format": 2, "config": config, **about, **described}
    (directory / "config.json").write_text(json.dumps(content_))
    if rows is None:
        rows = [
            {"step": s, "steps_per_second": 2.0, NAME: 1 / s, "train/loss": 2 / s}
            for s in (10, 20, 30, 40)
        ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "metrics.jsonl").write_text(lines)
    if is_finished:
        seeds = {str(s): {NAME: v, f"{NAME}/stderr": 0.01} for s, v in scores.items()}
        split, _, short = NAME.rpartition("/")
        record = {"metric": short, "split": split, "value": 0, "interval": None}
        result = {"primary": NAME, "records": [record | metric], "seeds": seeds}
        result["metrics"] = records.mean_over_seeds([*seeds.values()])
        result |= {"step": 40, "num_examples": other.get("num_examples", 64)}
        (directory / "result.json").write_text(json.dumps(result))
    return directory


def told(*directories: Path) -> content.Page:
    found = [runs.read(path) for path in directories]
    return content.page(found, studies.sections(found))


def grids(page_: content.Page) -> dict[str, Grid]:
    blocks = [block for section in page_.sections for block in section.blocks]
    return {block.title: block for block in blocks if isinstance(block, Grid)}


def charts(page_: content.Page) -> list[Chart]:
    blocks = [block for section in page_.sections for block in section.blocks]
    return [block for block in blocks if isinstance(block, Chart)]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", text)]


def samples_of(seed: int, count: int, shift: float = 0.0) -> dict[str, float]:
    logs = np.random.default_rng(seed).normal(shift, 0.5, count)
    return {str(i): float(np.exp(value)) for i, value in enumerate(logs)}


@pytest.mark.parametrize("is_ratio", [True, False])
def test_paired_seeds_are_tested_as_scipy_tests_them(is_ratio):
    """On the seeds that both have, against scipy's own test of two related samples."""
    first, second = samples_of(0, 6), samples_of(1, 8, 0.3)
    del first["2"]
    shared = sorted({*first} & {*second})
    to = np.log if is_ratio else np.asarray
    expected = stats.ttest_rel(*(to([of[s] for s in shared]) for of in (second, first)))
    bounds = np.array(expected.confidence_interval(0.95))
    found = statistics.paired(second, first, is_ratio=is_ratio)
    np.testing.assert_allclose(found.p, expected.pvalue)
    bounds = np.exp(bounds) if is_ratio else bounds
    np.testing.assert_allclose((found.low, found.high), bounds)
    assert found.low < found.middle < found.high
    assert found.count == 5
    assert statistics.paired({"9": 1.0}, first, is_ratio=True) is None


def test_gaps_that_are_all_the_same_are_no_difference_or_a_sure_one():
    first = {"0": 1.0, "1": 2.0}
    more = {seed: 2 * value for seed, value in first.items()}
    assert statistics.paired(first, first, is_ratio=True).p == 1.0
    assert statistics.paired(more, first, is_ratio=True)[:4] == (2.0, 2.0, 2.0, 0.0)


def test_p_values_are_corrected_by_hand_reckoning():
    """Sorted .005 .01 .03 .04, times 4 3 2 1, and never below the one before."""
    corrected = statistics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_the_interquartile_mean_has_the_interval_of_its_standard_error():
    """That of a trimmed mean is s_w / (h sqrt(N)), s_w of the Winsorized sample."""
    values = np.random.default_rng(0).standard_t(3, 80)
    middle, low, high = statistics.interquartile(values)
    ordered = np.sort(values)
    np.testing.assert_allclose(middle, ordered[20:60].mean())
    wins = np.clip(values, ordered[20], ordered[59])
    error = wins.std(ddof=1) / (0.5 * np.sqrt(80))
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert low < middle < high


def test_the_bootstrap_draws_within_each_stratum():
    """Strata without spread have an interval without width, however far apart."""
    assert statistics.interquartile([1.0] * 8, [3.0] * 8) == (2.0, 2.0, 2.0)


def test_the_table_of_the_primary_metric_holds_means_tests_and_corrections(tmp_path):
    samples = {"a": samples_of(0, 5), "b": samples_of(1, 5, 1.0), "c": samples_of(2, 5)}
    paths = [
        write_run(tmp_path, name, scores, train__rate=rate)
        for rate, (name, scores) in enumerate(samples.items())
    ]
    grid = grids(told(*paths))[f"{NAME}, per element, low is better"]
    a, b, c = ([*scores.values()] for scores in samples.values())
    found = stats.ttest_1samp(a, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(numbers(grid.rows[0][2])[1:], found, rtol=6e-3)
    p = [stats.ttest_rel(np.log(other), np.log(a)).pvalue for other in (b, c)]
    small, large = sorted(p)
    corrected = {small: min(2 * small, 1), large: min(max(2 * small, large), 1)}
    for row, value in zip(grid.rows[1:], p, strict=True):
        np.testing.assert_allclose(float(row[-2]), value, rtol=0.06)
        np.testing.assert_allclose(float(row[-1]), corrected[value], rtol=0.06)
    assert grid.rows[0][3:] == ["-"] * 3
    assert not any("interquartile" in column for column in grid.columns)


def test_many_seeds_in_many_directories_are_one_config(tmp_path):
    values = [*samples_of(3, 12).values()]
    paths = [
        write_run(tmp_path, f"run-seed{seed}", {seed: value}, seed=seed)
        for seed, value in enumerate(values)
    ]
    (row,) = grids(told(*paths))[f"{NAME}, per element, low is better"].rows
    assert row[:2] == ["run", "12"]
    assert numbers(row[2])[0] == pytest.approx(np.mean(values), rel=6e-3)
    middle = np.sort(values)[3:9].mean()
    assert numbers(row[3])[0] == pytest.approx(middle, rel=6e-3)
    again = write_run(tmp_path, "again", {3: 1.0}, seed=3)
    with pytest.raises(UserError, match=r"run-seed3 and again .* both hold seed 3"):
        told(*paths, again)


def test_a_run_that_is_not_finished_has_the_interval_of_its_seeds(tmp_path):
    rows = [{"step": 10, NAME: 0.5, f"{NAME}/stderr": 0.1}]
    scores = dict.fromkeys(range(5), 1.0)
    run = write_run(tmp_path, "run", scores, is_finished=False, rows=rows)
    (row,) = grids(told(run))[f"{NAME}, per element, low is better"].rows
    assert row[:2] == ["run", "5"]
    half = 0.1 * stats.t.ppf(0.975, 4)
    np.testing.assert_allclose(numbers(row[2]), [0.5, 0.5 - half, 0.5 + half], 6e-3)


def test_a_run_that_is_trained_on_is_not_finished(tmp_path):
    rows = [{"step": step, NAME: 1.0 / step} for step in (40, 50)]
    run = write_run(tmp_path, "run", {0: 7.0}, rows=rows, train__num_steps=80)
    page_ = told(run)
    assert "run is not finished: step 50 of 80" in page.markdown(page_)
    assert grids(page_)[f"{NAME}, per element, low is better"].rows[0][-1] == "0.02"


def test_no_two_configs_have_one_name(tmp_path):
    paths = [
        write_run(tmp_path, f"a-seed{seed}", {seed: 1.0}, seed=seed, train__rate=rate)
        for seed, rate in enumerate("xxyyzz")
    ]
    paths.append(write_run(tmp_path, "a", {0: 1.0}))
    assert told(*paths[:4]).names == ["a", "a-seeds"]
    assert told(*paths).names == ["a-seeds", "a-seed2", "a-seed4", "a"]


OTHERS = [
    {"better": "high"},
    {"unit": "share"},
    {"version": 2},
    {"num_examples": 32},
    {"task__n": 5},
    {"is_finished": False},
]


@pytest.mark.parametrize("other", OTHERS)
def test_figures_of_other_definitions_never_share_a_column(tmp_path, other):
    scores = samples_of(0, 3)
    paths = [write_run(tmp_path, name, scores) for name in ("a", "b")]
    (tmp_path / "b" / "config.json").write_text(
        (tmp_path / "b" / "config.json").read_text().replace("denoising", "other")
    )
    paths.append(write_run(tmp_path, "c", scores, **other))
    page_ = told(*paths)
    everything = grids(page_)["All figures"]
    columns = np.array([row[1:] for row in everything.rows]).T
    is_there = {tuple(column != "-") for column in columns}
    assert is_there == {(True, True, False), (False, False, True)}
    primary = [grid for title, grid in grids(page_).items() if title.startswith(NAME)]
    assert [[row[0] for row in grid.rows] for grid in primary] == [["a", "b"], ["c"]]
    assert "not defined alike" in page.markdown(page_)
    of_curves = [{s.name for s in c.series} for c in charts(page_) if NAME in c.title]
    if "num_examples" in other or "is_finished" in other:  # those of training are alike
        assert of_curves == [{"a", "b", "c"}]
    else:
        assert of_curves == [{"a", "b"}, {"c"}]


def test_a_run_of_an_earlier_version_stands_beside_a_new_one(tmp_path):
    """Its config.json does not say what is scored, its records say it of some."""
    paths = [write_run(tmp_path, name, {0: 1.0}, train__rate=name) for name in "ab"]
    for path, names in zip(paths, (("metrics", "primary", "device"), ()), strict=True):
        about = json.loads((path / "config.json").read_text())
        about["metrics"]["train/err"] = about["metrics"][NAME]
        for name in names:
            del about[name]
        (path / "config.json").write_text(json.dumps(about))
        result = json.loads((path / "result.json").read_text())
        result["metrics"]["train/err"] = 0.5
        (path / "result.json").write_text(json.dumps(result))
    page_ = told(*paths)
    rows = [row[1:] for row in grids(page_)["All figures"].rows]
    assert [[cell != "-" for cell in row] for row in rows] == [
        [True, False],
        [True] * 2,
    ]
    assert page_.sections[-1].blocks[0].rows[0][1] == "not recorded"


def test_the_loss_of_other_objectives_is_another_quantity(tmp_path):
    paths = [write_run(tmp_path, name, {0: 1.0}) for name in ("a", "b")]
    text = (tmp_path / "b" / "config.json").read_text()
    text = text.replace('["denoising"]', '["denoising", "contrast"]')
    (tmp_path / "b" / "config.json").write_text(text)
    losses = [c for c in charts(told(*paths)) if c.title.startswith("train/loss")]
    assert [len(chart.series) for chart in losses] == [1, 1]


def test_what_differs_comes_first(tmp_path):
    fields = {"train__rate": 0.1, "eval__steps": 5}
    a = write_run(tmp_path, "a", {0: 1.0}, **fields)
    b = write_run(tmp_path, "b", {1: 1.0}, **fields | {"train__rate": 0.2}, seed=1)
    first = told(a, b).sections[0]
    assert first.title == "What differs"
    assert first.blocks[0].rows == [["train.rate", "0.1", "0.2"]]


def test_a_band_is_the_interval_over_runs_and_of_one_run_its_own(tmp_path):
    lines = [[{"step": s, NAME: v * s} for s in (5, 10)] for v in (1.0, 2.0, 4.0)]
    lines[0][0] |= {f"{NAME}/min": 1.0, f"{NAME}/max": 9.0}
    lines[0][1] |= {f"{NAME}/stderr": 0.5}
    lines[0].insert(1, {"step": 7, NAME: 3.0})
    paths = [
        write_run(tmp_path, f"a-seed{i}", {i: 1.0}, seed=i, rows=of)
        for i, of in enumerate(lines)
    ]
    ((found,),) = [c.series for c in charts(told(*paths)) if NAME in c.title]
    assert found.x == [5, 10]
    values = np.array([5.0, 10.0, 20.0])
    np.testing.assert_allclose(found.y, [values.mean(), 2 * values.mean()])
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose((found.low[0], found.high[0]), (low, high))
    ((alone,),) = [c.series for c in charts(told(paths[0])) if NAME in c.title]
    assert alone.x == [5, 7, 10]
    np.testing.assert_allclose(alone.low, [1.0, np.nan, 10 - 0.98])
    np.testing.assert_allclose(alone.high, [9.0, np.nan, 10 + 0.98])


def test_a_curve_stays_where_many_lines_follow_its_last_point(tmp_path):
    rows = [{"step": s, "train/loss": 1.0} for s in range(1, 121)]
    rows[0][NAME] = 0.5
    run = write_run(tmp_path, "run", {}, is_finished=False, rows=rows)
    first = charts(told(run))[0]
    assert (first.title, first.series[0].x) == (f"{NAME}, per element", [1])


def drawn(chart: Chart) -> tuple[str, dict[str, float], dict[str, float]]:
    """(SVG, {label of a tick: its place} of x, and of y)."""
    svg = curves.svg(chart, {s.name: n for n, s in enumerate(chart.series)})
    of_x = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">(.*?)<', svg)
    of_y = re.findall(r'<text x="43" y="([\d.]+)" text-anchor="end">(.*?)<', svg)
    x = {text: float(at) for at, text in of_x}
    return svg, x, {text: float(at) - 4 for at, text in of_y}


def test_a_point_stands_where_the_ticks_say():
    """Its value is read back from the ticks, by a line through two of them."""
    y = [0.1, 0.7, 0.4]
    series = Series("a", [10, 20, 40], y, [0.0, 0.6, 0.3], [0.2, 0.8, 0.5])
    svg, x_ticks, y_ticks = drawn(Chart("t", "steps", [series]))
    places = np.float64(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg))
    for ticks, at, values in (
        (x_ticks, places[:, 0], series.x),
        (y_ticks, places[:, 1], y),
    ):
        (a, at_a), *_, (b, at_b) = [(float(text), at) for text, at in ticks.items()]
        read = a + (at - at_a) * (b - a) / (at_b - at_a)
        np.testing.assert_allclose(read, values, atol=0.005 * abs(b - a))
    assert np.all(np.diff([*y_ticks.values()]) < 0)  # more is higher


def test_a_wide_range_is_logarithmic_and_a_band_below_0_ends_at_the_floor():
    nan = float("nan")
    y, low = [1.0, 0.1, 0.001, nan, 0.01], [0.5, -1.0, 0.0005, nan, nan]
    series = Series("a", [1, 2, 3, 4, 5], y, low, [2.0, 0.2, 0.002, nan, nan])
    svg, _, ticks = drawn(Chart("t", "steps", [series]))
    at = [float(c) for c in re.findall(r'cy="([\d.]+)"', svg)]
    assert ticks["0.1"] == pytest.approx(at[1], abs=0.2)
    assert at[1] - at[0] == pytest.approx((at[2] - at[1]) / 2, abs=0.2)
    (band,) = re.findall(r'class="band" d="M(.*?)Z"', svg)
    corners = [tuple(map(float, part.split())) for part in band.split("L")]
    assert len(corners) == 6
    assert corners[4][1] == curves.HEIGHT - curves.BOTTOM
    assert len(re.findall('class="line"', svg)) == 2  # before and after the gap
    assert "nan" not in re.sub("<title>.*?</title>", "", svg)


def test_a_long_curve_keeps_its_ends_and_says_the_values_of_some_points():
    x = [*range(1, 5001)]
    chart = Chart("t", "steps", [Series("<a>", x, x, [np.nan] * 5000, x)])
    svg, _, _ = drawn(chart)
    titles = re.findall("<title>(.*?)</title>", svg)
    assert titles[0] == "&lt;a&gt;: 1 at 1 steps"
    assert titles[-1] == "&lt;a&gt;: 5e+03 at 5,000 steps"
    assert len(titles) == curves.MOST_TITLES
    assert len(svg) < 20_000
    (row,) = curves.samples(chart).rows
    assert row[:2] == ["<a>", "1"]
    assert len(row) == curves.SAMPLES + 1


class Reader(HTMLParser):
    """The text of a page, and the attributes of its elements."""

    def __init__(self, html: str):
        super().__init__()
        self.cells, self.attributes, self.tags = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_data(self, data):
        if self.tags[-1] not in ("style", "script"):
            self.cells.append(" ".join(data.split()))


def two(folder: Path) -> list[Path]:
    names = ("a & b", "<c>")
    return [
        write_run(folder, name, samples_of(i, 3), train__rate=i)
        for i, name in enumerate(names)
    ]


def test_the_page_says_all_that_markdown_says_and_needs_no_other_file(tmp_path):
    page_ = told(*two(tmp_path))
    html, text = page.html(page_), page.markdown(page_)
    reader = Reader(html)
    said = {*reader.cells}
    for line in text.splitlines():
        if line.startswith("| ") and "---" not in line:
            assert {*line.strip("| ").split(" | ")} <= said
    assert "c" not in reader.tags  # of the name of a run
    assert not re.search(r"https?:|@import|url\(", html)
    assert not [a for a in reader.attributes if a[1] in ("src", "href")]
    assert ("meta", "http-equiv", "refresh") not in reader.attributes


def test_device_time_and_cost_are_those_of_the_steps(tmp_path):
    grid = told(*two(tmp_path)).sections[-1].blocks[0]
    name, device, rate, seconds, hours, *_ = grid.rows[0]
    assert (name, device, rate, seconds) == ("a & b", "2 H100", "2", "20 s")
    assert float(hours) == pytest.approx(2 * 20 / 3600, rel=0.01)
    rows = [{"step": 10, "steps_per_second": 5.0}, {"step": 30}, {"step": 40}]
    rows[2]["steps_per_second"] = 1.0
    assert seconds_of(rows) == 2 + 10


def of_compute(**changes) -> dict:
    """What compute says of one run."""
    value = {"mean": 0.5, "half": 0.1}
    steps = [
        {"steps": n, "value": value, "displacement": {"mean": 0.0}} for n in (1, 5)
    ]
    split = {"steps": steps, "restarts": [{"restarts": 1, "value": value}]}
    return {
        "metric": "err",
        "unit": "-",
        "step": 40,
        "splits": {"val": split},
    } | changes


def of_judge(**changes) -> dict:
    """What judge says of one run."""
    share = {"mean": 0.5, "stderr": 0.1, "count": 64}
    best = [{"restarts": n, "first": share, "any": share} for n in (1, 2)]
    split = {"best": best, "auroc": {"same x": share, "any x": share}}
    of_run = {"metric": "err", "seeds": [0], "step": 40, "splits": {"val": split}}
    return of_run | changes


def with_studies(folder: Path) -> Path:
    """A run with the JSON of compute beside it, of an earlier step."""
    run, of_run = write_run(folder, "run", {0: 1.0}), of_compute(step=30)
    wrote = {"runs": {"run": of_run, "unknown": of_run}}
    (folder / "compute.json").write_text(json.dumps(wrote))
    return run


def judged(folder: Path) -> Path:
    """The JSON of judge, of the same run."""
    (folder / "other.json").write_text(json.dumps({"runs": {"run": of_judge()}}))
    return folder / "other.json"


def test_studies_that_lie_with_a_run_are_told_and_others_named_by_command(tmp_path):
    run = with_studies(tmp_path)
    section, diagnosis = told(run).sections[3:5]
    assert section.blocks[0].startswith("Of run these are figures of step 30")
    chart = section.blocks[1]
    assert chart.series == [Series("run", [1, 5], [0.5] * 2, [0.4] * 2, [0.6] * 2)]
    assert f"python -m experiments.judge --runs={run}`" in section.blocks[-1]
    assert f"experiments.diagnose --workdir={run}`" in diagnosis.blocks[-1]
    found = runs.read(run)
    chart = studies.sections([found], [judged(tmp_path)])[0].blocks[-2]
    assert chart.series[0][1:3] == ([1, 2], [0.5, 0.5])
    np.testing.assert_allclose(chart.series[0].low, 0.5 - 0.196)
    with pytest.raises(UserError, match=r"config.json: is no study, must be the .json"):
        studies.sections([found], [run / "config.json"])


def test_a_run_is_watched_in_place_until_it_ends(tmp_path, monkeypatch):
    run = write_run(tmp_path, "run", {}, is_finished=False)
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.time)
    written = run / "report.html"
    look = watch.Watch(run, 60)
    look()
    assert "step 40 of 40" in written.read_text()
    assert 'content="60"' in written.read_text()
    written.unlink()
    now.time += 59
    look()
    assert not written.exists()
    now.time += 1
    look()
    assert written.exists()
    look.finish()
    assert "http-equiv" not in written.read_text()
    assert {path.name for path in run.iterdir()} == {
        *("config.json", "metrics.jsonl", "report.html")
    }
    written.unlink()
    never = watch.Watch(run, 0)
    never()
    never.finish()
    assert not written.exists()


@pytest.mark.parametrize("text", ["{", '{"runs": {"run": {"splits": {"val": 1}}}}'])
def test_a_page_that_cannot_be_written_ends_no_training(tmp_path, capsys, text):
    run = write_run(tmp_path, "run", {}, is_finished=False)
    (tmp_path / "compute.json").write_text(text)
    look = watch.Watch(run, 1e-9)
    look()
    look()
    look.finish()
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("report.html is not written, the run goes on: ") == 1
    assert not (run / "report.html").exists()
    (tmp_path / "compute.json").unlink()
    look()
    assert (run / "report.html").exists()


def test_each_phase_is_traced_once_and_the_page_is_there_at_the_end(
    tmp_path, monkeypatch
):
    options = EVERY_STEP | {"train__num_steps": 2, "train__log_every": 2} | plain.of(4)
    config, seen = tiny.get_config("on_trajectory", **options), []

    def counted(config):
        experiment = build(config)
        step_fns = tuple(
            lambda *a, f=f, i=i: seen.append(i) or f(*a)
            for i, f in enumerate(experiment.step_fns)
        )
        return experiment._replace(step_fns=step_fns)

    without_scores(monkeypatch)
    monkeypatch.setattr(loop, "build", counted)
    experiment = counted(config)
    state = experiment.abstract_state
    for phase in (0, 1):
        experiment.dispatch(phase).lower(state, experiment.train_data)
    once = [*seen]
    seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        whole = loop.train_and_evaluate
        patch.setattr(loop, "train_and_evaluate", lambda *a: whole(*a, 1e9))
        train(config, tmp_path)
    assert seen == once
    assert "<h2>Figures" in (tmp_path / "report.html").read_text()


def test_memory_counts_donated_arguments_once_and_an_old_rate_tells_the_time():
    sizes = {"argument": 3, "output": 2, "alias": 2, "temp": 4}
    sizes = {f"{name}_size_in_bytes": n * 2**30 for name, n in sizes.items()}
    program = SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))
    unknown = SimpleNamespace(memory_analysis=lambda: None)
    rows = [{"step": 40, "steps_per_second": 0.5}]
    text = " ".join(startup.memory_text(program).split())
    assert "7 GiB with activations, 3 GiB of them the state" in text
    assert "does not tell" in startup.memory_text(unknown)
    assert "2 min left at 0.5 steps/s" in startup.time_text(rows, 60)


def test_a_metric_says_its_version():
    task = build(tiny.get_config("none")).task
    metric = task.metrics["task_mse"]._replace(version=3)
    task = task._replace(metrics={"task_mse": metric})
    (record,) = records.records(task, [{"val/task_mse": 1.0}])
    assert record["version"] == 3
    assert records.described(task)["ood/task_mse"]["version"] == 3
    assert records.described(task)["val/denoise_mse"]["version"] == 1


def test_the_command_writes_a_page_and_markdown(tmp_path, capsys):
    first, second = two(tmp_path)
    output = tmp_path / "new" / "report.html"
    report.main(["report", str(first), f"--output={output}", str(second)])
    assert "a & b, <c>" in output.with_suffix(".md").read_text()
    assert output.read_text().count("<svg") == 2
    assert str(output) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([], "--runs: must name at least one run"),
        (["nowhere"], "nowhere: is not a run directory"),
        (["damaged"], "damaged/config.json: is damaged"),
        (["deep"], "deep/config.json: is damaged"),
        (["empty"], "empty/config.json: holds no config"),
        (["else"], "else: its result.json holds no metrics and no primary"),
        (["x", "--output=x.pdf"], "--output=x.pdf: must be a .html file"),
        (["x", "--runss=y"], "runss"),
    ],
)
def test_a_bad_command_gets_one_sentence(
    arguments, named, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    texts = {"damaged": "{", "empty": "{}", "deep": "[" * 100_000}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    write_run(tmp_path, "else", {}, is_finished=False)
    (tmp_path / "else" / "result.json").write_text('{"a": 1}')
    with pytest.raises(SystemExit):
        cli.run(report.main, ["report", *arguments])
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert named in said
    assert "\n" not in said


LOOK = """
const look = (frame) => {
  const page = frame.contentDocument, inner = frame.contentWindow;
  const style = (element) => inner.getComputedStyle(element);
  const root = page.documentElement;
  const [first, second] = page.querySelectorAll("svg g");
  const box = page.querySelector("#s0"), circle = first.querySelector("circle");
  const spot = circle.getBoundingClientRect();
  const at = { clientX: spot.x + 4, clientY: spot.y + 4, bubbles: true };
  circle.dispatchEvent(new inner.PointerEvent("pointermove", at));
  const said = page.querySelector("output").textContent;
  box.click();
  return { said, hidden: style(first).display, other: style(second).display,
    wide: root.scrollWidth > root.clientWidth, paper: style(page.body).backgroundColor,
    tables: page.querySelectorAll("td").length };
};
onload = () => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(look));
};
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("is_dark", [False, True])
def test_in_a_browser_the_page_fits_a_phone_hides_curves_and_says_values(
    tmp_path, is_dark
):
    """Two frames 375 pixels wide, in the second one scripts are off."""
    html = escape(page.html(told(*two(tmp_path))))
    frames = "".join(
        f'<iframe width="375" height="700" {box} srcdoc="{html}"></iframe>'
        for box in ("", 'sandbox="allow-same-origin"')
    )
    outer = tmp_path / "outer.html"
    outer.write_text(f"<meta charset=utf-8><script>{LOOK}</script>{frames}")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update"]
    options += ["--disable-sync", "--disable-quic", f"--user-data-dir={tmp_path / 'd'}"]
    options += [f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"]
    command = [CHROMIUM, *options, "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    title = re.search("<title>(.*?)</title>", done.stdout)[1]
    live, still = json.loads(unescape(title))
    for seen in (live, still):
        assert not seen["wide"]
        assert (seen["hidden"], seen["other"]) == ("none", "inline")
        assert (seen["paper"] == "rgb(255, 255, 255)") != is_dark
        assert seen["tables"] > 20
    assert live["said"].splitlines() == [
        "a & b: 0.1 at 10 steps",
        "<c>: 0.1 at 10 steps",
    ]
    assert still["said"] == ""


STATISTICS, RUNS = "experiments.score.statistics", "experiments.reporting.runs"
CONTENT, CURVES = "experiments.reporting.content", "experiments.reporting.curves"
PAGE, LOOP = "experiments.reporting.page", "experiments.run.loop"
MUTANTS = [
    Mutant(
        "report",
        "ratios without logarithms",
        STATISTICS,
        one("(np.log, np.exp) if is_ratio", "(np.asarray, np.exp) if is_ratio"),
        test_paired_seeds_are_tested_as_scipy_tests_them,
        {"is_ratio": True},
    ),
    Mutant(
        "report",
        "seeds paired by their place",
        STATISTICS,
        one(
            "to(values[seed]) - to(first[seed]) for seed in seeds",
            "to(a) - to(b) for a, b in zip(values.values(), first.values())",
        ),
        test_paired_seeds_are_tested_as_scipy_tests_them,
        {"is_ratio": False},
    ),
    Mutant(
        "report",
        "every p times their number",
        STATISTICS,
        one("p[order] * np.arange(len(p), 0, -1)", "p[order] * len(p)"),
        test_p_values_are_corrected_by_hand_reckoning,
    ),
    Mutant(
        "report",
        "a corrected p below a smaller one's",
        STATISTICS,
        one("np.maximum.accumulate(p[order]", "np.asarray(p[order]"),
        test_p_values_are_corrected_by_hand_reckoning,
    ),
    Mutant(
        "report",
        "p corrected for no number",
        CONTENT,
        one(
            "statistics.holm([test.p for test in tests if test])",
            "[test.p for test in tests if test]",
        ),
        test_the_table_of_the_primary_metric_holds_means_tests_and_corrections,
    ),
    Mutant(
        "report",
        "the mean of all but the ends called interquartile",
        STATISTICS,
        one("axis), 0.25, axis)", "axis), 0.1, axis)"),
        test_the_interquartile_mean_has_the_interval_of_its_standard_error,
    ),
    Mutant(
        "report",
        "a bootstrap across strata",
        STATISTICS,
        one(
            "np.asarray(values, np.float64) for values in strata",
            "np.concatenate(strata)",
        ),
        test_the_bootstrap_draws_within_each_stratum,
    ),
    *(
        Mutant(
            "report",
            f"definitions without {says}",
            RUNS,
            one(old, new),
            test_figures_of_other_definitions_never_share_a_column,
            {"other": other},
        )
        for says, old, new, other in (
            (
                "the metric",
                "found = dict(self.metrics.get(name, {}))",
                "found = {'better': 'low', 'unit': 'per element'}",
                {"version": 2},
            ),
            (
                "the number of rows",
                'found["rows"] or self',
                "0 and self",
                {"num_examples": 32},
            ),
            ("the task", 'LAW = ("task", "data")', "LAW = ()", {"task__n": 5}),
        )
    ),
    Mutant(
        "report",
        "an earlier result passes for that of a run that goes on",
        RUNS,
        one('< rows[-1]["step"]', '< 0 * rows[-1]["step"]'),
        test_a_run_that_is_trained_on_is_not_finished,
    ),
    Mutant(
        "report",
        "runs of other metrics are pooled",
        RUNS,
        one("[config, *scored]", "[config]"),
        test_figures_of_other_definitions_never_share_a_column,
        {"other": {"version": 2}},
        error=UserError,
    ),
    Mutant(
        "report",
        "one loss whatever the objectives",
        RUNS,
        one('(*LAW, "objectives", "loss")', "LAW"),
        test_the_loss_of_other_objectives_is_another_quantity,
    ),
    Mutant(
        "report",
        "of runs with several seeds the first one alone",
        RUNS,
        one(
            "for run in self.runs\n            for seed, scores",
            "for run in self.runs[:1]\n            for seed, scores",
        ),
        test_many_seeds_in_many_directories_are_one_config,
    ),
    Mutant(
        "report",
        "one seed, where a run has not finished",
        CONTENT,
        one("len(of) or group.runs[0].num_seeds", "len(of) or 1"),
        test_a_run_that_is_not_finished_has_the_interval_of_its_seeds,
    ),
    Mutant(
        "report",
        "several runs get the name of another",
        RUNS,
        one(
            "found, names = [], {run.name for run in runs}", "found, names = [], set()"
        ),
        test_no_two_configs_have_one_name,
    ),
    Mutant(
        "report",
        "a seed counted twice",
        RUNS,
        one("if seed in seen:", "if False:"),
        test_many_seeds_in_many_directories_are_one_config,
        error=pytest.fail.Exception,
    ),
    Mutant(
        "report",
        "seeds called a difference",
        RUNS,
        one("name not in SEEDS and len", "len"),
        test_what_differs_comes_first,
    ),
    Mutant(
        "report",
        "a band of normal quantiles over runs",
        CONTENT,
        one(
            "_, half = statistics.interval(values)",
            "half = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5",
        ),
        test_a_band_is_the_interval_over_runs_and_of_one_run_its_own,
    ),
    Mutant(
        "report",
        "a step that one run did not log",
        CONTENT,
        one(
            "if all(step in of for of in by_step)",
            "if any(step in of for of in by_step)",
        ),
        test_a_band_is_the_interval_over_runs_and_of_one_run_its_own,
        error=KeyError,
    ),
    Mutant(
        "report",
        "curves of what is in the last lines alone",
        CONTENT,
        one("for row in run.rows for key", "for row in run.rows[-50:] for key"),
        test_a_curve_stays_where_many_lines_follow_its_last_point,
    ),
    Mutant(
        "report",
        "curves upside down",
        CURVES,
        one("HEIGHT - BOTTOM, TOP, is_log", "TOP, HEIGHT - BOTTOM, is_log"),
        test_a_point_stands_where_the_ticks_say,
    ),
    Mutant(
        "report",
        "a band below 0 left out of a logarithmic axis",
        CURVES,
        one("-np.inf, np.log10(values)", "np.nan, np.log10(values)"),
        test_a_wide_range_is_logarithmic_and_a_band_below_0_ends_at_the_floor,
        error=ValueError,
    ),
    Mutant(
        "report",
        "a line across what is not there",
        CURVES,
        one("np.flatnonzero(np.diff(index) > 1) + 1", "[]"),
        test_a_wide_range_is_logarithmic_and_a_band_below_0_ends_at_the_floor,
    ),
    Mutant(
        "report",
        "the last point of a long curve lost",
        CURVES,
        one(
            "np.linspace(0, count - 1,",
            "np.linspace(0, count - 1, endpoint=False, num=",
        ),
        test_a_long_curve_keeps_its_ends_and_says_the_values_of_some_points,
    ),
    Mutant(
        "report",
        "names not escaped",
        CURVES,
        one('escape(f"{series.name}', '(f"{series.name}'),
        test_a_long_curve_keeps_its_ends_and_says_the_values_of_some_points,
    ),
    Mutant(
        "report",
        "a device called free",
        CONTENT,
        one("s * count / 3600", "s / 3600"),
        test_device_time_and_cost_are_those_of_the_steps,
    ),
    Mutant(
        "report",
        "studies of an earlier step pass for today's",
        "experiments.reporting.studies",
        one('["step"] != run.step', '["step"] > run.step'),
        test_studies_that_lie_with_a_run_are_told_and_others_named_by_command,
        error=AttributeError,
    ),
    Mutant(
        "watch",
        "at every line",
        "experiments.run.meter",
        one("not self._seconds or now", "not self._seconds or 0 and now"),
        test_a_run_is_watched_in_place_until_it_ends,
    ),
    Mutant(
        "watch",
        "a finished page is read again",
        "experiments.reporting.watch",
        one("self._try(None)", "self._try(self._seconds)"),
        test_a_run_is_watched_in_place_until_it_ends,
    ),
    Mutant(
        "watch",
        "a page that cannot be written ends the training",
        "experiments.reporting.watch",
        one("except Exception", "except AttributeError"),
        test_a_page_that_cannot_be_written_ends_no_training,
        {"text": "{"},
        error=UserError,
    ),
    Mutant(
        "watch",
        "what is wrong is said at every line",
        "experiments.reporting.watch",
        one("self._is_said = True", "pass"),
        test_a_page_that_cannot_be_written_ends_no_training,
        {"text": "{"},
    ),
    Mutant(
        "watch",
        "compiled to ask for its memory and once more to run",
        "experiments.run.programs",
        one(
            "return experiment.dispatch(phase).lower(*shapes).compile()",
            "experiment.dispatch(phase).lower(*shapes)\n"
            "            return experiment.dispatch(phase).lower(*shapes).compile()",
        ),
        test_each_phase_is_traced_once_and_the_page_is_there_at_the_end,
    ),
    Mutant(
        "watch",
        "donated memory counted twice",
        "experiments.startup",
        one("outside -= size.alias_size_in_bytes", "pass"),
        test_memory_counts_donated_arguments_once_and_an_old_rate_tells_the_time,
    ),
    Mutant(
        "report",
        "the version of a metric not recorded",
        "experiments.score.records",
        one("(unit, better, version(task, name))", "(unit, better)"),
        test_a_metric_says_its_version,
    ),
    Mutant(
        "report",
        "what stands in a page runs as code",
        PAGE,
        one("{mark}{escape(label)}", "{mark}{label}"),
        test_the_page_says_all_that_markdown_says_and_needs_no_other_file,
    ),
]
