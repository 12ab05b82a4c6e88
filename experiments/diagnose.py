"""Studies a trained energy: pairs by level, rankings, lines, and the best of R answers.

python -m experiments.diagnose --workdir=runs/cd_full-cpu-seed0

Negatives are those of the run's own strategy, from fresh starts and at every level,
also where it was not trained; a run without negatives gets the chains of
configs/cd_langevin.py. Writes diagnosis.json and figures/diagnosis-*.png.

A negative is a false one if, denoised, it is as good an answer as the truth noised to
the same level and denoised: its residual is at most a quantile of theirs, the median as
in experiments.calibrate (so a perfect chain has half false ones).

Candidate answers to one x are the R inference ends, the truth moved by 8 graded random
steps, and the denoised chain end. All stand at a_t y_0, without noise. An answer is
right if its residual is at most a tenth of that of the answer 0 (for a matrix A that is
|A Y - I| <= .1 |I|), or at most --right. Conditioning is that of denoised answers
within the split's box: at the smoothest level a_t is near 0, and most meet its sides.
"""

from pathlib import Path

import jax
from absl import flags
from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs import cd_langevin
from experiments import cli, diagnosis_figures, trained
from experiments.build_negatives import build_contrast
from experiments.errors import UserError
from experiments.fields import Fields
from experiments.logs import say, write_json
from experiments.scoring import HELD_OUT_SEED, Scorer
from experiments.study import Settings, Subject, answers_of, programs_of, study
from ired_jax.training import Contrast
from ired_jax.types import Stream, stream_key

PAIRS = (  # columns of the first table: title, figure
    ("U+", "energy_pos"),
    ("gap", "gap"),
    ("saturated", "saturation"),
    ("grad+", "grad_norm_pos"),
    ("grad-", "grad_norm_neg"),
    ("accepted", "acceptance"),
    ("moved", "displacement"),
    ("width", "width"),
    ("false", "false_negatives"),
)
RANKINGS = (
    ("rank r", "rank_correlation"),
    ("ends r", "rank_correlation_ends"),
    ("AUROC", "auroc"),
    ("right", "right_share"),
)
CONDITIONING = (  # also of the second table; + positives, - negatives
    ("log det", "log10_det"),
    ("log cond", "log10_condition"),
    ("min sv", "smallest_singular_value"),
)


def contrast_of(model: trained.Trained) -> tuple[str, Contrast]:
    """The run's negative phase, or that of cd_langevin, and its name."""
    experiment = model.experiment
    if experiment.contrast is not None:
        return model.config.negatives.strategy, experiment.contrast
    config = cd_langevin.get_config()
    config.task.update(model.config.task)
    config.diffusion.update(model.config.diffusion)
    problem = experiment.problem
    contrast = build_contrast(
        Fields(config),
        experiment.task,
        problem.schedule,
        problem.energy,
        problem.block_rows,
    )
    return "cd_langevin", contrast


def diagnose(model: trained.Trained, settings: Settings) -> dict:
    """Every study on both splits, as it stands in diagnosis.json."""
    experiment, (strategy, contrast) = model.experiment, contrast_of(model)
    subject = Subject(
        experiment.problem,
        contrast,
        model.params,
        model.step / experiment.periods.num_steps,
        experiment.task.grid,
    )
    scorer, programs = Scorer(experiment), programs_of(subject)
    result = {
        "step": model.step,
        "seed": model.seed,
        "negatives": strategy,
        "levels_trained": list(contrast.levels) if experiment.contrast else None,
        "settings": settings._asdict(),
    }
    splits = {"val": experiment.task.train, "ood": experiment.task.ood}
    root = stream_key(jax.random.key(HELD_OUT_SEED), 3, Stream.EVAL_NOISE)
    for index, (name, split) in enumerate(splits.items()):
        answers = answers_of(scorer, model.params, name, settings, split.bounds)
        key = jax.random.fold_in(root, index)
        result[name] = study(subject, programs, answers, settings, key, title=name)
    return result


def tables(title: str, split: dict) -> list[Table]:
    """Means and medians over x by level; energies in nats, the rest per element."""
    pairs = _table(f"{title}: pairs, means", [name for name, _ in PAIRS])
    ranking = [name for name, _ in RANKINGS]
    if split["conditioning"] is not None:
        ranking += [f"{name}{sign}" for name, _ in CONDITIONING for sign in "+-"]
    ranking = _table(f"{title}: rankings, means, and conditioning, medians", ranking)
    for level in split["levels"]:
        means = [level[name]["mean"] for _, name in PAIRS]
        pairs.add_row(str(level["level"]), *map(_cell, means))
        figures = [_cell(level[name]["mean"], ".3f") for _, name in RANKINGS]
        if split["conditioning"] is not None:
            figures += [
                _cell(level["conditioning"][kind][name]["median"], ".2g")
                for _, name in CONDITIONING
                for kind in ("positives", "negatives")
            ]
        ranking.add_row(str(level["level"]), *figures)
    return [pairs, ranking]


def _table(title: str, columns: list[str]) -> Table:
    view = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("t", *columns):
        view.add_column(column, justify="right")
    return view


def _cell(value: float | None, form: str = ".3g") -> str:
    return "-" if value is None else f"{value:{form}}"


def summary(title: str, split: dict) -> str:
    """What picking by energy is worth, in three lines."""
    one, many = split["best_of"][0], split["best_of"][-1]
    barriers = [
        line["barriers"]["mean"]
        for line in split["lines"]
        if line["line"] == "truth to answer"
    ]
    shares = ", ".join(f"{share:.2g}" for share in barriers)
    return (
        f"{title}: error of one answer {_with_error(one['random'])}\n"
        f"  lowest energy of {many['answers']}: {_with_error(many['lowest'])},"
        f" the best of them: {_with_error(many['oracle'])}\n"
        f"  right: residual at most {split['right']:.3g}; barriers between truth and"
        f" answer, share of x at the sharpest, middle and smoothest level: {shares}"
    )


def _with_error(value: dict) -> str:
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.3g} +- {value['stderr'] or 0:.1g}"


def define(values: flags.FlagValues) -> None:
    default = Settings()
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "last", trained.CHECKPOINTS, "which", flag_values=values
    )
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
        "output", None, "default: <workdir>/diagnosis.json", flag_values=values
    )
    flags.mark_flag_as_required("workdir", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    if not 0 < values.quantile < 1:
        raise UserError(f"--quantile={values.quantile}: must be above 0 and below 1")
    model = trained.load(values.workdir, values.checkpoint, values.seed)
    output = cli.output_path(values.output or Path(values.workdir) / "diagnosis.json")
    names = Settings._fields
    settings = Settings(**{name: getattr(values, name) for name in names})
    result = {"checkpoint": values.checkpoint} | diagnose(model, settings)
    write_json(output, result)
    for name, title in (("val", "in distribution"), ("ood", "harder")):
        for table in tables(title, result[name]):
            say(table)
        say(summary(title, result[name]))
    folder = cli.output_path(output.parent / "figures" / "diagnosis.png").parent
    diagnosis_figures.write_all(result, folder)
    say(f"figures: {folder}/diagnosis-*.png, all numbers: {output}")


if __name__ == "__main__":
    cli.run(main)
