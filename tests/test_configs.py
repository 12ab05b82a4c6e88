"""Every config is a different run, and every field of it changes the run."""

import dataclasses
import functools
import importlib
import itertools

import chex
import jax
import numpy as np
import pytest

from configs import base
from experiments.build import build
from experiments.errors import UserError
from experiments.fields import Fields, flatten
from experiments.scoring import solver
from ired_jax import training
from tests import tiny

FIXED = {"filter__mode": "fixed", "filter__thresholds": (1.0,) * 10}
MLP = {"presets": "smoke,mlp"}
RUNNING = {"filter__mode": "running_quantile"}

# field: (another value, a config that reads it, what that config needs besides)
OTHER_VALUES = {
    "seed": (1, "none", {}),
    "task.name": None,  # a choice of one: covered by the refusal of any other
    "task.n": (2, "none", {}),
    "energy.name": None,
    "energy.channels": (2, "none", {}),
    "energy.layers": (2, "none", {}),
    "energy.outputs": (1, "none", {}),
    "energy.reach": ("direct", "none", {}),
    "energy.answer_layers": (1, "none", {}),
    "energy.width": (9, "none", MLP),
    "energy.head": ("scalar", "none", MLP),
    "energy.spectral_norm": (True, "none", MLP),
    "diffusion.schedule": ("linear", "none", {"diffusion__num_levels": 21}),
    "diffusion.num_levels": (11, "cd_full", {}),
    "sampler.num_steps": (3, "cd_full", {}),
    "sampler.step_size": (0.1, "cd_full", {}),
    "sampler.temperature": (0.5, "cd_full", {}),
    "sampler.grad_clip": (0.5, "cd_full", {}),
    "sampler.bounds": (3.0, "cd_full", {}),
    "sampler.adjusted": (True, "cd_full", {}),
    "negatives.strategy": ("nce_noise", "nce_random", {}),
    "negatives.units": ("energy", "cd_full", {}),
    "negatives.noise_scale": (2.0, "cd_full", {}),
    "negatives.noise_scale_end": (0.5, "cd_full", {}),
    "negatives.descent_steps": (3, "adversarial", {}),
    "negatives.mixed_share": (0.5, "mixed", {}),
    "negatives.level_low": (0.4, "cd_full", {}),
    "negatives.level_high": (0.6, "cd_full", {}),
    "negatives.rows": ("all", "cd_full", {}),
    "negatives.curriculum": (0.5, "cd_full", {}),
    "replay.share": (0.5, "cd_full", {}),
    "replay.capacity": (9, "cd_full", {}),
    "replay.num_buckets": (4, "cd_full", {}),
    "replay.conditional": (False, "cd_full", {}),
    "replay.coin": ("batch", "cd_full", {}),
    "replay.curriculum": (0.5, "cd_full", {}),
    "filter.mode": ("running_quantile", "cd_full", {}),
    "filter.quantile": (0.5, "cd_full", {}),
    "filter.momentum": (0.5, "cd_full", RUNNING),
    "filter.thresholds": ((2.0,) * 10, "cd_full", FIXED),
    "filter.per_level": (False, "cd_full", {}),
    "filter.denoised": (False, "cd_full", {}),
    "loss.contrastive": ("hinge", "cd_full", {}),
    "loss.weight": (0.1, "cd_full", {}),
    "loss.warmup": (3, "cd_full", {}),
    "loss.tau": (2.0, "logistic", {}),
    "loss.margin": (2.0, "hinge", {}),
    "loss.per_element": (False, "logistic", {}),
    "loss.level_power": (2.0, "cd_full", {}),
    "loss.clamp": (0.5, "cd_full", {}),
    "loss.penalty": (0.001, "cd_full", {}),
    "precision.chains": ("bfloat16", "cd_full", {}),
    "precision.loss": ("tf32", "none", {}),
    "train.num_seeds": (2, "none", {}),
    "train.batch_size": (9, "none", {}),
    "train.block_rows": (3, "none", {}),
    "train.num_steps": (45, "none", {}),
    "train.denoise_share": (0.5, "cd_full", {}),
    "train.learning_rate": (1e-3, "none", {}),
    "train.lr_schedule": ("constant", "none", {}),
    "train.lr_warmup": (2, "none", {}),
    "train.beta1": (0.5, "none", {}),
    "train.beta2": (0.9, "none", {}),
    "train.grad_clip": (2.0, "none", {}),
    "train.ema_decay": (0.9, "none", {}),
    "train.ema_every": (2, "none", {}),
    "train.ema_warmup": (2, "none", {}),
    "train.steps_per_dispatch": (1, "none", {}),
    "train.log_every": (15, "none", {}),
    "train.eval_every": (25, "none", {}),
    "train.patience": (3, "none", {}),
    "eval.num_examples": (17, "none", {}),
    "eval.num_examples_running": (17, "none", {}),
    "eval.batch_size": (3, "none", {}),
    "eval.num_steps": (2, "none", {}),
    "eval.tolerance": (0.01, "none", {"eval__num_steps": 2}),
    "eval.double_steps": (True, "none", {"eval__num_steps": 2}),
    "eval.bounds": (1.5, "none", {}),
}
CHOICES = {"task.name": "addition", "energy.name": "none such"}
CHOICES |= {"precision.loss": "float16"}


@dataclasses.dataclass(frozen=True)
class Key:
    """Hashes a config by its text."""

    text: str
    config: object = dataclasses.field(compare=False)


def key_of(config) -> Key:
    return Key(str(flatten(config)), config)


@functools.cache
def step_of(key: Key) -> str:
    """The train step, compiled as far as the text of its program."""
    experiment = build(key.config)
    state = jax.eval_shape(experiment.init_state)
    return experiment.dispatch().lower(state).as_text()


@functools.cache
def inference_of(key: Key) -> str:
    """The program that answers."""
    experiment = build(key.config)
    x = jax.ShapeDtypeStruct((1, experiment.task.x_size), np.float32)
    index = jax.ShapeDtypeStruct((1,), np.int32)
    bounds = experiment.task.train.bounds
    answer = solver(experiment, experiment.evaluation, bounds)
    params = jax.eval_shape(experiment.problem.energy.init, jax.random.key(0))
    return answer.lower(params, x, index).as_text()


def frame_of(key: Key) -> tuple:
    """What is around the programs: seeds, periods and evaluation."""
    experiment = build(key.config)
    return experiment.seeds, experiment.periods, experiment.evaluation


def test_the_table_names_every_field_of_base():
    assert set(OTHER_VALUES) == set(flatten(base.get_config()))


@pytest.mark.parametrize("field", [name for name, v in OTHER_VALUES.items() if v])
def test_a_field_changes_the_run(field):
    value, name, needs = OTHER_VALUES[field]
    before = tiny.get_config(name, **needs)
    after = tiny.get_config(name, **(needs | {field.replace(".", "__"): value}))
    assert flatten(before)[field] != value
    parts = [step_of, inference_of]
    if field.split(".")[0] in ("seed", "eval", "train"):
        parts = [frame_of, *parts]
    first, second = key_of(before), key_of(after)
    assert any(part(first) != part(second) for part in parts)


@pytest.mark.parametrize("field", ["precision.chains", "precision.loss"])
def test_a_precision_changes_the_step_and_not_the_evaluation(field):
    value, name, needs = OTHER_VALUES[field]
    before = tiny.get_config(name, **needs)
    after = tiny.get_config(name, **(needs | {field.replace(".", "__"): value}))
    first, second = key_of(before), key_of(after)
    assert step_of(first) != step_of(second)
    assert inference_of(first) == inference_of(second)
    assert frame_of(first) == frame_of(second)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_field_that_a_config_does_not_read_is_refused(name):
    """In each config, each changed field is read, or refused by its name."""
    for field, other in OTHER_VALUES.items():
        if other is None:
            continue
        changed = {field.replace(".", "__"): other[0]}
        refusal = refusal_of(tiny.get_config(name, **changed))
        assert refusal is None or field.split(".")[-1] in refusal or "lev" in refusal


@pytest.mark.parametrize("field", CHOICES)
def test_a_choice_that_does_not_exist_is_refused(field):
    config = tiny.get_config("none", **{field.replace(".", "__"): CHOICES[field]})
    with pytest.raises(UserError, match=f"{field}='{CHOICES[field]}': allowed are"):
        build(config)


def test_a_field_that_base_does_not_name_is_refused_where_it_is_read():
    with pytest.raises(UserError, match=r"energy\.rank: is read, but is not a field"):
        Fields(tiny.get_config("none"))("energy.rank")


def refusal_of(config) -> str | None:
    try:
        build(config)
    except UserError as error:
        return str(error)
    return None


def test_the_weight_warms_up_from_the_first_step_with_negatives():
    config = tiny.get_config(
        "on_trajectory", train__denoise_share=0.5, loss__weight=8.0, loss__warmup=4
    )
    experiment = build(config)
    first = config.train.num_steps // 2
    assert experiment.contrast_from == first
    weights = [float(experiment.contrast.weight(first + i)) for i in (-1, 0, 1, 4, 9)]
    np.testing.assert_allclose(weights, [0, 0, 2, 8, 8])


BAD_VALUES = [
    ("none", "task.n", 0, "at least 1"),
    ("none", "train.batch_size", 0, "at least 1"),
    ("none", "train.batch_size", True, "type int"),
    ("none", "train.num_steps", 7, "multiple of"),
    ("none", "train.learning_rate", -1.0, "above 0"),
    ("none", "diffusion.num_levels", 0, "at least 1"),
    ("none", "diffusion.schedule", "linear", "more than 20"),
    ("none", "seed", -1, "at least 0"),
    ("cd_full", "replay.capacity", 0, "at least 1"),
    ("cd_full", "replay.capacity", 10**13, "GiB"),
    ("cd_full", "replay.num_buckets", 11, "at most"),
    ("cd_full", "negatives.level_low", 0.9, "low <= high"),
    ("cd_full", "filter.mode", "fixed", "one residual for each"),
    ("cd_full", "filter.quantile", 1.0, "below 1"),
    ("cd_full", "loss.contrastive", "none", "must not be 'none'"),
    ("cd_full", "sampler.num_steps", 0, "at least 1"),
    ("none", "sampler.num_steps", 30, "would change nothing"),
    ("none", "loss.weight", 0.5, "would change nothing"),
    ("nce_noise", "replay.share", 0.5, "must be 0"),
    ("nce_noise", "precision.chains", "tf32", "would change nothing"),
    ("cd_langevin", "replay.capacity", 5, "would change nothing"),
]


@pytest.mark.parametrize("name, field, value, allowed", BAD_VALUES)
def test_a_value_that_cannot_work_is_refused_in_a_sentence(name, field, value, allowed):
    config = tiny.get_config(name)
    group, _, leaf = field.rpartition(".")
    target = config[group] if group else config
    with target.ignore_type():
        target[leaf] = value
    with pytest.raises(UserError) as caught:
        build(config)
    message = str(caught.value)
    assert leaf in message or allowed in ("low <= high", "one residual for each")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("presets", ["", "mlp", "smoke", "classic", "cpu,classic"])
def test_every_config_takes_every_preset(name, presets):
    config = importlib.import_module(f"configs.{name}").get_config(presets)
    experiment = build(config)
    if "cpu" in presets or "smoke" in presets:
        for steps in (
            config.loss.warmup,
            config.train.lr_warmup,
            config.train.ema_warmup,
        ):
            assert steps <= experiment.periods.num_steps / 5
    if "classic" in presets and experiment.contrast is not None:
        assert not experiment.contrast.in_nats


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset 'tpu' is unknown: allowed are"):
        tiny.get_config("none", "tpu")


def second_update(name: str):
    """Update of the second step (the buffer is filled) at full weight, flat."""
    shared = {"train__beta1": 0.0, "train__beta2": 0.5}
    warm = {} if name == "none" else {"loss__warmup": 0}
    experiment = build(tiny.get_config(name, **shared, **warm))
    steps = jax.jit(lambda state: training.repeat(experiment.step_fn, 2)(state)[0])
    first = experiment.init_state()
    updates = jax.tree.map(lambda a, b: a - b, steps(first).params, first.params)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(updates)])


def test_the_variants_are_different_runs():
    """Same seed, same data, same optimizer: the negatives alone tell them apart."""
    gradients = {name: second_update(name) for name in tiny.NAMES}
    for a, b in itertools.combinations(gradients, 2):
        scale = np.linalg.norm(gradients[a])
        assert np.linalg.norm(gradients[a] - gradients[b]) > 1e-3 * scale, (a, b)


def test_classic_is_a_different_run():
    default = key_of(tiny.get_config("cd_full"))
    assert step_of(default) != step_of(
        key_of(tiny.get_config("cd_full", "smoke,classic"))
    )


def test_one_bucket_a_level_and_more_than_that_is_the_same_run():
    """16 buckets over 10 levels leave 6 empty: same starts, same parameters."""
    results = []
    for buckets in (10, 16):
        config = tiny.get_config(
            "cd_full", replay__conditional=False, replay__num_buckets=buckets
        )
        experiment = build(config)
        steps = jax.jit(training.repeat(experiment.step_fn, 2))
        results.append(steps(experiment.init_state())[0].params)
    chex.assert_trees_all_equal(*results)
