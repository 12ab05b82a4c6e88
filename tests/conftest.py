"""Settings of the whole suite: silent broadcasting of ranks is an error."""

import gc
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import chex
import jax
import pytest

# Tests run each program a few times, so that most of their time would be compilation.
# XLA ends the process at a flag that it does not know, as later ones may these.
QUICK = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
    QUICK += " --xla_cpu_parallel_codegen_split_count=1"
    QUICK += " --xla_llvm_disable_expensive_passes=true"
os.environ.setdefault("XLA_FLAGS", QUICK)
# Nor is the line that each operation comes from written into each program.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # of children; ours has begun
jax.config.update("jax_traceback_in_locations_limit", 0)

from experiments import cli  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


# What JAX traces is many objects that live long: to look for garbage among them less
# often saves a twentieth.
gc.set_threshold(50_000, 20, 100)


def pytest_configure(config):
    """The same small programs are met in many tests: each is compiled once."""
    cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
    if cache:
        os.environ["XDG_CACHE_HOME"] = str(cache.mkdir("home"))
    else:
        home = tempfile.TemporaryDirectory(prefix="ired_jax-tests-")
        config.add_cleanup(home.cleanup)
        os.environ["XDG_CACHE_HOME"] = home.name
    cli.enable_compilation_cache()


def pytest_collection_modifyitems(items):
    """Longest first, so that no worker waits for another's last test."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


# JAX keeps each lowered module alive, and each later lowering walks through them all:
# after a thousand tests a small operation takes 50 ms for 10, and a worker holds 6 GB.
FORGET_EVERY = 200
_number = itertools.count(1)


@pytest.fixture(autouse=True)
def _own_globals():
    """chex counts traces, and benchmarks set the precision of products, globally."""
    if next(_number) % FORGET_EVERY == 0:
        jax.clear_caches()
    chex.clear_trace_counter()
    before = jax.config.jax_default_matmul_precision
    yield
    jax.config.update("jax_default_matmul_precision", before)


@pytest.fixture
def folder():
    """One that anybody can reach."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for each in (path, *path.rglob("*")):
        each.chmod(0o755)
    shutil.rmtree(path)
