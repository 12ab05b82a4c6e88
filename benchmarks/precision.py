"""What does the precision of products cost in accuracy?

    python -m benchmarks.precision

In each format, against float32: the variance of plain chains over that of their exact
discrete law, on an energy that is a product, with its standard error; with the same
noise, how much of it is the format's; and the relative error of gradients of both
energies at their first parameters, in y and, for the denoising loss, in the parameters.
Nothing is timed. For an accelerator: on a CPU all of them compute float32.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from benchmarks import harness
from ired_jax import diffusion
from ired_jax.energies.matrix import make_matrix
from ired_jax.energies.mlp import make_mlp
from ired_jax.precision import PRECISIONS, in_precision
from ired_jax.samplers import langevin
from ired_jax.tasks.inverse import make_inverse
from ired_jax.types import Array, Energy, bind

SIZE = 100  # elements of a chain
STEPS, STEP = 10, 0.25  # the default chain, at s = 1
ENERGIES = {
    "mlp": (20, lambda d: make_mlp(d, d)),
    "matrix": (10, lambda d: make_matrix()),
}
ROWS = 64


def product_energy() -> Energy:
    """U = |y Q|^2 / 2 at an orthogonal matrix Q: a standard normal."""

    def energy_at(weight, y):
        return jnp.sum((y @ weight) ** 2) / 2

    def bind_at(weight, x, t):
        del x, t
        return Partial(energy_at, weight)

    return Energy(
        lambda key: jax.random.orthogonal(key, SIZE),
        lambda weight, x, y, t: energy_at(weight, y),
        bind_at,
    )


def chain_ends(precision: str, count: int) -> np.ndarray:
    """The ends of `count` chains from 1.5 in every element: [count, SIZE]."""
    energy = in_precision(product_energy(), precision)
    weight = energy.init(jax.random.key(0))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def chains(key, weight):
        start, zero = jnp.full(SIZE, 1.5), jnp.int32(0)
        landscape = bind(energy, weight, start, zero)
        options = {"step_size": STEP, "temperature": 1.0, "num_steps": STEPS}
        return langevin.sample(key, landscape, start, **options)[0]

    return np.float64(chains(jax.random.split(jax.random.key(1), count), weight))


def gradients(name: str, precision: str) -> tuple[Array, Array]:
    """Of E in y, and of the denoising loss in the parameters, each flat."""
    n, make = ENERGIES[name]
    energy, schedule = make(n * n), diffusion.make_schedule("cosine", 10)
    params = energy.init(jax.random.key(0))
    energy, source = in_precision(energy, precision), make_inverse(n=n).train
    keys = jax.random.split(jax.random.key(1), ROWS)
    x, y0 = jax.vmap(partial(source.draw, source.data))(keys)
    t = jnp.arange(ROWS) % schedule.num_levels
    eps = jax.random.normal(jax.random.key(2), y0.shape)
    y = jax.vmap(partial(diffusion.q_sample, schedule))(y0, t, eps)

    def loss(params):
        grad = jax.vmap(jax.grad(energy, argnums=2), (None, 0, 0, 0))(params, x, y, t)
        return jnp.mean((grad - eps) ** 2), grad

    of_params, of_y = jax.jit(jax.grad(loss, has_aux=True))(params)
    return of_y.reshape(-1), ravel_pytree(of_params)[0]


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], batch_size=20_000)
    flags = harness.start(flags.parse_args(argv))
    r = 1 - STEP
    law = 2 * STEP * (1 - r ** (2 * STEPS)) / (1 - r**2)
    rows, exact = [], {}
    for precision in PRECISIONS:
        ends = chain_ends(precision, flags.batch_size)
        ratio, error = np.var(ends) / law, (2 / ends.size) ** 0.5
        same = exact.setdefault("chain", np.var(ends))
        row = {"work": "variance", "system": precision, "ratio": ratio, "stderr": error}
        rows.append(row | {"of_format": np.var(ends) / same - 1})
        print(
            f"{precision}: variance {ratio:.5f} +- {error:.5f} of the law's,"
            f" {rows[-1]['of_format']:+.1e} of float32's with the same noise"
        )
        for name in ENERGIES:
            found = gradients(name, precision)
            of_y, of_params = (
                float(np.linalg.norm(a - b) / np.linalg.norm(b))
                for a, b in zip(found, exact.setdefault(name, found), strict=True)
            )
            row = {"work": f"gradients, {name}", "system": precision}
            rows.append(row | {"of_y": of_y, "of_params": of_params})
            print(
                f"{precision}: gradients of {name} at n = {ENERGIES[name][0]}:"
                f" in y {of_y:.1e}, in the parameters {of_params:.1e}"
            )
    harness.record("precision", flags, rows)


if __name__ == "__main__":
    main()
