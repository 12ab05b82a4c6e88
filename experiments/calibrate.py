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

from experiments import cli
from experiments.errors import UserError
from experiments.run.files import write_json
from experiments.run.logs import say
from experiments.score import trained
from experiments.score.scorer import Scorer
from experiments.score.solver import HELD_OUT_SEED
from ired_jax import trees
from ired_jax.negatives import filters
from ired_jax.negatives.base import q_sample, still
from ired_jax.types import Stream, bind, stream_key


def thresholds(
    model: trained.Trained, *, quantile: float, num_examples: int
) -> np.ndarray:
    """The threshold of each level: [T] float64."""
    experiment, schedule = model.experiment, model.experiment.schedule
    task, contrast = experiment.task, experiment.contrast
    if task.residual is None:
        raise UserError("task.name: has no residual, by which answers are filtered")
    spec = contrast.residual_filter if contrast is not None else None
    root = stream_key(jax.random.key(HELD_OUT_SEED), 2, Stream.EVAL_NOISE)
    x, y0 = Scorer(experiment).examples(next(iter(task.splits)), num_examples)

    @jax.jit
    def residuals(t, x, y0):
        levels = jnp.full(len(jax.tree.leaves(y0)[0]), t)
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(len(levels)))
        eps = still(task.train.box, x, jax.vmap(trees.normal)(keys, y0))
        return filters.filtered_residual(
            schedule,
            task.residual,
            lambda x, t: bind(experiment.energy, model.params, x, t),
            {"x": x, "t": levels, "y": q_sample(schedule, y0, levels, eps)},
            box=task.train.box,
            denoised=spec.denoised if spec is not None else True,
        )

    of_level = (residuals(jnp.int32(t), x, y0) for t in range(schedule.num_levels))
    return np.array([np.quantile(values, quantile) for values in of_level])


def define(values: flags.FlagValues) -> None:
    trained.define(values)
    flags.DEFINE_float("quantile", 0.5, "of the residuals", flag_values=values)
    flags.DEFINE_integer("num_examples", 2048, "held-out rows", 2, flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    if not 0 < values.quantile < 1:
        raise UserError(f"--quantile={values.quantile}: must be above 0 and below 1")
    model = trained.load(values.workdir, values.checkpoint)
    limits = thresholds(
        model, quantile=values.quantile, num_examples=values.num_examples
    )
    if not np.all(np.isfinite(limits)):
        bad = ", ".join(map(str, np.flatnonzero(~np.isfinite(limits))))
        raise UserError(f"{values.workdir}: residuals at levels {bad} are not finite")
    rounded = tuple(float(f"{limit:.4g}") for limit in limits)
    write_json(Path(values.workdir) / "thresholds.json", rounded)
    of = f" of seed {model.seed}" if len(model.experiment.seeds) > 1 else ""
    say(f"train with the filter fixed at these residuals{of}, a level each, by")
    text = str(rounded).replace(", ", ",")
    print(f"--config.filter.mode=fixed '--config.filter.thresholds={text}'")


if __name__ == "__main__":
    cli.run(main)
