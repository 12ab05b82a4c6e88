"""Studies a trained energy: pairs by level, rankings, lines, and the best of R answers.

python -m experiments.diagnose --workdir=runs/cd_full-cpu-seed0

Negatives are those of the run's own strategy, from fresh starts and at every level,
also where it was not trained; a run without negatives gets the chains of
contrast's defaults. Writes diagnosis.json and figures/diagnosis-*.png, or with --seed
diagnosis-seed<n>.json and figures/diagnosis-seed<n>-*.png; pictures have the name of
--output.

A negative is a false one if, denoised, it is as good an answer as the truth noised to
the same level and denoised: its residual is at most a quantile of theirs, the median as
in experiments.calibrate (so a perfect chain has half false ones).

Candidate answers to one x are the R inference ends, the truth moved by 8 graded random
steps, and the denoised chain end. All stand at a_t y_0, without noise. An answer is
right if its residual is at most a tenth of that of the answer 0 (for a matrix A that is
|A Y - I| <= .1 |I|), or at most --right. Diagnostics, where the task's view has them,
are of denoised answers within the split's box: at the smoothest level a_t is near 0,
and most meet its sides.
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags
from rich.table import Table

from experiments import cli
from experiments.build import build
from experiments.diagnosis import pictures
from experiments.diagnosis.study import (
    Settings,
    Subject,
    answers_of,
    badness_of,
    programs_of,
    study,
)
from experiments.errors import UserError
from experiments.run.files import write_json
from experiments.run.logs import say
from experiments.score import trained
from experiments.score.scorer import Scorer, row_metric
from experiments.score.solver import HELD_OUT_SEED
from experiments.score.tables import tables, with_error
from experiments.views.base import view_of
from ired_jax.objectives.contrast import Contrast
from ired_jax.types import Stream, stream_key

PAIRS = {  # columns of the first table: title, figure
    "U+": "energy_pos",
    "gap": "gap",
    "saturated": "saturation",
    "grad+": "grad_norm_pos",
    "grad-": "grad_norm_neg",
    "accepted": "acceptance",
    "moved": "displacement",
    "width": "width",
    "false": "false_negatives",
}
RANKINGS = {
    "rank r": "rank_correlation",
    "ends r": "rank_correlation_ends",
    "AUROC": "auroc",
    "right": "right_share",
}


def contrast_of(model: trained.Trained) -> tuple[str, Contrast]:
    """The run's negative phase, or that of Langevin chains, and its strategy's name."""
    config, experiment = model.config, model.experiment
    if experiment.contrast is None:
        names = (*config.objectives, "contrast")
        config = trained.changed(config, {"objectives": names})
        experiment = build(config)
    return config.negatives.strategy, experiment.contrast


def diagnose(model: trained.Trained, settings: Settings) -> dict:
    """Every study on every split, as it stands in diagnosis.json."""
    experiment, (strategy, contrast) = model.experiment, contrast_of(model)
    task, scorer = experiment.task, Scorer(experiment)
    subject = Subject(
        task,
        contrast,
        model.params,
        model.step / experiment.periods.num_steps,
        badness_of(scorer, task),
        view_of(model.config.task.name).diagnostics,
    )
    programs = programs_of(subject)
    root = stream_key(jax.random.key(HELD_OUT_SEED), 3, Stream.EVAL_NOISE)
    splits = {}
    for index, name in enumerate(task.splits):
        answers = answers_of(scorer, subject, name, settings)
        key = jax.random.fold_in(root, index)
        splits[name] = study(subject, programs, answers, settings, key, title=name)
    metric = row_metric(task)
    return {
        "step": model.step,
        "seed": model.seed,
        "metric": metric,
        "better": task.metrics[metric].better,
        "negatives": strategy,
        "levels_trained": list(contrast.levels) if experiment.contrast else None,
        "settings": settings._asdict(),
        "splits": splits,
    }


def level_tables(title: str, split: dict) -> list[Table]:
    """Means and medians over x by level; energies in nats, the rest per element."""
    levels = split["levels"]
    rows = [str(level["level"]) for level in levels]

    def columns(names: dict[str, str], figure: str, form: str):
        return {
            title: [_cell(level[name][figure], form) for level in levels]
            for title, name in names.items()
        }

    quartiles = {
        f"{name}{sign}": f"{kind} {name}"
        for name in split["diagnostics"]
        for sign, kind in (("+", "positives"), ("-", "negatives"))
    }
    views = tables(f"{title}: pairs, means", rows, columns(PAIRS, "mean", ".3g"))
    views += tables(f"{title}: rankings, means", rows, columns(RANKINGS, "mean", ".3f"))
    medians = columns(quartiles, "median", ".2g")
    return views + tables(f"{title}: denoised answers, medians", rows, medians)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def summary(title: str, split: dict, sign: int = 1) -> str:
    """What picking by energy is worth, in three lines; sign -1: more is better."""
    one, many = split["best_of"][0], split["best_of"][-1]
    barriers = [
        line["barriers"]["mean"]
        for line in split["lines"]
        if line["line"] == "truth to answer"
    ]
    shares = ", ".join(f"{share:.2g}" for share in barriers)

    def shown(value: dict) -> str:
        mean = value["mean"]
        return with_error(mean if mean is None else sign * mean, value["stderr"])

    limit = split["right"]
    right = "" if np.isnan(limit) else f"right: residual at most {limit:.3g}; "
    return (
        f"{title}: one answer {shown(one['random'])}\n"
        f"  lowest energy of {many['answers']}: {shown(many['lowest'])},"
        f" the best of them: {shown(many['oracle'])}\n"
        f"  {right}barriers between truth and"
        f" answer, share of x at the sharpest, middle and smoothest level: {shares}"
    )


def define(values: flags.FlagValues) -> None:
    default = Settings()
    trained.define(values)
    flags.DEFINE_integer("seed", None, "default: the first", flag_values=values)
    flags.DEFINE_integer(
        "num_examples", default.num_examples, "x of each split", 2, flag_values=values
    )
    flags.DEFINE_integer(
        "restarts", default.restarts, "answers to each x", 1, flag_values=values
    )
    flags.DEFINE_float(
        "quantile", default.quantile, "of denoised positives' residuals, below which a"
        " negative is false", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_float(
        "right", default.right, "residual of a right answer; 0: a tenth of the answer"
        " 0's", 0.0, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "output",
        None,
        "default: <workdir>/diagnosis[-seed<n>].json",
        flag_values=values,
    )


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    if not 0 < values.quantile < 1:
        raise UserError(f"--quantile={values.quantile}: must be above 0 and below 1")
    model = trained.load(values.workdir, values.checkpoint, values.seed)
    seed = "" if values.seed is None else f"-seed{values.seed}"
    default = Path(values.workdir) / f"diagnosis{seed}.json"
    output = cli.output_path(values.output or default)
    names = Settings._fields
    settings = Settings(**{name: getattr(values, name) for name in names})
    result = {"checkpoint": values.checkpoint} | diagnose(model, settings)
    write_json(output, result)
    sign = 1 if result["better"] == "low" else -1
    for name, split in result["splits"].items():
        for table in level_tables(name, split):
            say(table)
        say(summary(f"{name}, {result['metric']}", split, sign))
    folder = cli.output_path(output.parent / "figures" / "diagnosis.png").parent
    stem = output.stem  # two outputs in one folder have pictures of their own
    pictures.write_all(result, folder, stem)
    say(f"figures: {folder}/{stem}-*.png, all numbers: {output}")


if __name__ == "__main__":
    cli.run(main)
