"""Scores a finished or interrupted run by the metrics contract.

python -m experiments.evaluate --workdir=runs/cd_full-cpu-seed0 --checkpoint=best

With --config the task and the evaluation are another config's, the rest stays the
run's: any checkpoint can be scored by any evaluation that its energy fits, one on
larger matrices too:

python -m experiments.evaluate --workdir=runs/none-cpu-seed0 \
    --config=configs/none.py:cpu --config.task.n=16 --output=runs/size16.json
"""

from pathlib import Path

from absl import flags

from experiments import baselines, cli, trained
from experiments.build import build_evaluation
from experiments.errors import UserError
from experiments.fields import Fields
from experiments.logs import say, write_json
from experiments.loop import training_rows
from experiments.scoring import Scorer

READ = ("task", "eval")  # groups of another config; all others stay the run's


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
        "output", None, "default: <workdir>/evaluation-<checkpoint>[-<config>].json",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)
    flags.mark_flag_as_required("workdir", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    _refuse_other_groups(argv)
    directory = Path(values.workdir)
    model = trained.load(directory, values.checkpoint, values.seed)
    config = cli.config_of(values) or model.config
    experiment = trained.on_task(model, config)
    evaluation = build_evaluation(Fields(config))._replace(
        batch_size=_at_least("batch_size", values.batch_size, 1)
        or config.eval.batch_size,
        num_examples=_at_least("num_examples", values.num_examples, 2)
        or config.eval.num_examples,
    )
    suffix = f"-{cli.config_name(argv)}" if values.config else ""
    default = directory / f"evaluation-{values.checkpoint}{suffix}.json"
    output = cli.output_path(values.output or default)
    scorer = Scorer(experiment, evaluation)
    count = evaluation.num_examples
    rows = None  # matrices of another size were not trained on
    if experiment.task.x_size == model.experiment.task.x_size:
        rows = training_rows(experiment, model.seed, model.step, count)
    metrics = scorer.score(model.params, count, rows)
    others = baselines.score(experiment.task, scorer, count)
    say(f"{directory}, {values.checkpoint} checkpoint, step {model.step}")
    say(baselines.table(metrics, others))
    for name, value in metrics.items():
        if name.count("/") == 1:
            say(f"{name:>18} {value:.6g} +- {metrics[f'{name}/stderr']:.2g}")
    result = {
        "step": model.step,
        "seed": model.seed,
        "checkpoint": values.checkpoint,
        "task": config.task.to_dict(),
        "evaluation": evaluation._asdict(),
        "metrics": metrics,
        "baselines": others,
    }
    write_json(output, result)


def _refuse_other_groups(argv: list[str]) -> None:
    """An override that evaluation does not read would be silently ignored."""
    for name in cli.overrides(argv):
        if name.partition(".")[0] not in READ:
            raise UserError(
                f"--config.{name}: would change nothing, evaluation reads the"
                f" groups {' and '.join(READ)} of --config"
            )


def _at_least(name: str, value: int | None, limit: int) -> int | None:
    if value is not None and value < limit:
        raise UserError(f"--{name}={value}: must be at least {limit}")
    return value


if __name__ == "__main__":
    cli.run(main)
