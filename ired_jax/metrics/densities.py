"""Densities on a grid: what exp(-U) is normalised to, and how far it is from the truth.

Sums over a grid of equal cells, at their centres. For a smooth density that is 0 at the
sides of the box, and cells no wider than its sharpest feature's standard deviation, the
error of such a sum is below float32's: trapezoids of analytic functions converge
exponentially (Trefethen, Weideman, SIAM Review 56(3), 2014).
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax.types import Array


class Grid(NamedTuple):
    """Cells of a square [-half_width, half_width]^2."""

    half_width: float
    cells: int  # along a side

    @property
    def points(self) -> Array:
        """Centres of the cells, [cells^2, 2] float32, the second index fastest."""
        width = 2 * self.half_width / self.cells
        side = (jnp.arange(self.cells) + 0.5) * width - self.half_width
        return jnp.stack(jnp.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)

    @property
    def log_area(self) -> Array:
        """log of a cell's area: ()."""
        return 2 * jnp.log(2 * self.half_width / self.cells)


def log_normalised(grid: Grid, log_values: Array) -> Array:
    """log of the density proportional to exp(log_values) on the box: [cells^2].

    Its values times the area of a cell add up to 1.
    """
    chex.assert_shape(log_values, (grid.cells**2,))
    return log_values - jax.nn.logsumexp(log_values) - grid.log_area


def kl_divergence(grid: Grid, log_p: Array, log_q: Array) -> Array:
    """KL(p | q) = integral of p (log p - log q) over the box, both normalised: () nats.

    Args:
      grid: the cells.
      log_p, log_q: [cells^2], up to constants; p may be 0 (-inf), q only where p is.
    """
    log_p, log_q = log_normalised(grid, log_p), log_normalised(grid, log_q)
    p = jnp.exp(log_p + grid.log_area)
    return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0.0))


def log_density(grid: Grid, energy_fn: Callable[[Array], Array]) -> Array:
    """log of exp(-energy_fn) normalised on the box: energy_fn y [2] -> () in nats.

    A block of points at a time, so that a network's activations fit a cache.
    """
    return log_normalised(
        grid, -jax.lax.map(energy_fn, grid.points, batch_size=min(4096, grid.cells**2))
    )
