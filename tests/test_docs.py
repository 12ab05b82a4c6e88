"""README and docs: every block of Python runs, every name and link in them exists.

Each check is a function of text, tried on planted violations before it is trusted.
"""

import ast
import functools
import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import ired_jax as ij
from docs import hooks
from examples import landscape, ratios, sorting, sorting_config
from experiments.build import build
from tests import mutants

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
PAGES += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))
WRITTEN = [page for page in PAGES if page != "docs/fields.md"]  # that one is generated
TABLE_WIDTH = 80


def blocks(text):
    """The Python blocks of a page; a block marked otherwise is not one."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)


def prose(text):
    """A page without its fenced and indented code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    return re.sub(r"^    .*$", "", text, flags=re.M)


def wide_rows(text):
    """Rows of tables that a terminal of 80 columns would break."""
    rows = [line for line in prose(text).splitlines() if line.startswith("|")]
    return [row for row in rows if len(row) > TABLE_WIDTH]


def bare_numbers(text):
    """Numbers without their leading zero."""
    return re.findall(r"(?<![\w.])\.\d+(?:e-?\d+)?", prose(text))


def slugs(text):
    """The anchors of a page's headings, as the usual renderers name them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def broken_links(text, page):
    """Relative links of a page to a file or a heading that is not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        is_there = file.exists()
        if is_there and anchor:
            is_there = anchor in slugs(text if file == page else file.read_text())
        if not is_there:
            broken.append(target)
    return broken


@functools.cache
def functions_of(path):
    """The names of all functions of a file, none where there is no file."""
    text = (ROOT / path).read_text() if (ROOT / path).exists() else ""
    nodes = ast.walk(ast.parse(text))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def unknown_tests(text):
    """Names `tests/test_x.py::test_y` that no file defines."""
    unknown = []
    for path, name in re.findall(r"(tests/\w+\.py)::(\w+)", text):
        if name not in functions_of(path):
            unknown.append(f"{path}::{name}")
    return unknown


def unknown_files(text):
    """Configs, commands and benchmarks that a page names and that are not there."""
    named = set(re.findall(r"\b(?:configs|examples)/\w+\.py\b", text))
    modules = re.findall(
        r"python -m ((?:experiments|benchmarks|examples)(?:\.\w+)+)", text
    )
    named |= {f"{module.replace('.', '/')}.py" for module in modules}
    return sorted(name for name in named if not (ROOT / name).exists())


def read(page):
    return (ROOT / page).read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(read(page))])
def test_the_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for index, block in enumerate(blocks(read(page))):
        exec(compile(block, f"{page}, block {index}", "exec"), names)


@pytest.mark.parametrize("page", WRITTEN)
def test_a_page_can_be_read_in_a_terminal(page):
    assert not wide_rows(read(page))


@pytest.mark.parametrize("page", WRITTEN)
def test_numbers_have_their_leading_zero(page):
    assert not bare_numbers(read(page))


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    text = read(page)
    assert not broken_links(text, ROOT / page)
    assert not unknown_tests(text)
    assert not unknown_files(text)


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= 120


def test_every_page_can_be_reached_from_the_readme():
    seen, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s:]+\.md)", page.read_text())
        new |= {(page.parent / target).resolve() for target in targets} - seen
    assert {ROOT / page for page in PAGES} <= seen


def site():
    """The pages of the site, {place: Markdown}, linked as they are there."""
    pages = hooks.pages()
    return {hooks.place(path): hooks.relinked(pages[path], path) for path in pages}


def in_nav(text):
    """The pages that the navigation of mkdocs.yml names."""
    return re.findall(r"([\w/]+\.md)$", text.partition("\nnav:")[2], re.M)


def broken_site_links(pages):
    """Links of the site's pages to a page, a picture or a heading that is not there."""
    broken = []
    for place, text in pages.items():
        for path, anchor in hooks.LINK.findall(prose(text)):
            if re.match(r"\w+:", path):
                continue
            to = os.path.normpath(os.path.join(os.path.dirname(place), path))
            there = to in pages or (ROOT / "docs" / to).is_file()
            if there and anchor:
                there = anchor[1:] in slugs(pages[to])
            if not there:
                broken.append((place, path + anchor))
    return broken


def test_every_page_is_in_the_navigation_of_the_site_and_every_entry_is_a_page():
    entries = in_nav(read("mkdocs.yml"))
    pages = {place for place in site() if not place.startswith("files/")}
    assert len(entries) == len(set(entries))
    assert set(entries) == pages


def test_every_link_of_the_site_leads_somewhere():
    assert not broken_site_links(site())


def test_the_page_of_public_names_has_all_of_them_once():
    names = re.findall(r"^::: ired_jax\.(\w+)$", read("docs/api.md"), re.M)
    assert sorted(names) == sorted(set(ij.__all__) - {"__version__"})


def test_the_citation_has_the_version_of_the_library():
    assert f"\nversion: {ij.__version__}\n" in read("CITATION.cff")


def test_every_known_bug_has_its_place_and_its_test():
    text = read("docs/known_bugs.md").partition("## Wrong diagnoses")[0]
    sections = re.split(r"^### ", text, flags=re.M)[1:]
    found = {}
    for section in sections:
        title, _, body = section.partition("\n")
        found |= dict.fromkeys(title.split(", "), body)
    assert set(found) == set(mutants.KNOWN_BUGS)
    for name, body in found.items():
        for part in ("Was", "Must be true", "Verdict", "Test"):
            assert f"- **{part}**: " in body, (name, part)


def test_the_figure_of_ratios_has_the_numbers_of_its_page():
    page = read("docs/results/inverse.md")
    for study in json.loads(ratios.NUMBERS.read_text())["studies"]:
        for split in ratios.SPLITS:
            ratio, low, high = study[split]
            shown = rf"{ratio:g}0* \[{low:g}0*, {high:g}0*\]"
            assert re.search(shown, page), (study["label"], split)


def test_a_figure_is_drawn_in_a_small_file(tmp_path):
    landscape.draw(str(tmp_path / "landscape.png"), num_starts=2, cells=8)
    ratios.draw(str(tmp_path / "ratios.png"))
    for name in ("landscape.png", "ratios.png"):
        assert (tmp_path / name).stat().st_size > 1_000
        assert (ROOT / "docs" / "pictures" / name).stat().st_size < 100 * 1024


def test_on_the_landscape_of_the_picture_inference_ends_at_answers():
    """The ends of inference are the given answers, and not all the same one."""
    schedule = landscape.ij.make_schedule("cosine", 10)
    ends = np.asarray(landscape.solve_many(schedule, 24))[:, -1]
    away = np.linalg.norm(ends[:, None] - np.asarray(landscape.ANSWERS), axis=-1)
    assert np.all(away.min(axis=1) < 0.05)
    assert len(set(away.argmin(axis=1))) > 1


def test_sorting_learns_with_the_library_alone():
    """Better than 0 for every number, whose error is the variance of U(-1, 1)."""
    assert sorting.main(["--num_steps=60"])["mse"] < 0.9 / 3


def test_sorting_is_a_task_of_the_commands_too():
    experiment = build(sorting_config.get_config("smoke"))
    assert experiment.task.example.y.shape == (8,)
    _, metrics = experiment.dispatch()(experiment.init_state(), ())
    assert np.isfinite(jax.device_get(metrics["train/loss"])).all()


@pytest.mark.parametrize(
    "check, text",
    [
        (wide_rows, f"| {'a' * 80} |"),
        (bare_numbers, "an error of .19 [0.1, 0.3]"),
        (bare_numbers, "| a | -.5 |"),
        (lambda text: broken_links(text, ROOT / "README.md"), "[a](docs/none.md)"),
        (lambda text: broken_links(text, ROOT / "README.md"), "[a](#no-heading)"),
        (unknown_tests, "`tests/test_docs.py::test_that_is_not_there`"),
        (unknown_tests, "`tests/test_none.py::test_a`"),
        (unknown_files, "--config=configs/none_such.py"),
        (unknown_files, "python -m experiments.none_such"),
        (lambda text: broken_site_links({"a/b.md": text}), "[a](none.md)"),
        (lambda text: broken_site_links({"a/b.md": text}), "[a](b.md#no-heading)"),
    ],
)
def test_a_planted_flaw_is_seen(check, text):
    assert check(text)


def test_code_and_words_with_points_are_no_numbers():
    assert not bare_numbers("0.19, 1.5e-3, `a.5`, ..\n\n    x = .5\n")
    assert blocks("```python\na\n```\n```python no-run\nb\n```\n") == ["a\n"]
