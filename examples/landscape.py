"""Draws the landscapes of a toy energy from smooth to sharp, and inference on them.

    python -m examples.landscape --output=docs/pictures/landscape.png

Four answers in the plane, one of them twice as likely. The energy of level t is
known in closed form, E_t = -s_t log p_t(y): no network, nothing is trained. White
crosses are the answers, red dots where 24 inferences stand after each level; noise at
each hand-over leads them to different answers.
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import ired_jax as ij

matplotlib.use("agg")
import matplotlib.pyplot as plt

ANSWERS = jnp.array([[1.0, 0.9], [-1.1, 0.6], [-0.5, -1.1], [0.9, -0.8]])
WEIGHTS = jnp.array([0.4, 0.2, 0.2, 0.2])
LEVELS = (9, 6, 3, 0)
HALF_WIDTH = 2.0


def energy_fn(schedule: ij.Schedule, y, t):
    """E_t(y) = -s_t log sum_k w_k exp(-|y - a_t y_k|^2 / (2 s_t^2)): ()."""
    a, s = schedule.a[t], schedule.s[t]
    squares = jnp.sum((y[None] - a * ANSWERS) ** 2, axis=-1)
    return -s * jax.nn.logsumexp(-squares / (2 * s**2), b=WEIGHTS)


def solve_many(schedule: ij.Schedule, num_starts: int):
    """The answers after each level, smooth to sharp: [starts, T, 2]."""

    def one(key):
        landscape = lambda y, t: energy_fn(schedule, y, t)  # noqa: E731
        options = {"num_steps": 5, "bounds": HALF_WIDTH}
        options |= {"noise": True, "trace": True}
        return ij.solve(key, landscape, schedule, (2,), **options)[1].answers

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num_starts))


def draw(path: str, num_starts: int = 24, cells: int = 80) -> None:
    schedule = ij.make_schedule("cosine", 10)
    answers = np.asarray(solve_many(schedule, num_starts))
    line = jnp.linspace(-HALF_WIDTH, HALF_WIDTH, cells)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
    figure, axes = plt.subplots(1, len(LEVELS), figsize=(9, 2.6), dpi=100)
    for axis, t in zip(axes, LEVELS, strict=True):
        of_y0 = lambda y0, t=t: energy_fn(schedule, schedule.a[t] * y0, t)  # noqa: E731
        values = np.asarray(jax.vmap(of_y0)(grid)).reshape(cells, cells)
        axis.contourf(line, line, values, levels=16, cmap="YlGnBu_r")
        place = schedule.num_levels - 1 - t
        axis.plot(*answers[:, place].T, "o", color="crimson", ms=3, mew=0)
        axis.plot(*np.asarray(ANSWERS).T, "x", color="white", ms=5)
        axis.set_title(f"t = {t}", fontsize=9)
        axis.set(xticks=[], yticks=[], xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    figure.tight_layout(pad=0.8)
    figure.savefig(path)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="docs/pictures/landscape.png")
    draw(parser.parse_args(argv).output)


if __name__ == "__main__":
    main()
