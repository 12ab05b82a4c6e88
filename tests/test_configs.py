"""Every config is a different run, and every field of it changes the run."""

import dataclasses
import functools
import importlib
import itertools
import re

import chex
import jax
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from configs import base
from experiments import configuration, fields
from experiments.build import build, make_experiment, resolve
from experiments.errors import UserError
from experiments.schema import everything, schema
from experiments.score.scorer import solver
from tests import plain, tiny
from tests.mutants import Mutant, one

INVERSIONS = [
    name for name in tiny.NAMES if tiny.get_config(name).task.name == "inverse"
]
FIRST = ("none", "cd_full", "sudoku")
ALONE = plain.of(4) | {"objectives": ("contrast",)}  # a smaller program
ASSUMED = {"eval.moves": 2, "eval.move": "assumption"}
PUZZLES = {"data.num_puzzles": 8, "data.num_held_out": 4}
# Configs that together have every field: (name, presets, fields). Whatever is not of a
# network is traced with a plain one.
CONFIGS = (
    ("none", "smoke", plain.of(4)),
    ("cd_full", "smoke", ALONE),
    # Its network looks at y, so that what y is matters.
    ("sudoku", "smoke", PUZZLES),
    *((name, "smoke", plain.of(4)) for name in INVERSIONS if name not in FIRST),
    *((name, "smoke", {}) for name in tiny.NAMES if name not in FIRST[1:]),
    ("none", "smoke,mlp", {}),
    ("sudoku", "smoke", PUZZLES | plain.PROPOSING | ASSUMED),
    ("none", "smoke", plain.of(4) | {"eval.moves": 2}),
    ("none", "smoke", plain.of(4) | {"objectives": ("unrolled",)}),
    *(
        ("cd_full", "smoke", ALONE | filtered)
        for filtered in (
            {"filter.mode": "running_quantile"},
            {"filter.mode": "fixed", "filter.thresholds": (1.0,) * 10},
        )
    ),
)
# What a field needs to have another value, or to be seen.
NEEDS = {
    "diffusion.schedule": {"diffusion.num_levels": 21, "filter.mode": "none"},
    "eval.tolerance": {"eval.num_steps": 2},
    "eval.double_steps": {"eval.num_steps": 2},
    "energy.spectral_norm": {"energy.name": "mlp"},
    "negatives.strategy": {"replay.share": 0.0},
}
# Few tasks fit an energy: the configs are the pairs that do.
STRUCTURE = ("task.name", "energy.name")


def cases() -> dict[str, tuple]:
    """{name of a test: (a config that has the field, the field)}, each field once."""
    found, seen = {}, set()
    for index, (name, presets, more) in enumerate(CONFIGS):
        config = importlib.import_module(f"configs.{name}").get_config(presets)
        given = fields.replace(make_experiment, fields.flatten(config), more)
        for field, spec in schema(make_experiment, given).items():
            if (field, spec.field) not in seen and field not in STRUCTURE:
                seen.add((field, spec.field))
                found[f"{field}-{name}-{index}"] = (given, field)
    return found


CASES = cases()


@dataclasses.dataclass(frozen=True)
class Key:
    """Hashes a config by its text."""

    text: str
    config: object = dataclasses.field(compare=False)


def key_of(config) -> Key:
    return Key(str(fields.flatten(config)), config)


@functools.cache
def built(key: Key):
    return build(key.config)


def program(jitted, *arguments) -> tuple:
    """What it computes: a text without what nothing depends on, and its constants."""
    jaxpr = jitted.trace(*arguments).jaxpr
    used, _ = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))
    return str(used), *(np.asarray(const).tobytes() for const in jaxpr.consts)


def state_of(key: Key):
    """The shapes of all that is trained and remembered."""
    return built(key).shapes


@functools.cache
def step_of(key: Key) -> list[tuple]:
    """The train steps of all phases."""
    experiment, state = built(key), state_of(key)
    steps = [experiment.dispatch(p) for p in range(len(experiment.phases))]
    return [program(step, state, experiment.train_data) for step in steps]


@functools.cache
def inference_of(key: Key) -> tuple:
    """The program that answers."""
    experiment = built(key)
    rows = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype),
        experiment.task.example.x,
    )
    answer = solver(experiment, experiment.task.train)
    params = jax.eval_shape(experiment.energy.init, jax.random.key(0))
    index = jax.ShapeDtypeStruct((1,), np.int32)
    return program(answer, params, rows, index)


def frame_of(key: Key) -> tuple:
    """What is around the programs."""
    e = built(key)
    sizes = [str(source.example) for source in e.task.splits.values()]
    return e.seeds, e.periods, e.phases, e.evaluation, e.inference.restarts, sizes


def data_of(key: Key) -> list[bytes]:
    """The finite sets."""
    task = built(key).task
    sets = [source.data for source in (task.train, *task.splits.values())]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(sets)]


def changed(given, field):
    """The tiny config, and the same with another value of the field."""
    needs = NEEDS.get(field, {})
    there = schema(make_experiment, {**given, **needs})
    before = tiny.resized(given, {k: v for k, v in needs.items() if k in there})
    values = fields.flatten(before)
    spec = schema(make_experiment, values)[field]
    for value in fields.others(spec, values[field]):
        try:
            after = fields.nest(fields.replace(make_experiment, values, {field: value}))
            built(key_of(after))
        except UserError:
            continue
        return before, after
    raise AssertionError(f"{field}: no other value builds, its Field needs `other`")


def test_the_cases_cover_every_field_of_what_any_config_chooses():
    chosen = {}
    for given, _ in CASES.values():
        for name, value in fields.resolve(make_experiment, given).items():
            chosen.setdefault(name, set()).add(value)
    tested = {*STRUCTURE, *(field for _, field in CASES.values())}
    for spec in everything(make_experiment):
        tasks = [value in chosen[n] for n, value in spec.path if n.endswith(".name")]
        assert spec.name in tested or not all(tasks), spec.name


@pytest.mark.parametrize("case", CASES)
def test_a_field_changes_the_run(case):
    given, field = CASES[case]
    first, second = map(key_of, changed(given, field))
    group, parts = field.split(".")[0], [state_of, step_of, inference_of]
    if group == "eval":  # what it is likely to change, first
        parts.reverse()
    if group in ("data", "seed", "eval", "train", "task"):
        parts.insert(0, data_of if group == "data" else frame_of)
    assert any(part(first) != part(second) for part in parts)


@pytest.mark.parametrize("field", ["precision.chains", "precision.loss"])
def test_a_precision_changes_the_step_and_not_the_evaluation(field):
    config = tiny.get_config("cd_full", **plain.of(4))
    first, second = map(key_of, changed(fields.flatten(config), field))
    assert step_of(first) != step_of(second)
    assert inference_of(first) == inference_of(second)
    assert frame_of(first) == frame_of(second)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_field_that_a_config_does_not_have_is_refused(name):
    given = fields.flatten(tiny.get_config(name))
    for spec in everything(make_experiment):
        if spec.name not in given:
            with pytest.raises(UserError, match=f"^{spec.name}: is a field only with"):
                resolve({**given, spec.name: spec.default})


@pytest.mark.parametrize("field", ["task.name", "energy.name", "negatives.strategy"])
def test_a_choice_that_does_not_exist_is_refused(field):
    given = fields.flatten(tiny.get_config("cd_full"))
    with pytest.raises(UserError, match=f"^{field}='none such': allowed are"):
        resolve({**given, field: "none such"})


def test_the_weight_warms_up_from_the_first_step_with_negatives():
    config = tiny.get_config(
        "on_trajectory", train__denoise_share=0.5, loss__weight=8.0, loss__warmup=4
    )
    experiment = build(config)
    first = config.train.num_steps // 2
    assert experiment.phases == ((0, ("denoising",)), (first, config.objectives))
    assert [experiment.phase_at(first + i) for i in (-1, 0, 1)] == [0, 1, 1]
    weights = [float(experiment.contrast.weight(first + i)) for i in (-1, 0, 1, 4, 9)]
    np.testing.assert_allclose(weights, [0, 0, 2, 8, 8])


BAD_VALUES = [
    ("none", "seed", 2**32, "must be at least 0 and at most 4294966296"),
    ("none", "train.batch_size", True, "type int"),
    ("none", "diffusion.schedule", "linear", "more than 20"),
    ("none", "objectives", (), "at least one"),
    ("none", "objectives", (0.5,), "objectives=0.5: allowed are contrast, denoising"),
    ("none", "sampler.num_steps", 30, "is a field only with 'contrast' among"),
    ("cd_full", "replay.capacity", 10**13, "GiB"),
    ("cd_full", "replay.num_buckets", 11, "at most"),
    ("none", "train.num_steps", 7, "multiple of"),
    ("cd_full", "filter.mode", "fixed", "one residual for each"),
    ("cd_full", "loss.contrastive", "none", "allowed are cd"),
    ("nce_noise", "replay.share", 0.5, "must be 0"),
    ("nce_noise", "precision.chains", "tf32", "negatives.strategy='adversarial'"),
    ("cd_langevin", "replay.capacity", 5, "another replay.share"),
]


@pytest.mark.parametrize("name, field, value, allowed", BAD_VALUES)
def test_a_value_that_cannot_work_is_refused_in_a_sentence(name, field, value, allowed):
    with pytest.raises(UserError, match=re.escape(allowed)) as caught:
        build(tiny.get_config(name, **{field.replace(".", "__"): value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("presets", ["", "mlp", "smoke", "classic", "cpu,classic"])
def test_every_config_takes_every_preset(name, presets):
    config = importlib.import_module(f"configs.{name}").get_config(presets)
    given = fields.flatten(config)
    assert given == fields.differing(make_experiment, given)  # nothing but that
    assert "!!python" not in str(config)
    values = resolve(config)
    if "cpu" in presets or "smoke" in presets:
        steps = [values[k] for k in base.WARM_UPS if k in values]
        assert max(steps) <= values["train.num_steps"] / 5
    if "classic" in presets:
        assert values.get("negatives.units", "energy") == "energy"
        assert values.get("sampler.num_steps", 30) == 30


def test_what_presets_set_are_fields():
    names = {spec.name for spec in everything(make_experiment)}
    presets = (base.MLP, base.CPU, base.CPU_MLP, base.SMOKE, base.CLASSIC)
    assert names.issuperset(itertools.chain(*presets, base.WARM_UPS))
    assert names.issuperset(tiny.SIZES)


def two_steps_of(config):
    """The parameters after two steps of the last phase, and those before."""
    experiment = build(config)
    step, data = experiment.step_fns[-1], experiment.train_data

    @jax.jit
    def params_after(state):
        both = jax.lax.fori_loop(0, 2, lambda _, state: step(state, data)[0], state)
        return both.params

    first = experiment.init_state()
    return params_after(first), first.params


def second_update(name: str):
    """Of the second step (the buffer is filled) at full weight, flat."""
    shared = {"train__beta1": 0.0, "train__beta2": 0.5} | plain.of(4)
    warm = {} if name == "none" else {"loss__warmup": 0}
    last, first = two_steps_of(tiny.get_config(name, **shared, **warm))
    updates = jax.tree.map(lambda a, b: np.asarray(a) - b, last, first)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(updates)])


@pytest.mark.long
def test_the_variants_are_different_runs():
    """Same seed, same data, same optimizer: the negatives alone tell them apart."""
    gradients = {name: second_update(name) for name in INVERSIONS}
    for a, b in itertools.combinations(gradients, 2):
        scale = np.linalg.norm(gradients[a])
        assert np.linalg.norm(gradients[a] - gradients[b]) > 1e-3 * scale, (a, b)


def test_classic_is_a_different_run():
    presets = ("smoke", "smoke,classic")
    default, classic = (
        key_of(tiny.get_config("cd_full", p, **plain.of(4))) for p in presets
    )
    assert step_of(default) != step_of(classic)


def test_one_bucket_a_level_and_more_than_that_is_the_same_run():
    """16 buckets over 10 levels leave 6 empty: same starts, same parameters."""
    results = []
    for buckets in (10, 16):
        fields = {"conditional": False, "num_buckets": buckets}
        fields = {f"replay__{name}": value for name, value in fields.items()}
        config = tiny.get_config("cd_full", **ALONE, **fields)
        results.append(two_steps_of(config)[0])
    chex.assert_trees_all_equal(*results)


READ = "if isinstance(part, Field):\n        return value"


def never_read(field, instead):
    """A field that never reaches its maker, in the config that has it first."""
    wrong = f"{instead} if name == {field!r} else value"
    return Mutant(
        "12",
        f"{field} never reaches what it is for",
        "experiments.fields",
        one(READ, READ.replace("return value", f"return {wrong}")),
        test_a_field_changes_the_run,
        {"case": next(case for case in CASES if case.startswith(f"{field}-"))},
    )


BROKEN = [
    ("    config = {}", "get_config must return a ConfigDict, not NoneType"),
    ("    return {}['b']", "KeyError('b')"),
    ("    return ConfigDict().trian", "'trian'"),
]


@pytest.mark.parametrize("body, said", BROKEN)
def test_a_config_file_that_does_not_work_is_refused_in_a_sentence(
    body, said, tmp_path
):
    head = "from ml_collections import ConfigDict\ndef get_config(presets):\n"
    (tmp_path / "toy.py").write_text(f"{head}{body}\n")
    with pytest.raises(UserError) as caught:
        configuration.load(str(tmp_path / "toy.py"))
    assert "toy.py: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


MUTANTS = [
    Mutant(
        "configs",
        "a seed of which a key forgets the first bits, so that two are one",
        "experiments.build",
        one("at_most=LAST_SEED", "at_most=2**40"),
        test_a_value_that_cannot_work_is_refused_in_a_sentence,
        dict(zip(("name", "field", "value", "allowed"), BAD_VALUES[0], strict=True)),
        error=pytest.fail.Exception,
    ),
    never_read("energy.width", 8),
    never_read("train.learning_rate", 1e-4),
    never_read("energy.spectral_norm", False),
    never_read("sampler.num_steps", 3),
    Mutant(
        "configs",
        "a config may be nothing",
        "experiments.configuration",
        one("isinstance(given, Mapping | ConfigDict)", "True"),
        test_a_config_file_that_does_not_work_is_refused_in_a_sentence,
        {"body": BROKEN[0][0], "said": BROKEN[0][1]},
        AttributeError,
    ),
    Mutant(
        "configs",
        "a key that a config lacks is a traceback",
        "experiments.configuration",
        one("AttributeError, LookupError)", "AttributeError)"),
        test_a_config_file_that_does_not_work_is_refused_in_a_sentence,
        {"body": BROKEN[1][0], "said": BROKEN[1][1]},
        KeyError,
    ),
]
