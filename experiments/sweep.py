"""Trains the points of a sweep, or resumes it.

    python -m experiments.sweep --config=configs/sweeps/steps.py
    python -m experiments.sweep --config=configs/sweeps/steps.py --status

Each point is a run of its own, runs/<sweep>/<point>, as `experiments.train` makes and
resumes it. Overrides `--config.group.field=value` are for all points.
"""

import ast
import shlex
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import flags

from experiments import cli
from experiments.errors import UserError
from experiments.run import code, workdir
from experiments.run.logs import say
from experiments.sweeps import estimate, jobs, points, status

EXECUTORS = ("here", "slurm", "local")


def define(values: flags.FlagValues) -> None:
    cli.define_config(values)
    for kind, name, default, meaning in (
        (flags.DEFINE_string, "workdir", None, "default: runs/<sweep>"),
        (flags.DEFINE_bool, "status", False, "only tell how it stands"),
        (flags.DEFINE_bool, "dry_run", False, "only tell what would run, unmeasured"),
        (flags.DEFINE_bool, "estimate", True, "of memory and time, before the start"),
        (flags.DEFINE_bool, "allow_changes", False, "run code that is not committed"),
        (flags.DEFINE_float, "hours", None, "that all may take; default: the sweep's"),
        (
            flags.DEFINE_string,
            "scratch",
            None,
            "node's folder to train in, copied back",
        ),
        (flags.DEFINE_list, "points", ["*"], "only those of such names: mlp-*,q20?"),
        (flags.DEFINE_list, "exclude", [], "nodes to avoid (slurm)"),
        (flags.DEFINE_list, "options", [], "of submitit: timeout_min=600,.. (slurm)"),
    ):
        kind(name, default, meaning, flag_values=values)
    flags.DEFINE_integer("parallel", 1, "points at a time", 1, flag_values=values)
    flags.DEFINE_enum(
        "executor", "here", EXECUTORS, "where; local: submitit here", flag_values=values
    )


def main(argv: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")  # the devices are for the points
    values = cli.parse(argv, define, points.fields_of)
    _refuse_idle(values)
    name = Path(values.config).stem
    folder = Path(values.workdir or f"runs/{name}")
    if values.status:
        _show(folder, name)
        return
    sweep = points.load(values.config)
    commit = None if values.allow_changes or values.dry_run else code.pinned()
    for path in filter(None, (folder, values.scratch) if commit else ()):
        code.refuse_as_changes(Path(path))
    pin = [f"--commit={commit}"] if commit else []
    planned = points.plan(sweep, folder, cli.override_texts(values), pin)
    chosen = points.named(planned, values.points)
    if values.dry_run:
        for point in (p for p in planned if p.name in chosen):
            print(shlex.join([*point.command, f"--workdir={point.directory}"]))
        return
    _refuse_others(planned)
    status.claim(folder, planned, commit)
    rows = {row.name: row for row in status.look(folder)}
    todo = {n for n in chosen if rows[n].state not in ("done", "running")}
    planned = [p for p in planned if p.name in todo]
    if planned and values.estimate:
        hours = sweep.hours if values.hours is None else values.hours
        _estimate(values, planned, hours, {n: rows[n].step for n in todo})
    if planned:
        _run(values, planned, folder)
    if values.executor != "slurm":
        _finish(folder, name, chosen)
    elif not planned:
        _show(folder, name)


def _refuse_idle(values: flags.FlagValues) -> None:
    """Refuses flags that would do nothing, and options that are none."""
    _options(values.options)
    for name, executors in (("exclude", ("slurm",)), ("options", ("slurm", "local"))):
        if values[name].value and values.executor not in executors:
            raise UserError(
                f"--{name}={','.join(values[name].value)}: needs --executor="
                f"{' or '.join(executors)}, not {values.executor}"
            )
    if values["parallel"].present and values.executor == "local":
        raise UserError(
            f"--parallel={values.parallel}: needs --executor=here or slurm, not local,"
            " which starts all at once"
        )
    if values.hours is not None and values.dry_run:
        raise UserError(
            f"--hours={values.hours:g}: needs the estimate, must be without --dry_run"
        )
    if values.hours is not None and not values.estimate:
        raise UserError(
            f"--hours={values.hours:g}: needs the estimate, must be without"
            " --noestimate"
        )


def _refuse_others(planned: list[points.Point]) -> None:
    """Refuses points whose run directories are of another config."""
    for point in planned:
        if (point.directory / "config.json").exists():
            workdir.refuse_others(point.directory, point.values)


def _parallel(values: flags.FlagValues, planned: list) -> int:
    """How many points run at a time; submitit's local executor starts all at once."""
    if values.executor == "local":
        return len(planned)
    return min(values.parallel, len(planned))


def _estimate(
    values: flags.FlagValues,
    planned: list,
    hours: float | None,
    steps: Mapping[str, int],
) -> None:
    """Tells what the points take from their steps on, and refuses what does not fit."""
    is_shared, parallel = values.executor != "slurm", _parallel(values, planned)
    of_points = {p.name: p.values for p in planned}
    found, have = estimate.in_child(of_points, steps)
    estimate.refuse_if_too_much(
        found,
        have_bytes=have,
        hours=hours,
        parallel=parallel,
        is_shared=is_shared,
    )
    say(estimate.told(found, parallel, is_shared=is_shared))


def _run(values: flags.FlagValues, planned: list, folder: Path) -> None:
    """Hands the points to who runs them; back when they have ended, but for slurm."""
    is_here = values.executor == "here"
    scratch = Path(values.scratch) if values.scratch else None
    is_shared, parallel = values.executor != "slurm", _parallel(values, planned)
    environment = jobs.shared_device(parallel) if is_shared else {}
    todo = [jobs.Job(p.command, p.directory, scratch, environment) for p in planned]
    if is_here:
        jobs.run_here(
            todo, values.parallel, lambda job, how: say(f"{job.directory}: {how}")
        )
        return
    submitted = jobs.submit(
        todo,
        folder / "submitit",
        cluster=values.executor,
        parallel=values.parallel,
        exclude=values.exclude,
        options=_options(values.options),
    )
    say(f"submitted: {', '.join(job.job_id for job in submitted)}")
    if values.executor == "local":
        for job in submitted:
            job.wait()


def _finish(folder: Path, name: str, ran: set[str]) -> None:
    """Tells how the points ended.

    Raises:
      UserError: some of those that ran are not done.
    """
    rows = [row for row in _show(folder, name) if row.name in ran]
    left = [f"{row.name} {row.state}" for row in rows if row.state != "done"]
    if left:
        raise UserError(
            f"{len(left)} of {len(rows)} points not done: {', '.join(left)}"
            f" ({folder}/<point>.log)"
        )


def _show(folder: Path, name: str) -> list[status.Row]:
    """Prints how all points stand, and returns it."""
    rows = status.look(folder)
    say(status.table(rows, name))
    if why := status.reasons(rows):
        print(why)
    return rows


def _options(texts: list[str]) -> dict:
    """{name: value} of `name=value`, numbers as numbers.

    Raises:
      UserError: a text without `=`.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--options={text}: must be name=value, of submitit")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


if __name__ == "__main__":
    cli.run(main)
