"""The direction of the arrows, read from the source: who may import whom, and what.

Each check is a function of source text, tried on planted violations before it is
trusted with the repository.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each room of the library may import of the library, by prefix of module names.
# Rooms that are not listed stand above these and may import any of them.
BASE = ("types", "trees", "boxes", "fields")
ROOMS = {
    "types": (),
    "fields": (),
    "graphs": ("types",),
    "trees": ("types",),
    "boxes": ("types", "trees"),
    "diffusion": BASE,
    "energies": (*BASE, "diffusion", "energies"),
    "samplers": (*BASE, "diffusion", "samplers"),
    "replay": BASE,
    "losses": BASE,
    "precision": BASE,
    "blocks": BASE,
    "metrics": (*BASE, "metrics"),
    "tasks": (*BASE, "diffusion", "graphs", "metrics", "tasks.base"),
    "negatives": (
        *(*BASE, "blocks", "diffusion", "losses", "precision"),
        *("samplers", "negatives"),
    ),
}
# The library has no flags, config objects, files, logs or clocks.
FOREIGN = {"ml_collections", "absl", "orbax", "experiments", "configs", "benchmarks"}
FOREIGN |= {"tests", "time", "datetime", "os", "pathlib", "io", "logging", "sys"}
FOREIGN |= {"shutil", "tempfile", "json", "pickle", "random", "rich", "torch"}
FOREIGN |= {"matplotlib", "tensorboardX"}
BUILTINS = {"open", "print", "input", "exec", "eval", "__import__"}


def imports_of(source, module, is_package=False):
    """Every dotted name that a module's source imports, wherever in it.

    `from a import b` gives `a.b`, which may name a module or something in `a`; a
    relative import is resolved against `module`.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + is_package
                base = ".".join([*parts[:keep], *filter(None, [base])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def _is_within(name, prefix):
    return name == prefix or name.startswith(prefix + ".")


def forbidden_in_room(room, source, module, is_package=False):
    """Imports of the library that the room may not have."""
    allowed = tuple(f"ired_jax.{name}" for name in ROOMS[room])
    return {
        name
        for name in imports_of(source, module, is_package)
        if _is_within(name, "ired_jax")
        and not any(_is_within(name, prefix) for prefix in allowed)
    }


def foreign_to_library(source, module, is_package=False):
    """Imports and builtins that the library may not use."""
    imported = {
        name
        for name in imports_of(source, module, is_package)
        if name.split(".")[0] in FOREIGN
    }
    called = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return imported | called & BUILTINS


def jit_uses(source):
    """Names and attributes called jit or pmap, and imports of them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        found |= {name for name in names if name in ("jit", "pmap", "filter_jit")}
    return found


def not_for_configs(source, module, is_package=False):
    """Imports of a config other than ml_collections and configs."""
    return {
        name
        for name in imports_of(source, module, is_package)
        if not _is_within(name, "ml_collections") and not _is_within(name, "configs")
    }


def _modules(folder):
    """(dotted name, source, whether it is a package) of every file of a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield (
            ".".join(parts[:-1] if is_package else parts),
            path.read_text(),
            is_package,
        )


LIBRARY = list(_modules("ired_jax"))


def _room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_every_room_is_there():
    rooms = {_room(module) for module, _, _ in LIBRARY}
    assert set(ROOMS) <= rooms


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room):
    for module, source, is_package in LIBRARY:
        if _room(module) == room:
            assert not forbidden_in_room(room, source, module, is_package), module


def test_the_library_has_no_flags_configs_files_logs_or_clocks():
    for module, source, is_package in LIBRARY:
        assert not foreign_to_library(source, module, is_package), module


def test_the_library_never_jits():
    for module, source, _ in LIBRARY:
        assert not jit_uses(source), module


def test_configs_import_only_ml_collections_and_each_other():
    configs = list(_modules("configs"))
    assert any(module == "configs.base" for module, _, _ in configs)
    for module, source, is_package in configs:
        # Presets look up which fields there are; a sweep is made of types.
        if module not in ("configs.base", "configs.sweeps.base"):
            assert not not_for_configs(source, module, is_package), module


def test_no_file_but_its_own_knows_a_task():
    """Tasks and views are found by name: nothing imports one but its own view."""
    folders = ("ired_jax", "experiments", "configs")
    modules = [module for folder in folders for module in _modules(folder)]
    own = {name.rpartition(".")[2] for name, _, _ in modules if ".tasks." in name}
    own -= {"base"}
    assert "inverse" in own
    for module, source, is_package in modules:
        for name in imports_of(source, module, is_package):
            for task in own:
                named = any(
                    _is_within(name, f"{room}.{task}")
                    for room in ("ired_jax.tasks", "experiments.views")
                )
                assert not named or module.rpartition(".")[2] == task, (module, name)


def test_the_oracles_import_nothing_of_the_library():
    source = (ROOT / "tests" / "references.py").read_text()
    tops = {name.split(".")[0] for name in imports_of(source, "tests.references")}
    assert not tops & {"ired_jax", "jax", "flax", "optax", "chex", "tests"}


def test_imports_are_absolute():
    for folder in ("ired_jax", "configs", "experiments", "tests", "benchmarks"):
        for module, source, _ in _modules(folder):
            for node in ast.walk(ast.parse(source)):
                assert not (isinstance(node, ast.ImportFrom) and node.level), module


@pytest.mark.parametrize(
    "room, source",
    [
        ("energies", "from ired_jax import replay"),
        ("energies", "from ired_jax.samplers import langevin"),
        ("samplers", "import ired_jax.replay"),
        ("samplers", "from ired_jax.energies.mlp import make_mlp"),
        ("replay", "def f():\n    from ired_jax.tasks import inverse"),
        ("tasks", "from ired_jax.tasks.inverse import make_inverse"),
        ("tasks", "from ired_jax import losses"),
        ("tasks", "from ..samplers import descent"),
        ("losses", "from ired_jax.training import TrainState"),
        ("negatives", "from ired_jax.objectives import pairs"),
        ("types", "from ired_jax import diffusion"),
        ("diffusion", "import ired_jax"),
    ],
)
def test_a_planted_import_against_the_arrows_is_seen(room, source):
    assert forbidden_in_room(room, source, f"ired_jax.{room}.new")


def test_allowed_imports_pass():
    for room, source in (
        ("energies", "from ired_jax.types import Array\nimport jax"),
        ("energies", "from ired_jax.energies import mlp"),
        ("samplers", "from ired_jax import diffusion\nfrom ired_jax import samplers"),
        ("tasks", "from ired_jax.tasks.base import Task"),
    ):
        assert not forbidden_in_room(room, source, f"ired_jax.{room}.new")
    assert not foreign_to_library("import jax.random\nimport numpy", "ired_jax.new")
    assert not not_for_configs("from configs import base", "configs.new")
    assert not jit_uses("import jax\njax.vmap(f)")


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "def f():\n    import os.path",
        "from absl import flags",
        "from ml_collections import ConfigDict",
        "import orbax.checkpoint as ocp",
        "from experiments.build import build",
        "from configs import base",
        "open('file')",
        "def f():\n    print(1)",
    ],
)
def test_a_planted_flag_file_or_clock_is_seen(source):
    assert foreign_to_library(source, "ired_jax.new")


@pytest.mark.parametrize(
    "source",
    [
        "import jax\nf = jax.jit(g)",
        "import jax\n@jax.jit\ndef f(): ...",
        "from jax import jit",
        "from functools import partial\nimport jax\nf = partial(jax.jit, donate=0)(g)",
    ],
)
def test_a_planted_jit_is_seen(source):
    assert jit_uses(source)


@pytest.mark.parametrize(
    "source",
    ["import jax", "from experiments import build", "from ired_jax import losses"],
)
def test_a_planted_import_of_a_config_is_seen(source):
    assert not_for_configs(source, "configs.new")
