"""The report's sections of other commands: whose figures they are, beside which."""

import json
import re
from pathlib import Path

from experiments.reporting import curves, page
from tests.mutants import Mutant, one
from tests.test_report import charts, told, write_run

CONTENT = "experiments.reporting.content"


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


def write(folder: Path, name: str, of_runs: dict[str, dict]) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"num_examples": 64, "runs": of_runs}))
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


MUTANTS = [
    Mutant(
        "report",
        "runs of several seeds have no place",
        CONTENT,
        one("of_runs | {name", "{name"),
        test_the_seeds_of_a_config_have_its_colour_and_its_box,
        error=KeyError,
    ),
]
