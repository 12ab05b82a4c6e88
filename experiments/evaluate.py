"""Scores a finished or interrupted run by the metrics contract.

python -m experiments.evaluate --workdir=runs/cd_full-cpu-seed0 --checkpoint=best

With --config the task and the evaluation are another config's: any checkpoint can be
scored by any evaluation that its energy fits.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments import baselines, cli, trained
from experiments.build import Evaluation, Experiment, build_evaluation, build_task
from experiments.errors import UserError
from experiments.fields import Fields
from experiments.logs import say, write_json
from experiments.loop import training_rows
from experiments.scoring import Scorer


def define(values: flags.FlagValues) -> None:
    cli.define_config(values, required=False)
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "last", trained.CHECKPOINTS, "which", flag_values=values
    )
    flags.DEFINE_integer(
        "batch_size", None, "default: eval.batch_size", flag_values=values
    )
    flags.DEFINE_integer(
        "num_examples", None, "default: eval.num_examples", flag_values=values
    )
    flags.DEFINE_string(
        "output", None, "default: <workdir>/evaluation-<checkpoint>.json",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)
    flags.mark_flag_as_required("workdir", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    directory = Path(values.workdir)
    model = trained.load(directory, values.checkpoint, values.seed)
    config = cli.config_of(values) or model.config
    experiment, evaluation = evaluated_by(model, config)
    evaluation = evaluation._replace(
        batch_size=_at_least("batch_size", values.batch_size, 1)
        or evaluation.batch_size,
        num_examples=_at_least("num_examples", values.num_examples, 2)
        or evaluation.num_examples,
    )
    scorer = Scorer(experiment, evaluation)
    count = evaluation.num_examples
    rows = training_rows(experiment, model.seed, model.step, count)
    metrics = scorer.score(model.params, count, rows)
    others = baselines.score(experiment.task, scorer, count)
    say(f"{directory}, {values.checkpoint} checkpoint, step {model.step}")
    say(baselines.table(metrics, others))
    for name, value in metrics.items():
        if name.count("/") == 1:
            say(f"{name:>18} {value:.6g} +- {metrics[f'{name}/stderr']:.2g}")
    output = values.output or directory / f"evaluation-{values.checkpoint}.json"
    result = {
        "step": model.step,
        "seed": model.seed,
        "checkpoint": values.checkpoint,
        "evaluation": evaluation._asdict(),
        "metrics": metrics,
        "baselines": others,
    }
    write_json(Path(output), result)


def evaluated_by(
    model: trained.Trained, config: ConfigDict
) -> tuple[Experiment, Evaluation]:
    """The model's experiment with another config's task and evaluation.

    Raises:
      UserError: the model's energy does not fit the other task.
    """
    read = Fields(config)
    task, own = build_task(read), model.experiment.task
    if (task.x_size, task.y_size) != (own.x_size, own.y_size):
        raise UserError(
            f"task.n={config.task.n}: the trained energy takes x of {own.x_size} and y"
            f" of {own.y_size} elements, this task has {task.x_size} and {task.y_size}"
        )
    problem = model.experiment.problem._replace(
        draw=task.train.draw, residual=task.residual
    )
    experiment = model.experiment._replace(task=task, problem=problem)
    return experiment, build_evaluation(read)


def _at_least(name: str, value: int | None, limit: int) -> int | None:
    if value is not None and value < limit:
        raise UserError(f"--{name}={value}: must be at least {limit}")
    return value


if __name__ == "__main__":
    cli.run(main)
