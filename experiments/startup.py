"""What a run says before its first step, on one screen of 24 lines of 80 columns."""

import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import fields
from experiments.build import Experiment, make_experiment, memory_bytes, resolve
from experiments.configuration import show
from experiments.run.meter import duration

WIDTH = 80
INDENT = 12
MOST = {"choices": 4, "differs": 7}  # lines; of every other paragraph 2


def startup_text(experiment: Experiment, config: ConfigDict) -> str:
    """Choices, what differs from the defaults, device, sizes, effective values."""
    values = resolve(config)
    specs = fields.schema(make_experiment, values)
    choices = {k: v for k, v in values.items() if specs[k].part is not None}
    changed = fields.differing(make_experiment, values)
    others = {k: v for k, v in changed.items() if k not in choices}
    lines = {
        "choices": _pairs(choices),
        "differs": _pairs(others) or "nothing, all fields have their defaults",
        "device": _device(experiment),
        "parameters": _parameters(experiment),
        "rows": _rows(experiment),
        "steps": _periods(experiment),
        "levels": _levels(experiment),
        **_chain(experiment, values),
    }
    return "\n".join(_paragraph(name, text) for name, text in lines.items())


def bytes_of(program: Any) -> tuple[int, int] | None:
    """(all that a compiled dispatch holds at once, its arguments), if it is known."""
    size = program.memory_analysis()
    if size is None:
        return None
    # Donated arguments are counted among the results once more.
    outside = size.argument_size_in_bytes + size.output_size_in_bytes
    outside -= size.alias_size_in_bytes
    return outside + size.temp_size_in_bytes, size.argument_size_in_bytes


def memory_text(program: Any, begins: int | None = None) -> str:
    """What a compiled dispatch takes of the device, from a later step on if any."""
    text = "the device does not tell"
    if size := bytes_of(program):
        most, inside = size
        text = (
            f"{_size(most)} with activations, {_size(inside)} of them the state and"
            f" the data; the device has {_size(memory_bytes())}"
        )
    when = "" if begins is None else f"from step {begins:,} on: "
    return _paragraph("memory", when + text)


def time_text(rows: Sequence[dict], num_steps: int) -> str:
    """The time of the steps that are left.

    Args:
      rows: of metrics.jsonl, where an earlier process left any.
      num_steps: that are left.
    """
    text = "told after the first seconds of steps"
    if rows and rows[-1].get("steps_per_second"):
        rate = rows[-1]["steps_per_second"]
        text = f"{duration(num_steps / rate)} left at {rate:.3g} steps/s of before"
    return _paragraph("time", f"{text}, evaluations aside")


def _size(count: int) -> str:
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{count / unit:.3g} {name}"


def _pairs(values: fields.Values) -> str:
    return " ".join(f"{name}={show(value)}" for name, value in values.items())


def _device(experiment: Experiment) -> str:
    """How many there are, of what kind, and how rows are shared out to them."""
    kind, mesh = jax.local_devices()[0].device_kind, experiment.mesh
    text = f"{jax.device_count()} {kind}, jax {jax.__version__}"
    if jax.process_count() > 1:
        text += f", {jax.process_count()} processes"
    if mesh is None:
        return text
    rows = experiment.batch_size // mesh.size
    return f"{text}, {rows} rows a step on each of {mesh.size}"


def _parameters(experiment: Experiment) -> str:
    params = jax.eval_shape(experiment.energy.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    seeds = experiment.seeds
    text = f"{count:,} of the energy"
    return text + (f", seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "")


def _rows(experiment: Experiment) -> str:
    text = f"{experiment.batch_size} a step"
    spec = experiment.contrast
    if spec is not None:
        text += f", {spec.num_rows} of negatives"
    blocks = experiment.block_rows
    return text + (", all at once" if blocks is None else f", {blocks} at once")


def _periods(experiment: Experiment) -> str:
    periods = experiment.periods
    text = f"{periods.num_steps:,}, {periods.steps_per_dispatch} a dispatch"
    text += f", log every {periods.log_every:,}, evaluate every {periods.eval_every:,}"
    for first, names in experiment.phases[1:]:
        text += f", from {first:,} on {' + '.join(names)}"
    return text


def _levels(experiment: Experiment) -> str:
    """T, and where negatives are."""
    num_levels, spec = experiment.schedule.num_levels, experiment.contrast
    text = f"{num_levels}, answers take {experiment.inference.num_steps} steps at each"
    if spec is None:
        return text
    return f"{text}; negatives at {spec.levels[0]} to {spec.levels[1]}"


def _chain(experiment: Experiment, values: fields.Values) -> dict[str, str]:
    """Steps of the chain or descent at the levels of the negative phase."""
    spec = experiment.contrast
    if spec is None or spec.strategy.step_size is None:
        return {}
    low, high = spec.levels
    steps = jax.vmap(spec.strategy.step_size)(jnp.arange(low, high + 1))
    text = " ".join(f"{step:.2g}" for step in steps)
    if values.get("sampler.adjusted") and not values["sampler.step_size"]:
        text += ", more where elements are known"  # D^(-1/3) of each row's own D
    return {"chain step": text}


def _paragraph(name: str, text: str) -> str:
    """The text beside its name, cut where it would take too many lines."""
    lines = textwrap.wrap(
        text,
        WIDTH - INDENT,
        max_lines=MOST.get(name, 2),
        placeholder=" ..",
        break_on_hyphens=False,
    )
    names = [name, *[""] * (len(lines) - 1)]
    return "\n".join(
        f"{name:<{INDENT}}{line}" for name, line in zip(names, lines, strict=True)
    )
