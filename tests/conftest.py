"""Settings of the whole suite: silent broadcasting of ranks is an error."""

import os

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
    os.environ["XDG_CACHE_HOME"] = str(config.cache.mkdir("home"))
    cli.enable_compilation_cache()


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """chex counts traces globally: each test starts at zero."""
    chex.clear_trace_counter()
