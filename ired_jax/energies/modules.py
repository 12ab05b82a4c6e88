"""Flax's modules without the initial values that Flax traces at every apply.

To compare the shape of each parameter with that of its initial value, Flax traces the
initializer again whenever a network is applied: a sixth of the time that it takes to
trace one. Zeros of the same shape say the same. And what makers and derivatives by
hand need.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn


class Module(nn.Module):
    """A module whose parameters are drawn when they are made, and only then."""

    @nn.nowrap
    def param(
        self, name: str, init_fn: Callable, *init_args: Any, **options: Any
    ) -> Any:
        if self.has_variable("params", name):
            init_fn = nn.initializers.zeros
        return super().param(name, init_fn, *init_args, **options)


class Dense(Module, nn.Dense):
    """Flax's own."""


def refuse_below_one(**sizes: int) -> None:
    """Raises ValueError, which names all of them, unless each is at least 1."""
    if min(sizes.values()) < 1:
        named = ", ".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(f"{named}: at least 1 each")


def matmul_precision() -> str | None:
    """JAX's `default_matmul_precision` where this is traced; None: JAX's own default.

    For derivatives written by hand, which are traced where it does not hold any more.
    """
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
