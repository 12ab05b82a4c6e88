"""A task of one's own: sorting n numbers. Trains on it with the library alone.

    python -m examples.sorting                # a minute or two of one core
    python -m examples.sorting --num_steps=100

As `task.name = "examples.sorting"` the same file is a task of all commands: see
`sorting_config.py` beside it.
"""

import argparse
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

import ired_jax as ij

INFERENCE = ij.Inference()  # levels, steps and restarts: fields of the task's own


def make_sorting(
    *,
    n: Annotated[int, ij.Field("numbers to sort", at_least=2)] = 8,
    inference: Annotated[ij.Inference, ij.Part(ij.Inference, "eval")] = INFERENCE,
) -> ij.Task:
    """x: n numbers drawn from U(-1, 1); y: the same, ascending. Both [n] float32."""

    def draw(data, key):
        x = jax.random.uniform(key, (n,), minval=-1.0, maxval=1.0)
        return ij.Example(x, jnp.sort(x))

    source = ij.Source(draw, box=lambda x: ij.Box(-1.0, 1.0))
    return ij.Task(
        train=source,
        splits={"val": source},
        metrics={
            "mse": ij.Metric(ij.mean_squared_error, "low", "per element"),
            "in_order": ij.Metric(in_order, "high", "share of rows"),
        },
        primary="val/mse",
        inference=inference,
        solvers={"sort": jnp.sort, "as given": lambda x: x},
    )


def in_order(x, truth, answer):
    """1 if no two neighbours are the wrong way round: ()."""
    return jnp.all(jnp.diff(answer) >= 0).astype(jnp.float32)


def train(task: ij.Task, num_steps: int, batch_size: int = 128):
    """Denoising alone: the schedule, the energy, its averaged parameters."""
    schedule = ij.make_schedule("cosine", task.inference.num_levels)
    (n,) = task.example.y.shape
    energy = ij.make_mlp(n, n, schedule.num_levels, width=128)
    objectives = {"denoising": ij.make_denoising(schedule, energy, task.train.box)}
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps), b2=0.99)
    step = ij.make_train_step(
        task.train,
        objectives,
        optimizer=optimizer,
        batch_size=batch_size,
        num_steps=num_steps,
        ema=ij.Ema(decay=0.95),
    )
    state = ij.init_state(
        jax.random.key(0),
        energy=energy,
        objectives=objectives,
        optimizer=optimizer,
        example=task.example,
    )
    state, _ = jax.jit(ij.repeat(step, num_steps))(state, task.train.data)
    return schedule, energy, state.ema_params.energy


def score(task: ij.Task, schedule, energy, params, num_rows: int = 512):
    """{metric: mean over `num_rows` fresh examples}."""
    source = task.splits["val"]

    def one(key):
        x, y = source.draw(source.data, key)
        landscape = ij.Landscape(energy, params, x)
        options = {"num_steps": task.inference.num_steps, "bounds": source.box(x)}
        answer, _ = ij.solve(key, landscape, schedule, y.shape, **options)
        return {k: metric.of_row(x, y, answer) for k, metric in task.metrics.items()}

    rows = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), num_rows))
    return jax.tree.map(lambda leaf: float(jnp.mean(leaf)), rows)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num_steps", type=int, default=5_000)
    options = parser.parse_args(argv)
    task = make_sorting()
    figures = partial(score, task)(*train(task, options.num_steps))
    for name, value in figures.items():
        print(f"{name:>10} {value:.4f}")
    return figures


if __name__ == "__main__":
    main()
