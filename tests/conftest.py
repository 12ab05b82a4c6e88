"""Settings of the whole suite: silent broadcasting of ranks is an error."""

import os

# Tests run each program a few times: less optimization halves the suite's time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import chex
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """chex counts traces globally: each test starts at zero."""
    chex.clear_trace_counter()
