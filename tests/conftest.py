"""Settings of the whole suite: silent broadcasting of ranks is an error."""

import os
import shutil
import tempfile
from pathlib import Path

import chex
import jax
import pytest

# Tests run each program a few times, so that most of their time would be compilation.
# XLA ends the process at a flag that it does not know, as a later one may the second.
QUICK = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)

from experiments import cli  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


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


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """chex counts traces globally: each test starts at zero."""
    chex.clear_trace_counter()


@pytest.fixture
def folder():
    """One that anybody can reach."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for each in (path, *path.rglob("*")):
        each.chmod(0o755)
    shutil.rmtree(path)
