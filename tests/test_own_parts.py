"""Parts of one's own that give what their place does not take: one sentence each."""

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments import cli
from experiments.build import build
from experiments.errors import UserError
from ired_jax import training
from ired_jax.objectives.base import Objective
from ired_jax.tasks.base import Source
from ired_jax.types import Energy, Example, PartError
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
WRONG = {
    "energy: apply gives float32[3] for one example": {"apply": vector},
    "prepare of 'own' gives (Example, ()), must give (rows, memory, metrics)": {
        "prepare": lambda context, memory, batch: (batch, memory)
    },
    "prepare of 'own' gives list for metrics": {
        "prepare": lambda context, memory, batch: (batch, memory, [])
    },
    "loss of 'own' gives float32[], must give (mean over rows, of shape (), metrics)": {
        "loss": lambda *_: VALUES[0]
    },
    "loss of 'own' gives (float32[4], dict), must give": {
        "loss": lambda *_: (VALUES, {})
    },
    "loss of 'own' gives float32[4] for the metric 'own/all', must give a number": {
        "loss": lambda *_: (VALUES[0], {"own/all": VALUES})
    },
}


def step_of(apply, prepare, loss):
    """A train step and its first state, as shapes."""
    energy = Energy(lambda key: jnp.float32(1), apply)
    objectives = {"own": Objective(prepare, loss or loss_of(energy))}
    draw = lambda data, key: Example(*jax.random.normal(key, (2, 3)))  # noqa: E731
    optimizer = optax.sgd(0.1)
    step = training.make_train_step(
        Source(draw, lambda x: None),
        objectives,
        optimizer=optimizer,
        batch_size=4,
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
        "an energy of one's own may give a vector",
        "ired_jax.types",
        one("        if not is_number(value):", "        if 0:"),
        test_a_part_that_gives_something_else_is_named_before_a_step,
        {"sentence": next(iter(WRONG))},
        error=TypeError,
    ),
]
