"""One suite over a table of every objective; its formula stands in a file of its own.

What a train step relies on: rows that the key alone sets, a loss that is a mean over
them (so that blocks and devices may share them out), a gradient that reaches the
energy, a memory that keeps its shapes, and metrics that are declared.
"""

from functools import partial

import chex
import jax
import numpy as np
import pytest

import ired_jax.objectives
from experiments.build import build
from ired_jax import training
from ired_jax.fields import Package
from ired_jax.objectives.base import Context, lowered, prepared
from ired_jax.types import streams
from tests import tiny, toys
from tests.mutants import Mutant, one

EVERY = {  # a config that has it, small
    "contrast": partial(tiny.get_config, "cd_full"),
    "denoising": partial(tiny.get_config, "none"),
    "proposal": partial(tiny.get_config, "connectivity"),
    "unrolled": partial(tiny.get_config, "none", objectives=("unrolled",)),
}


def test_every_objective_is_in_the_table():
    assert set(EVERY) == set(Package(ired_jax.objectives))


@pytest.mark.parametrize("name", EVERY)
def test_an_objective_is_what_a_train_step_relies_on(name):
    experiment = build(EVERY[name]())
    objective, state = experiment.objectives[name], tiny.drawn_state(experiment)
    state = jax.device_put(state)
    memory, params = state.memory[name], state.params
    at = Context(np.int32(1000), np.float32(0.5), None, params, params)

    @toys.jit
    def prepare(key):
        batch = training.draw_examples(
            experiment.task.train, experiment.train_data, key, 0, experiment.batch_size
        )
        given = objective.prepare(at._replace(key=streams(key, 0)), memory, batch)
        return prepared(name, objective, given, memory)

    def loss(energy_params, rows):
        given = objective.loss(energy_params, params.own[name], rows, at)
        return lowered(name, objective, given)

    rows, after, _ = first = prepare(jax.random.key(0))
    chex.assert_trees_all_equal(first, prepare(jax.random.key(0)))
    other = jax.tree.leaves(prepare(jax.random.key(1))[0])
    pairs = zip(jax.tree.leaves(rows), other, strict=True)
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, memory)

    even = len(other[0]) // 2 * 2
    rows = jax.tree.map(lambda leaf: leaf[:even], rows)
    whole, grad = toys.jit(jax.value_and_grad(loss, has_aux=True))(params.energy, rows)
    chex.assert_tree_all_finite(grad)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grad))
    of_half = toys.jit(partial(loss, params.energy))
    halves = [
        of_half(jax.tree.map(lambda leaf, part=part: leaf[part], rows))
        for part in (slice(even // 2), slice(even // 2, even))
    ]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    chex.assert_trees_all_close(mean, whole, rtol=1e-4, atol=1e-5)


MUTANTS = [
    Mutant(
        "objectives",
        "a sum over rows for their mean",
        "ired_jax.objectives.unrolled",
        one("errors = jnp.mean(jax.vmap", "errors = jnp.sum(jax.vmap"),
        test_an_objective_is_what_a_train_step_relies_on,
        {"name": "unrolled"},
    ),
]
