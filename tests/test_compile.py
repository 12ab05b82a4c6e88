"""What the compiled step costs: work, memory, compilations, transfers, keys."""

import contextlib
import functools
import importlib
import logging
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.build import build, resolve
from ired_jax import training
from ired_jax.energies.mlp import TIME_WIDTH, make_mlp
from ired_jax.negatives.filters import ResidualFilter
from ired_jax.negatives.mixed import make_mixed
from ired_jax.objectives import pairs
from ired_jax.objectives.pairs import Replay
from ired_jax.tasks.base import Source
from ired_jax.types import Example
from tests import toys
from tests.mutants import Mutant, one, planted

# The sizes of record, of which only the compilation is paid here: nothing is run.
SIZE = 400  # elements of x and of y
WIDTH = 512
BATCH = 2048
ROWS = 1434
FILTER = ResidualFilter("running_quantile")


def source_of(size):
    return Source(partial(toys.draw, size=size), toys.box)


def record_contrast(num_steps):
    return toys.contrast(
        energy=make_mlp(SIZE, SIZE, width=WIDTH),
        strategy=toys.langevin(num_steps=num_steps, num_elements=SIZE, grad_clip=5.0),
        num_rows=ROWS,
        replay=Replay(),
        residual_filter=FILTER,
    )


def step_and_state(contrast, optimizer, size, batch_size):
    """A train step of the toys' source, and the shapes of its first state."""
    terms = toys.objectives(contrast, contrast.energy)
    step = training.make_train_step(
        source_of(size),
        terms,
        optimizer=optimizer,
        batch_size=batch_size,
        num_steps=100,
        ema=training.Ema(),
    )
    init = partial(
        training.init_state,
        energy=contrast.energy,
        objectives=terms,
        optimizer=optimizer,
        example=toys.example_of(size),
    )
    state = jax.eval_shape(lambda: init(jax.random.key(0)))
    return lambda state: step(state, ()), state


@functools.cache
def compiled_step(num_steps):
    """The whole train step, every part at work, its state donated."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-4))
    step, state = step_and_state(record_contrast(num_steps), optimizer, SIZE, BATCH)
    return toys.jit(step, donate_argnums=0).lower(state).compile()


def compiled_pairs(num_steps):
    """The negative phase alone, its buffer and filter included."""
    contrast = record_contrast(num_steps)

    def drawn(state, batch):
        context, memory = toys.context(state), state.memory["contrast"]
        return pairs.draw_pairs(contrast, context, memory, batch)

    _, state = step_and_state(contrast, optax.sgd(0.0), SIZE, BATCH)
    rows = jax.ShapeDtypeStruct((BATCH, SIZE), jnp.float32)
    return toys.jit(drawn).lower(state, Example(rows, rows)).compile()


def flops(compiled):
    return compiled.cost_analysis()["flops"]


# A hand count: 2 m n for each product of a vector with an m x n matrix, for one row.
# Forward through y, and back to y, are the same products.
OF_Y = 2 * (SIZE * WIDTH + 2 * WIDTH**2 + WIDTH * SIZE)
OF_X = 2 * SIZE * WIDTH
FIRST_OF_TIME = 2 * TIME_WIDTH**2
OF_TIME = FIRST_OF_TIME + 2 * (TIME_WIDTH**2 + 2 * TIME_WIDTH * 2 * WIDTH)
# In a gradient alone W W^T, made once, stands for the last layer and its transpose.
ONCE = 2 * SIZE * WIDTH**2
GRADIENT = 2 * OF_Y - 2 * 2 * SIZE * WIDTH + 2 * WIDTH**2
CHAIN_STEP = ROWS * GRADIENT
# Parameter gradients of a scalar cost one product for the weights and one for the
# input, but for the constant inputs x, y and the level's sinusoid.
PARAMETERS_OF_Y = 2 * OF_Y - OF_X
PARAMETERS_OF_TIME = 2 * OF_TIME - FIRST_OF_TIME


def negative_phase(num_steps):
    """Condition once, K times the gradient, and a gradient by E for the filter."""
    return ROWS * (OF_X + OF_TIME + 2 * OF_Y) + ONCE + num_steps * CHAIN_STEP


def whole_step(num_steps):
    """The denoising loss, the negative phase, and both energies of each pair.

    The gradient of a loss on grad_y E runs back through the forward and the backward
    pass, each twice its cost. Of the pair's energies, the negative one's forward pass
    is that of the filter, and their parts of x and t are one.
    """
    denoising = 3 * (2 * OF_Y + OF_X + OF_TIME) - OF_X - OF_X - FIRST_OF_TIME
    pair = OF_Y + 2 * PARAMETERS_OF_Y + OF_X + PARAMETERS_OF_TIME
    return BATCH * denoising + negative_phase(num_steps) + ROWS * pair


def counted(compiled, num_steps):
    """The compiled work: the body of the chain's scan is counted once by XLA."""
    return flops(compiled) + (num_steps - 1) * CHAIN_STEP


def test_dead_work_is_under_one_per_cent_of_the_step():
    # More than the products that are needed: elementwise work, draws, and dead work.
    extra = counted(compiled_step(10), 10) / whole_step(10) - 1
    assert 0 < extra < 0.01


# What a config's whole step costs, its data and optimizer included: one row of B each.
# What depends on the level alone is done once for each of 10 levels, .3 % of the rest.
# A = M M^T; the sweeps are elementwise, the body of a loop, and hardly counted.
DRAWING = 2 * SIZE**1.5
# grad_y E is a forward and a backward pass. The gradient of a loss on it runs back
# through both, two products for each; none to the constants x, y_t and the sinusoid.
DENOISING = 3 * (2 * OF_Y + OF_X) - OF_X - OF_X
# The chain's x part once, for both energies of the pair as well, then K gradients.
CHAIN = OF_X + 10 * GRADIENT + ONCE / BATCH
# Both energies, and their gradients of the parameters, those of the x part at once.
PAIR = 2 * (OF_Y + PARAMETERS_OF_Y) + OF_X
BY_HAND = {
    "none": DRAWING + DENOISING,
    "cd_langevin_replay": DRAWING + DENOISING + CHAIN + PAIR,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_compiled_step_of_a_config_does_the_products_counted_by_hand(name):
    config = importlib.import_module(f"configs.{name}").get_config("mlp")
    config.train.block_rows = BATCH  # all at once: XLA counts the body of a loop once
    values = resolve(config)
    sizes = [values[k] for k in ("task.n", "energy.width", "train.batch_size")]
    assert sizes == [SIZE**0.5, WIDTH, BATCH]
    experiment = build(config)
    state = experiment.shapes
    step = toys.jit(experiment.step_fns[-1], donate_argnums=0)
    step = step.lower(state, experiment.train_data).compile()
    bodies_not_counted = 9 * BATCH * GRADIENT if name != "none" else 0
    # Beyond the products: elementwise work and draws, 2 % at the most.
    extra = (flops(step) + bodies_not_counted) / (BATCH * BY_HAND[name]) - 1
    assert 0 < extra < 0.02


def test_dead_work_is_under_one_per_cent_of_the_negative_phase():
    extra = counted(compiled_pairs(10), 10) / negative_phase(10) - 1
    assert 0 < extra < 0.01


def test_the_body_of_a_chain_is_counted_once_whatever_its_length():
    assert flops(compiled_step(40)) == pytest.approx(flops(compiled_step(10)), rel=1e-4)


def test_the_fresh_starts_that_replay_replaces_cost_under_one_per_cent():
    contrast = record_contrast(10)
    rows = {
        "x": jax.ShapeDtypeStruct((ROWS, SIZE), jnp.float32),
        "y0": jax.ShapeDtypeStruct((ROWS, SIZE), jnp.float32),
        "t": jax.ShapeDtypeStruct((ROWS,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    start = toys.jit(lambda key, rows: contrast.strategy.start(key, rows, 0.0))
    fresh = flops(start.lower(key, rows).compile())
    assert 0 < fresh < 0.01 * counted(compiled_step(10), 10)


def test_memory_of_the_step_does_not_grow_with_the_chain():
    short, long = (compiled_step(k).memory_analysis() for k in (10, 40))
    # Nothing but one step size and one acceptance a row and step may be added.
    allowed = 2 * 4 * ROWS * 30
    assert long.temp_size_in_bytes <= short.temp_size_in_bytes + allowed
    assert allowed < 0.01 * 4 * ROWS * SIZE * 30  # what the states of the chain are


def test_a_step_does_not_hold_the_states_of_its_chain():
    num_steps, size = 1000, 64
    contrast = toys.contrast(strategy=toys.langevin(num_steps=num_steps))
    step, state = step_and_state(contrast, optax.sgd(0.1), size, toys.BATCH)
    memory = toys.jit(step).lower(state).compile().memory_analysis()
    states = 4 * toys.ROWS * size * num_steps
    assert memory.temp_size_in_bytes < 0.1 * states


def test_the_donated_state_is_updated_in_place():
    memory = compiled_step(10).memory_analysis()
    assert memory.alias_size_in_bytes == memory.argument_size_in_bytes
    ring = 10 * 10_000 * (3 * SIZE + 1) * 4
    assert memory.alias_size_in_bytes > ring  # the buffer is most of it
    assert memory.temp_size_in_bytes < ring  # and no second one exists


def test_the_states_of_several_seeds_are_held_once():
    config = importlib.import_module("configs.none").get_config("smoke,mlp")
    config.task.n, config.train.num_seeds, config.train.batch_size = 2, 8, 4
    experiment = build(config)
    state = experiment.shapes
    memory = (
        experiment.dispatch(0)
        .lower(state, experiment.train_data)
        .compile()
        .memory_analysis()
    )
    assert memory.alias_size_in_bytes == memory.argument_size_in_bytes
    one = memory.argument_size_in_bytes / 8
    assert memory.temp_size_in_bytes < 3 * one  # one at work, its update beside it


# A tiny step that does run


def tiny_contrast():
    return toys.contrast(
        replay=Replay(capacity=8),
        residual_filter=ResidualFilter("running_quantile"),
    )


@functools.cache
def tiny_step():
    """A step with replay and filter, and a state maker: each donation needs its own."""
    step, _ = toys.sgd_step(tiny_contrast())
    return toys.jit(chex.assert_max_traces(step, n=1), donate_argnums=0)


def tiny_state():
    return toys.sgd_step(tiny_contrast())[1]


class Compilations(logging.Handler):
    """Collects what jax says that it compiles."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        if "Compiling" in record.getMessage():
            self.messages.append(record.getMessage())


def compilations(function):
    """The log lines of the compilations while `function` runs."""
    handler, logger = Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            jax.block_until_ready(function())
    finally:
        logger.removeHandler(handler)
    return handler.messages


def test_the_second_call_compiles_nothing_and_consumes_its_state():
    step, first = tiny_step(), tiny_state()
    state, _ = step(first)
    rings = first.memory["contrast"]["replay"]
    leaves = [first.params.energy["theta"], first.key, rings.rows["y"]]
    assert all(leaf.is_deleted() for leaf in leaves)
    assert compilations(lambda: step(state)) == []
    assert compilations(lambda: jax.jit(lambda x: x + 1)(np.ones(3)))  # it would show


def test_a_step_moves_nothing_between_host_and_device():
    state, _ = tiny_step()(tiny_state())
    with jax.transfer_guard("disallow"):
        state, metrics = tiny_step()(state)
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            jax.jit(jnp.sin)(np.ones(3))  # the guard does guard
    assert np.isfinite(float(metrics["train/loss"]))


def test_no_tracer_leaks_from_a_step():
    step, state = toys.sgd_step(tiny_contrast())
    with jax.checking_leaks():
        jax.jit(step).lower(state)


def mixed_contrast():
    chain = toys.langevin(num_steps=1)
    return toys.contrast(strategy=make_mixed(first=chain, second=chain, share=0.5))


@pytest.mark.parametrize("make", [tiny_contrast, mixed_contrast])
def test_no_random_key_is_used_twice(make):
    step, state = toys.sgd_step(make())
    with jax.debug_key_reuse(True):
        jax.jit(step).trace(state)


def test_a_key_that_is_used_twice_would_be_seen():
    def twice(key):
        return jax.random.normal(key) + jax.random.uniform(key)

    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(twice).trace(jax.random.key(0))


START = 'y = started(given, rows["y0"])'
START_REFINED = f"""{START}
    y, _ = spec.strategy.refine(
        context.key(Stream.CHAIN),
        lambda x, t: bind(spec.energy, params, x, t),
        rows,
        y,
        context.progress,
    )"""
GRADIENTS = "grads, more = _gradient(objectives, rows, context, block_rows)"
WITH_CHAINS = f"""{GRADIENTS}

        def held(params):
            term = objectives["contrast"]
            return term.loss(params.energy, (), rows["contrast"], context)[0]

        def through(params):
            term, moving = objectives["contrast"], context._replace(params=params)
            moved = term.prepare(moving, state.memory["contrast"], batch)[0]
            return term.loss(params.energy, (), moved, context)[0]

        right, wrong = (jax.grad(f)(state.params) for f in (held, through))
        grads = jax.tree.map(lambda g, a, b: g - a + b, grads, right, wrong)"""
STOPPED = 'jax.lax.stop_gradient((rows | {"y_pos": y_pos}, memory))'


@contextlib.contextmanager
def samples_with_gradient():
    """The other half of bug 007: what `prepare` returns is not held."""
    with planted(pairs, (STOPPED, '(rows | {"y_pos": y_pos}, memory)')):
        yield


def a_step_holds_its_chain():
    with samples_with_gradient():
        test_a_step_does_not_hold_the_states_of_its_chain()


MUTANTS = [
    Mutant(
        "007",
        "the loss differentiates through the chain and keeps its graph",
        "ired_jax.training",
        one(GRADIENTS, WITH_CHAINS),
        a_step_holds_its_chain,
    ),
    Mutant(
        "009",
        "fresh starts refined before replayed ones replace them",
        "ired_jax.objectives.pairs",
        one(START, START_REFINED),
        test_dead_work_is_under_one_per_cent_of_the_negative_phase,
    ),
]
