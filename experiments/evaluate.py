"""Scores a finished or interrupted run by its task's metrics.

python -m experiments.evaluate --workdir=runs/cd_full-cpu-seed0 --checkpoint=best

With --config the task and the evaluation are another config's, the rest stays the
run's: any checkpoint can be scored by any evaluation that its energy fits, one on
larger matrices too:

python -m experiments.evaluate --workdir=runs/none-cpu-seed0 \
    --config=configs/none.py:cpu --config.task.n=16 --output=runs/size16.json
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments import cli, fields
from experiments.errors import UserError
from experiments.run.files import write_json
from experiments.run.logs import say
from experiments.score import baselines, records, trained
from experiments.score.scorer import Scorer, training_rows

READ = ("task", "eval")  # groups of another config; all others stay the run's


def define(values: flags.FlagValues) -> None:
    cli.define_config(values, required=False)
    trained.define(values)
    for name, least in (("batch_size", 1), ("num_examples", 2)):
        flags.DEFINE_integer(
            name, None, f"default: eval.{name}", least, flag_values=values
        )
    flags.DEFINE_string(
        "output", None,
        "default: <workdir>/evaluation-<checkpoint>[-<config>][-num_examples=<n>]"
        "[-seed<n>].json",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)


def _refuse_ignored(argv: list[str], values: flags.FlagValues) -> None:
    """Raises UserError for an override that would change nothing, silently."""
    for name in cli.overrides(argv):
        if name.partition(".")[0] not in READ:
            raise UserError(
                f"--config.{name}: would change nothing, evaluation reads the"
                f" groups {' and '.join(READ)} of --config"
            )
        if not values.config:
            raise UserError(
                f"--config.{name}: needs --config=.., such as the run's own"
            )


def _file_name(
    argv: list[str], values: flags.FlagValues, count: int, own: ConfigDict
) -> str:
    """Of the scores on `count` rows; what is not the run's own is named."""
    parts = ["evaluation", values.checkpoint]
    parts += [cli.config_name(argv)] if values.config else []
    # A field that may change when a run is resumed is in no config's name.
    parts += [f"num_examples={count}"] if count != own.eval.num_examples else []
    parts += [] if values.seed is None else [f"seed{values.seed}"]
    return f"{'-'.join(parts)}.json"


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    _refuse_ignored(argv, values)
    directory = Path(values.workdir)
    model = trained.load(directory, values.checkpoint, values.seed)
    config = model.config
    if values.config:
        other = fields.flatten(cli.config_of(values)).items()
        read = {k: value for k, value in other if k.partition(".")[0] in READ}
        config = trained.changed(config, read)
    experiment = trained.on_task(model, config)
    names = ("batch_size", "num_examples")
    given = {name: getattr(values, name) for name in names if getattr(values, name)}
    evaluation = experiment.evaluation._replace(**given)
    experiment = experiment._replace(evaluation=evaluation)
    task, scorer, count = experiment.task, Scorer(experiment), evaluation.num_examples
    default = directory / _file_name(argv, values, count, model.config)
    output = cli.output_path(values.output or default)
    rows = None  # matrices of another size were not trained on
    if config.task == model.config.task:
        rows = training_rows(experiment, model.seed, model.step, count)
    metrics = scorer.score(model.params, count, rows)
    others = baselines.score(task, scorer, count)
    say(f"{directory}, {values.checkpoint} checkpoint, step {model.step}")
    for table in baselines.final_tables(task, metrics, others):
        say(table)
    found = records.records(task, [metrics])
    for name in records.kinds(task):
        if name in metrics and f"{name}/stderr" in metrics:
            error = metrics[f"{name}/stderr"]
            say(f"{name:>24} {metrics[name]:.6g} +- {error:.2g}")
    result = {
        "step": model.step,
        "seed": model.seed,
        "checkpoint": values.checkpoint,
        "task": config.task.to_dict(),
        "evaluation": evaluation._asdict() | experiment.inference._asdict(),
        "primary": task.primary,
        "records": found,
        "metrics": metrics,
        "baselines": others,
    }
    write_json(output, result)


if __name__ == "__main__":
    cli.run(main)
