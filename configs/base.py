"""What all configs share: presets, and how a config is written.

A config file has `get_config(presets)`, which names its choices (`task.name`,
`energy.name`, `objectives`, `negatives.strategy`, ..) and the fields that differ from
their defaults, and returns `base.config(presets, fields, cpu=.., smoke=..)`. `cpu` and
`smoke` are the fields that these presets set for this config besides what they set for
all, such as the size of the task. All fields with their meaning: docs/fields.md.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import yaml
from ml_collections import ConfigDict

from experiments import fields
from experiments.build import make_experiment

Fields = Mapping[str, Any]  # {group.field: value}
NOTHING: Fields = MappingProxyType({})
# A ConfigDict prints itself as YAML, which has lists and no tuples.
yaml.add_representer(tuple, yaml.Dumper.represent_list)

MLP = {
    "energy.name": "mlp",
    "train.learning_rate": 1e-4,
    "train.lr_schedule": "constant",
    "train.lr_warmup": 0,
}
CPU = {
    "train.batch_size": 128,
    "train.num_steps": 5_000,
    "train.ema_decay": 0.95,  # remembers 200 steps instead of 2,000
    "train.log_every": 250,
    "train.eval_every": 1_000,
    "replay.capacity": 2_000,
}
CPU_MLP = {"train.batch_size": 512, "train.learning_rate": 3e-4}
STUDY = {
    "train.batch_size": 128,
    "train.num_steps": 1_500,
    "train.eval_every": 500,
    "eval.num_examples": 4_000,
    "eval.num_examples_running": 500,
}
SMOKE = {
    "train.batch_size": 64,
    "train.num_steps": 40,
    "train.ema_decay": 0.95,
    "train.steps_per_dispatch": 5,
    "train.log_every": 10,
    "train.eval_every": 20,
    "replay.capacity": 64,
    "eval.num_examples": 128,
    "eval.num_examples_running": 64,
    "eval.batch_size": 64,
}
CLASSIC = {
    "negatives.units": "energy",
    "negatives.rows": "masked",
    "sampler.num_steps": 30,
    "sampler.grad_clip": 0.01,
    "sampler.bounds": 2.0,
    "replay.conditional": False,
    "replay.coin": "batch",
    "replay.num_buckets": 16,
    "filter.per_level": False,
    "filter.denoised": False,
    "loss.per_element": False,
    "loss.penalty": 0.1,
}
NET = {
    "diffusion.num_levels": 1,
    "proposal.noise_share": 1.0,
    "proposal.own_share": 0.0,
    "eval.choose": "doubt",
}
WARM_UPS = ("loss.warmup", "train.lr_warmup", "train.ema_warmup")


def config(
    presets: str, values: Fields, *, cpu: Fields = NOTHING, smoke: Fields = NOTHING
) -> ConfigDict:
    """The fields of a config that differ from their defaults, presets applied.

    Args:
      presets: names with commas, in any order; see PRESETS.
      values: {group.field: value}, choices first of all.
      cpu, smoke: what these presets set for this config besides; a field that it does
        not have, or no longer has after another preset, is left out.

    Raises:
      ValueError: an unknown preset.
      UserError: a field that this config does not have, or a bad value.
    """
    names = list(filter(None, (presets or "").split(",")))
    for name in names:
        if name not in PRESETS:
            allowed = ", ".join(PRESETS)
            raise ValueError(f"preset {name!r} is unknown: allowed are {allowed}")
    own = {"cpu": cpu, "smoke": smoke}
    for name, preset in PRESETS.items():
        if name in names:
            values = preset(values, own.get(name, NOTHING))
    there = fields.schema(make_experiment, values)
    groups = {name.rpartition(".")[0] for name in there} - {""}
    result = fields.nest(fields.differing(make_experiment, values)).unlock()
    for group in groups - set(result):
        result[group] = ConfigDict()  # so that `config.task.n = 5` works
    return result


def _mlp(values: Fields, own: Fields) -> Fields:
    """The reference network, at the learning rate of record."""
    others = {k: v for k, v in values.items() if not k.startswith("energy.")}
    there = fields.schema(make_experiment, {**others, "energy.name": "mlp"})
    return _set({k: v for k, v in others.items() if k in there}, {**MLP, **own})


def _cpu(values: Fields, own: Fields) -> Fields:
    """A result within 15 minutes on two cores: n = 10 for matrix inversion."""
    values = _set(values, CPU)
    if values.get("energy.name") == "mlp":
        values = _set(values, CPU_MLP)
    return _short(_set(values, own))


def _study(values: Fields, own: Fields) -> Fields:
    """A third of `cpu`, so that a study of many runs ends."""
    return _short(_set(values, {**STUDY, **own}))


def _smoke(values: Fields, own: Fields) -> Fields:
    """The whole path within a minute: no result, only that everything runs."""
    return _short(_set(_set(values, SMOKE), own))


def _classic(values: Fields, own: Fields) -> Fields:
    """The earlier form: E for U, its steps, clips and bounds, its replay and filter."""
    return _set(values, {**CLASSIC, **own})


def _net(values: Fields, own: Fields) -> Fields:
    """The same layers without an energy: a recurrent net that answers from noise.

    One level, noise alone as the first state, as many rounds as all levels together
    have, and of several answers the one that it is surest of. What an energy around a
    network is held against; nothing where there is none.
    """
    full = fields.resolve(make_experiment, values)
    if "eval.rounds" not in full:
        return values
    others = full["eval.rounds"] or full["energy.rounds"]
    first = full["eval.first_rounds"] or others
    rounds = first + others * (full["diffusion.num_levels"] - 1)
    changes = NET | {"eval.rounds": rounds, "eval.first_rounds": 0}
    return _set(values, {**changes, **own})


def _set(values: Fields, changes: Fields) -> Fields:
    """The values with those changes whose fields there are, in order."""
    for name, value in changes.items():
        if name in fields.schema(make_experiment, values):
            values = {**values, name: value}
    return values


def _short(values: Fields) -> Fields:
    """Each warm-up is at most a fifth of the run."""
    full = fields.resolve(make_experiment, values)
    limit = full["train.num_steps"] // 5
    return _set(values, {k: min(full[k], limit) for k in WARM_UPS if k in full})


# Applied in this order, whatever the order on the command line.
PRESETS: dict[str, Callable[[Fields, Fields], Fields]] = {
    "mlp": _mlp,
    "cpu": _cpu,
    "study": _study,
    "smoke": _smoke,
    "classic": _classic,
    "net": _net,
}

# The configs of matrix inversion.
inversion = partial(
    config,
    cpu={"task.n": 10},
    smoke={"task.n": 4, "energy.layers": 3, "energy.width": 32},
)
