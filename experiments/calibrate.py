"""Sets the fixed thresholds of the residual filter from a validation set.

python -m experiments.calibrate --workdir=runs/none-cpu-seed0 --quantile=0.5

A negative is a false one if, denoised, it is as good an answer as the truth noised to
the same level and denoised. So the threshold of a level is a quantile, over held-out
examples, of the residual of the denoised truth.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli, trained
from experiments.errors import UserError
from experiments.logs import say, write_json
from experiments.scoring import HELD_OUT_SEED, held_out
from ired_jax import diffusion, negatives
from ired_jax.types import Stream, bind, stream_key


def thresholds(
    model: trained.Trained, *, quantile: float, num_examples: int
) -> np.ndarray:
    """The threshold of each level: [T] float64."""
    task, problem = model.experiment.task, model.experiment.problem
    schedule = problem.schedule
    root = stream_key(jax.random.key(HELD_OUT_SEED), 2, Stream.EVAL_NOISE)

    @jax.jit
    def residuals(t):
        index = jnp.arange(num_examples)
        x, y0 = jax.vmap(lambda i: held_out(Stream.EVAL_DATA, task.train, i))(index)
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(index)
        eps = jax.vmap(lambda key: jax.random.normal(key, y0.shape[1:]))(keys)
        levels = jnp.full(num_examples, t)
        y = jax.vmap(lambda *row: diffusion.q_sample(schedule, *row))(y0, levels, eps)
        return negatives.filtered_residual(
            schedule,
            problem.residual,
            lambda x, t: bind(problem.energy, model.params, x, t),
            {"x": x, "t": levels, "y": y},
            bounds=task.train.bounds,
            denoised=model.config.filter.denoised,
        )

    levels = range(schedule.num_levels)
    return np.array([np.quantile(residuals(jnp.int32(t)), quantile) for t in levels])


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    flags.DEFINE_float("quantile", 0.5, "of the residuals", flag_values=values)
    flags.DEFINE_integer("num_examples", 2048, "held-out draws", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "last", trained.CHECKPOINTS, "which", flag_values=values
    )
    flags.mark_flag_as_required("workdir", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    if not 0 < values.quantile < 1:
        raise UserError(f"--quantile={values.quantile}: must be above 0 and below 1")
    if values.num_examples < 2:
        raise UserError(f"--num_examples={values.num_examples}: must be at least 2")
    model = trained.load(values.workdir, values.checkpoint)
    limits = thresholds(
        model, quantile=values.quantile, num_examples=values.num_examples
    )
    rounded = tuple(float(f"{limit:.4g}") for limit in limits)
    write_json(Path(values.workdir) / "thresholds.json", rounded)
    say("train with the filter fixed at these residuals, a level each, by")
    print(
        f"--config.filter.mode=fixed '--config.filter.thresholds={rounded}'".replace(
            ", ", ","
        )
    )


if __name__ == "__main__":
    cli.run(main)
