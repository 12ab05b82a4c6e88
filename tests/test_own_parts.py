"""Parts of one's own that give what their place does not take: one sentence each."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from experiments import cli
from experiments.build import build
from experiments.errors import UserError
from experiments.parts import known_of_task, make_energy
from ired_jax import training
from ired_jax.diffusion import make_schedule
from ired_jax.losses import make_logistic
from ired_jax.negatives.adversarial import make_adversarial
from ired_jax.negatives.base import ChainInfo, Strategy, keep, make_units
from ired_jax.negatives.noise import make_noise
from ired_jax.objectives.base import Context, Objective, Parameters
from ired_jax.objectives.contrast import Weight, make_contrast
from ired_jax.objectives.denoising import make_denoising
from ired_jax.objectives.pairs import Levels
from ired_jax.objectives.unrolled import make_unrolled
from ired_jax.tasks.base import Metric, Source, Task, refuse_misfits_of_splits
from ired_jax.types import Box, Energy, Example, PartError
from tests.mutants import Mutant, one

MAKERS = {
    "task.name": "Task",
    "energy.name": "Energy",
    "negatives.strategy": "Strategy",
    "objectives": "Objective",
}


@pytest.mark.parametrize("field", MAKERS)
def test_a_maker_that_gives_no_part_is_refused_by_its_field(field):
    several = field == "objectives"
    given = {"objectives": ("denoising", "contrast"), "train.num_steps": 10}
    given |= {field: ("denoising", "tests.wrong") if several else "tests.wrong"}
    with pytest.raises(UserError) as caught:
        build(given)
    sentence = f"{field}='tests.wrong': its maker gives NoneType, must give"
    assert str(caught.value) == f"{sentence} {MAKERS[field]}"


def test_a_field_of_the_tasks_before_names_the_way_to_it():
    """The readers of data are a choice of the same name, and lead nowhere here."""
    with pytest.raises(UserError, match=r"task.n: is a field only with task.name='"):
        build({"task.name": "tests.wrong", "task.n": 3})


@pytest.mark.parametrize("energy", ["board", "closure", "route"])
def test_an_energy_of_other_examples_than_the_tasks_is_refused(energy):
    with pytest.raises(UserError, match=r"^energy.name: it does not take the exam"):
        build({"energy.name": energy, "train.num_steps": 10})


def of_boards(params, x, y, t):
    chex.assert_shape(y, (9, 9, 9))
    return scalar(params, x, y, t)


def test_an_energy_that_looks_at_shapes_is_refused_by_what_it_says():
    example = Example(jnp.ones(4), jnp.ones(4))
    with pytest.raises(UserError, match=r"examples of this task.name: .*\(9, 9, 9\)"):
        make_energy(Energy(lambda key: 1.0, of_boards), example)


def vector(params, x, y, t):
    return params * (y - x) ** 2


def scalar(params, x, y, t):
    return jnp.sum(vector(params, x, y, t))


def prepare(context, memory, batch):
    return batch, memory, {}


def loss_of(energy):
    def loss(params, own, rows, context):
        def error(x, y):
            return jnp.sum(jax.grad(energy, argnums=2)(params, x, y, 0))

        return jnp.mean(jax.vmap(error)(rows.x, rows.y)), {}

    return loss


FINE = {"apply": scalar, "prepare": prepare, "loss": None}
VALUES = jnp.ones(4)
DECLARED = {"(own|train)/(all|loss)": ("-", "what the tests give")}
WRONG = {
    "energy: apply gives float32[3] for one example": {"apply": vector},
    "energy: apply gives int for one example, must give a float": {
        "apply": lambda params, x, y, t: t
    },
    "prepare of 'own' gives (Example, ()), must give (rows, memory, metrics)": {
        "prepare": lambda context, memory, batch: (batch, memory)
    },
    "prepare of 'own' gives list for metrics": {
        "prepare": lambda context, memory, batch: (batch, memory, [])
    },
    "loss of 'own' gives float32[], must give (mean over rows, a float of shape (), ": {
        "loss": lambda *_: VALUES[0]
    },
    "loss of 'own' gives (float32[4], dict), must give": {
        "loss": lambda *_: (VALUES, {})
    },
    "loss of 'own' gives (int32[], dict), must give": {
        "loss": lambda *_: (jnp.int32(0), {})
    },
    "loss of 'own' gives float32[4] for the metric 'own/all', must give a number": {
        "loss": lambda *_: (VALUES[0], {"own/all": VALUES})
    },
    "loss of 'own' gives the metric 'own/new', which must be declared": {
        "loss": lambda *_: (VALUES[0], {"own/new": VALUES[0]})
    },
    "the metric 'own/loss' is given twice": {
        "prepare": lambda context, memory, batch: (
            *(batch, memory),
            {"own/loss": VALUES[0]},
        ),
        "loss": lambda *_: (VALUES[0], {"own/loss": VALUES[0]}),
    },
    "the metric 'train/loss' is given twice": {
        "prepare": lambda context, memory, batch: (
            *(batch, memory),
            {"train/loss": VALUES[0]},
        )
    },
    "prepare of 'own' gives another memory than it got": {
        "prepare": lambda context, memory, batch: (batch, VALUES, {})
    },
}


def step_of(apply, prepare, loss):
    """A train step of an objective of one's own and its first state, as shapes."""
    energy = Energy(lambda key: jnp.float32(1), apply)
    own = Objective(prepare, loss or loss_of(energy), metrics=DECLARED)
    return step_on(energy, {"own": own})


def step_on(energy, objectives):
    """A train step and its first state, as shapes."""
    draw = lambda data, key: Example(*jax.random.normal(key, (2, 3)))  # noqa: E731
    optimizer = optax.sgd(0.1)
    step = training.make_train_step(
        Source(draw, lambda x: None),
        objectives,
        optimizer=optimizer,
        batch_size=ROWS,
        num_steps=10,
        ema=training.Ema(),
    )
    state = jax.eval_shape(
        lambda: training.init_state(
            jax.random.key(0),
            energy=energy,
            objectives=objectives,
            optimizer=optimizer,
            example=Example(jnp.zeros(3), jnp.zeros(3)),
        )
    )
    return jax.eval_shape(step, state, ())


@pytest.mark.parametrize("sentence", WRONG)
def test_a_part_that_gives_something_else_is_named_before_a_step(sentence):
    with pytest.raises(PartError) as caught:
        step_of(**(FINE | WRONG[sentence]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_place_takes_is_taken():
    state, metrics = step_of(**FINE)
    assert metrics["train/loss"].shape == state.step.shape == ()


LEVELS, ROWS = make_schedule("cosine", 10), 8


def contrast_of(loss_energy, strategy):
    return make_contrast(
        *(loss_energy, loss_energy, LEVELS, None, None),
        batch_size=ROWS,
        units=make_units(LEVELS),
        strategy=strategy,
        pair_loss=make_logistic(),
        levels=Levels(),
        weight=Weight(),
    )


OBJECTIVES = {
    "contrast": partial(contrast_of, strategy=make_noise(LEVELS, None)),
    "denoising": partial(make_denoising, LEVELS, box=None),
    "own path": partial(make_denoising, LEVELS, box=None, own_share=1.0),
    "unrolled": partial(make_unrolled, LEVELS, box=None, own_share=0.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_energy_that_gives_a_vector_is_named_by_every_objective(name):
    energy = Energy(lambda key: jnp.float32(1), vector)
    objective = OBJECTIVES[name](loss_energy=energy)
    with pytest.raises(PartError, match=r"^energy: apply gives float32\[3\] for one"):
        step_on(energy, {"own": objective})


def test_a_landscape_that_gives_a_vector_is_named():
    """By a chain, and where there is none by the loss."""
    bind = lambda params, x, t: lambda y: vector(params, x, y, t)  # noqa: E731
    energy = Energy(lambda key: jnp.float32(1), scalar, bind)
    chain = make_adversarial(LEVELS, None, make_units(LEVELS))
    for strategy in (chain, make_noise(LEVELS, None)):
        with pytest.raises(PartError, match=r"^energy: bind gives float32\[3\] for"):
            step_on(energy, {"own": contrast_of(energy, strategy)})


BOX = Box(-1.0, 1.0)
METRIC = Metric(lambda x, truth, answer: jnp.mean(answer - truth), "low", "-")
TASKS = {
    "draw gives (float32[3], float32[3]), must give Example(x, y)": {
        "draw": lambda data, key: (VALUES[:3], VALUES[:3])
    },
    "draw gives int32[3] for y, must give floats": {
        "draw": lambda data, key: Example(VALUES[:3], jnp.arange(3))
    },
    "train is function, must be a Source": {"train": lambda data, key: None},
    "box is Box, must be a function x -> Box": {"box": BOX},
    "box is (float32[], float32[]), must be": {"box": lambda x: (x[0], x[0])},
    "box has sides (float32[4], float32[4]), must be like y, float32[3], or numbers": {
        "box": lambda x: Box(VALUES, VALUES)
    },
    "metric 'm' is function, must be a Metric": {"metric": METRIC.of_row},
    "metric 'm' gives float32[3] for one answer, must give a number": {
        "metric": METRIC._replace(of_row=lambda x, truth, answer: answer)
    },
}


SPLITS = {
    "corrupt gives float32[2], must give an answer like y, float32[3]": {
        "corrupt": lambda key, x, y: y[:2]
    },
    "round gives float32[], must give an answer like y": {"round": jnp.sum},
    "solver 'own' gives float32[1], must give an answer like y": {
        "solvers": {"own": lambda x: x[:1]}
    },
    "residual gives float32[3] for one answer, must give a number": {
        "residual": lambda x, y: y
    },
    "split 'val' draws (float32[4], float32[4]), training (float32[3], float32[3]):": {
        "splits": {"val": Source(lambda data, key: Example(VALUES, VALUES))}
    },
    "box is float, must be a function": {
        "splits": {"val": Source(lambda data, key: Example(*[VALUES[:3]] * 2), 1.0)}
    },
}


@pytest.mark.parametrize("sentence", SPLITS)
def test_what_a_run_meets_later_is_looked_at_before_it_begins(sentence):
    with pytest.raises(PartError) as caught:
        refuse_misfits_of_splits(task_of()._replace(**SPLITS[sentence]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_splits_of_another_size_and_right_answers_are_taken():
    larger = {"val": Source(lambda data, key: Example(VALUES, VALUES))}
    fine = task_of()._replace(
        solvers={"own": lambda x: x},
        corrupt=lambda key, x, y: -y,
        round=jnp.sign,
        residual=lambda x, y: jnp.sum(y - x),
    )
    refuse_misfits_of_splits(fine)
    refuse_misfits_of_splits(fine._replace(splits=larger, fitted=()))


def test_splits_without_names_are_refused():
    with pytest.raises(PartError, match="splits is list, must map names to Sources"):
        known_of_task(task_of()._replace(splits=[task_of().train]))


def task_of(
    draw=lambda data, key: Example(VALUES[:3], VALUES[:3]),
    box=lambda x: BOX,
    metric=METRIC,
    train=None,
):
    source = train or Source(draw, box)
    return Task(source, {"val": Source(draw)}, {"m": metric}, "val/m")


@pytest.mark.parametrize("sentence", TASKS)
def test_a_task_that_gives_something_else_is_named_before_a_step(sentence):
    with pytest.raises(PartError) as caught:
        known_of_task(task_of(**TASKS[sentence]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tasks_that_fit_are_taken():
    for box in (None, lambda x: None, lambda x: Box(-VALUES[:3], 1.0)):
        assert known_of_task(task_of(box=box))["box"] is box


NONE = jnp.zeros(ROWS)
INFO = ChainInfo(NONE, NONE, NONE)
STRATEGIES = {
    "start gives float32[3], must give y like the rows' y0, float32[8,3]": {
        "start": lambda key, rows, progress: rows["y0"][0]
    },
    "refine gives float32[8,3], must give (y, ChainInfo)": {
        "refine": lambda key, landscape, rows, y, progress: y
    },
    "refine gives (float32[8,3], dict), must give (y, ChainInfo)": {
        "refine": lambda key, landscape, rows, y, progress: (y, INFO._asdict())
    },
    "refine gives (float32[3], ChainInfo), must give": {
        "refine": lambda key, landscape, rows, y, progress: (y[0], INFO)
    },
    "refine gives float32[] for clipped, must give a number for each of 8 rows": {
        "refine": lambda key, landscape, rows, y, progress: (
            y,
            INFO._replace(clipped=NONE[0]),
        )
    },
}


@pytest.mark.parametrize("sentence", STRATEGIES)
def test_a_strategy_that_gives_something_else_is_named_before_a_step(sentence):
    fine = Strategy(lambda key, rows, progress: rows["y0"], keep)
    energy = Energy(lambda key: jnp.float32(1), scalar)
    contrast = contrast_of(energy, fine._replace(**STRATEGIES[sentence]))
    rows = jnp.zeros((ROWS, 3))
    streams = lambda stream: jax.random.key(stream)  # noqa: E731
    params = Parameters(jnp.float32(1), {})
    context = Context(jnp.int32(0), jnp.float32(0), streams, params, params)
    with pytest.raises(PartError) as caught:
        jax.eval_shape(lambda: contrast.prepare(context, {}, Example(rows, rows)))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_ends_with_the_sentence_of_a_part(capsys):
    def main(argv):
        raise PartError("energy: apply gives nothing")

    with pytest.raises(SystemExit) as caught:
        cli.run(main, ["command"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: energy: apply gives nothing\n"


MUTANTS = [
    Mutant(
        "new",
        "a solver of another shape is compared with the model",
        "ired_jax.tasks.base",
        one(
            "if jax.tree.map(jnp.shape, answer) != jax.tree.map(jnp.shape, y):",
            "if False:",
        ),
        test_what_a_run_meets_later_is_looked_at_before_it_begins,
        {"sentence": "solver 'own' gives float32[1], must give an answer like y"},
    ),
    Mutant(
        "new",
        "a task is asked for what its parts have before they are looked at",
        "experiments.parts",
        one("    refuse_misfits(task)\n", ""),
        test_a_task_that_gives_something_else_is_named_before_a_step,
        {"sentence": "metric 'm' is function, must be a Metric"},
        error=AttributeError,
    ),
    Mutant(
        "new",
        "what a maker gives is not looked at",
        "experiments.fields",
        one("        _refuse_other_kind(name, value, made, item.kind)\n", ""),
        test_a_maker_that_gives_no_part_is_refused_by_its_field,
        {"field": "objectives"},
        error=AttributeError,
    ),
    Mutant(
        "new",
        "a choice leads where it makes nothing either",
        "experiments.fields",
        one("        return now == value\n", "        pass\n"),
        test_a_field_of_the_tasks_before_names_the_way_to_it,
    ),
    Mutant(
        "new",
        "a loss of one's own may give a vector",
        "ired_jax.objectives.base",
        one(" or not is_number(given[0])", ""),
        test_a_part_that_gives_something_else_is_named_before_a_step,
        {"sentence": "loss of 'own' gives (float32[4], dict), must give"},
        error=TypeError,
    ),
    Mutant(
        "new",
        "a loss of one's own may give an integer",
        "ired_jax.objectives.base",
        one(" or not is_float(given[0])", ""),
        test_a_part_that_gives_something_else_is_named_before_a_step,
        {"sentence": "loss of 'own' gives (int32[], dict), must give"},
        error=TypeError,
    ),
    Mutant(
        "new",
        "an energy of one's own may give a vector",
        "ired_jax.types",
        one("    if not is_number(value) or ", "    if "),
        test_a_part_that_gives_something_else_is_named_before_a_step,
        {"sentence": next(iter(WRONG))},
        error=TypeError,
    ),
    *(
        Mutant(
            "new",
            f"an energy is called past its check in {module}",
            f"ired_jax.objectives.{module}",
            one("jax.grad(energy, argnums=2)", "jax.grad(energy.apply, argnums=2)"),
            test_an_energy_that_gives_a_vector_is_named_by_every_objective,
            {"name": name},
            error=TypeError,
        )
        for module, name in (("paths", "own path"), ("unrolled", "unrolled"))
    ),
    Mutant(
        "new",
        "a landscape may give a vector",
        "ired_jax.types",
        one('_one_float("bind", energy_fn(y))', "energy_fn(y)"),
        test_a_landscape_that_gives_a_vector_is_named,
        error=TypeError,
    ),
    Mutant(
        "new",
        "a metric of one's own may give a vector",
        "ired_jax.tasks.base",
        one("        if not is_number(value):", "        if 0:"),
        test_a_task_that_gives_something_else_is_named_before_a_step,
        {"sentence": [*TASKS][-1]},
    ),
    Mutant(
        "new",
        "two objectives write one metric",
        "ired_jax.objectives.base",
        one("set(metrics) & set(more)", "()"),
        test_a_part_that_gives_something_else_is_named_before_a_step,
        {"sentence": "the metric 'own/loss' is given twice"},
    ),
    Mutant(
        "new",
        "one number for the chains of all rows",
        "ired_jax.negatives.base",
        one("if jnp.shape(of_rows) != num_rows:", "if 0:"),
        test_a_strategy_that_gives_something_else_is_named_before_a_step,
        {"sentence": [*STRATEGIES][-1]},
    ),
    Mutant(
        "new",
        "an energy of other examples ends in a traceback",
        "experiments.parts",
        one("except (AssertionError, ValueError)", "except (KeyError, ValueError)"),
        test_an_energy_that_looks_at_shapes_is_refused_by_what_it_says,
        error=AssertionError,
    ),
]
