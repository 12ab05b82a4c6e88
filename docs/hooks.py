"""Brings into the site what lies outside docs/, and notebooks, as pages.

Links are written for readers of the repository. In the site README.md is the first
page, a notebook is a page without its outputs, and any other file that a page links to
is a page that shows it. mkdocs.yml names this file; a test imports it without mkdocs.
"""

import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def place(path: str) -> str:
    """Where in the site a file of the repository is found."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    return f"files/{path}.md"


def target(link: str, origin: str) -> str | None:
    """The file of the repository that a link of `origin` means, if it is one."""
    path = os.path.normpath(os.path.join(os.path.dirname(origin), link))
    return path if (ROOT / path).is_file() else None


def relinked(text: str, origin: str) -> str:
    """The text of `origin` with its links as they are in the site."""
    folder = os.path.dirname(place(origin)) or "."

    def moved(match: re.Match) -> str:
        path = target(match[1], origin)
        if path is None:
            return match[0]
        return f"]({os.path.relpath(place(path), folder)}{match[2] or ''})"

    return LINK.sub(moved, text)


def as_page(notebook: str) -> str:
    """A notebook as Markdown, its code in fences."""
    parts = []
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        parts.append(f"```python\n{source}\n```" if is_code else source)
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """{file of the repository: Markdown} of all pages, with the files they link to."""
    found = {}
    for path in sorted((ROOT / "docs").rglob("*.*")):
        if path.suffix == ".md":
            found[str(path.relative_to(ROOT))] = path.read_text()
        elif path.suffix == ".ipynb" and ".ipynb_checkpoints" not in path.parts:
            found[str(path.relative_to(ROOT))] = as_page(path.read_text())
    found |= {path: (ROOT / path).read_text() for path in OUTSIDE}
    for origin, text in list(found.items()):
        for link, _ in LINK.findall(text):
            path = target(link, origin)
            if path and path not in found and not path.startswith("docs/"):
                content = (ROOT / path).read_text()
                language = "python" if path.endswith(".py") else "text"
                found[path] = f"# {path}\n\n````{language}\n{content}````\n"
    return found


def on_files(files, config):
    """Called by mkdocs: replaces all pages by those above."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_uri.endswith((".md", ".ipynb")):
            files.remove(file)
    for origin, text in pages().items():
        content = relinked(text, origin)
        files.append(File.generated(config, place(origin), content=content))
    return files
