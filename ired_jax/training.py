"""The train step: one pure function of one state that holds the whole future of a run.

Order of a step: 1 fold the step number, then the stream's name, into a root key that
never advances. 2 Draw examples. 3 Each objective prepares its rows and memory, with
parameters held. 4 Losses and gradients, added up. 5 Optimizer, average. 6 Scalars only
leave. What an objective draws, refines and remembers stands in its own file.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from ired_jax import blocks
from ired_jax.fields import Field
from ired_jax.objectives.base import (
    Context,
    Metrics,
    Objective,
    Parameters,
    joined,
    lowered,
    prepared,
)
from ired_jax.tasks.base import Source
from ired_jax.types import Array, Energy, Example, Stream, Tree, stream_key, streams


class TrainState(NamedTuple):
    """Everything that the future of a run depends on, but for its data set."""

    step: Array  # () int32, finished steps
    key: Array  # typed PRNG key, the root of all streams
    params: Parameters
    ema_params: Parameters
    opt_state: Any
    memory: dict[str, Tree]  # by objective


class Ema(NamedTuple):
    """Average of the parameters: a copy until `warmup`, then decay every `every`."""

    decay: Annotated[
        float,
        Field("at each application", at_least=0, at_most=1, name="ema_decay"),
    ] = 0.995
    every: Annotated[
        int, Field("steps between applications", at_least=1, name="ema_every")
    ] = 10
    warmup: Annotated[
        int,
        Field("steps in which the average is a copy", at_least=0, name="ema_warmup"),
    ] = 100


def init_state(
    key: Array,
    *,
    energy: Energy,
    objectives: Mapping[str, Objective],
    optimizer: optax.GradientTransformation,
    example: Example,
) -> TrainState:
    """The state before the first step.

    Args:
      key: the root key; what has parameters of its own draws them from its streams.
      energy: what is trained.
      objectives: by name, all that any phase of the run has.
      optimizer: of all parameters.
      example: shapes and dtypes of one example.
    """
    # Folds of the energy's key would be keys that the energy splits off it.
    init, init_own = (stream_key(key, 0, s) for s in (Stream.INIT, Stream.INIT_OWN))
    own, memory = {}, {}
    for index, (name, objective) in enumerate(objectives.items()):
        own_key = jax.random.fold_in(init_own, index)
        own[name], memory[name] = objective.init(own_key, example)
    params = Parameters(energy.init(init), own)
    return TrainState(
        step=jnp.int32(0),
        key=jax.random.clone(key),  # the caller's key outlives a donated state
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        memory=memory,
    )


def make_train_step(
    source: Source,
    objectives: Mapping[str, Objective],
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    num_steps: int,
    ema: Ema,
    block_rows: int | None = None,
) -> Callable[[TrainState, Tree], tuple[TrainState, Metrics]]:
    """Makes one train step on the sum of `objectives`; jit it with the state donated.

    Args:
      source: of examples.
      objectives: by name. Those of the state that are not among them rest, memory and
        parameters of their own as they are, whatever the optimizer's momentum: a phase
        of a run is a step with fewer objectives.
      optimizer: an optax transformation, clipping and learning rate included.
      batch_size: examples of a step, B.
      num_steps: length of the run, for what grows with progress.
      ema: the parameter average.
      block_rows: the most rows of a loss at once; None: all.

    Returns:
      step_fn(state, data) -> (state, metrics): data is `source.data`, metrics a dict of
      float32 scalars.

    Raises:
      ValueError: no objective, or batch_size or num_steps below 1; of step_fn,
        PartError, an objective or an energy gives what it must not.
    """
    if batch_size < 1 or num_steps < 1:
        raise ValueError(f"batch_size={batch_size}, num_steps={num_steps}: at least 1")
    if not objectives:
        raise ValueError("objectives: must name at least one")

    def step_fn(state: TrainState, data: Tree) -> tuple[TrainState, Metrics]:
        key, progress = streams(state.key, state.step), state.step / num_steps
        context = Context(state.step, progress, key, state.params, state.ema_params)
        batch = draw_examples(source, data, state.key, state.step, batch_size)
        rows, memory = {}, dict(state.memory)
        metrics: Metrics = {}
        for name, objective in objectives.items():
            given = objective.prepare(context, memory[name], batch)
            rows[name], memory[name], more = prepared(
                name, objective, given, memory[name]
            )
            metrics = joined(metrics, more)
        grads, more = _gradient(objectives, rows, context, block_rows)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # Their gradient is 0, but momentum and decay of weights would move them.
        rest = {k: v for k, v in updates.own.items() if k not in objectives}
        rest = jax.tree.map(jnp.zeros_like, rest)
        updates = updates._replace(own=updates.own | rest)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        norms = {"param": params, "grad": grads, "update": updates}
        norms = {f"norm/{k}": optax.tree.norm(v) for k, v in norms.items()}
        metrics = joined(joined(metrics, more), norms)
        ema_params = update_ema(ema, step, state.ema_params, params)
        state = TrainState(step, state.key, params, ema_params, opt_state, memory)
        return state, metrics

    return step_fn


def _gradient(
    objectives: Mapping[str, Objective],
    rows: Mapping[str, Tree],
    context: Context,
    block_rows: int | None,
) -> tuple[Parameters, Metrics]:
    """Gradients of the sum of all losses, and every metric."""
    loss: Any = None
    grads: Tree = None
    metrics: Metrics = {}
    for name, objective in objectives.items():

        def of_rows(params, rows, name=name, objective=objective):
            given = objective.loss(params.energy, params.own[name], rows, context)
            return lowered(name, objective, given)

        of_params = blocks.value_and_grad(of_rows, block_rows)
        (value, more), part = of_params(context.params, rows[name])
        more = more | {k: jnp.sqrt(more[k]) for k in objective.roots}
        metrics = joined(metrics, more)
        loss = value if loss is None else loss + value
        grads = part if grads is None else jax.tree.map(jnp.add, grads, part)
    return grads, joined(metrics, {"train/loss": loss})


def repeat(step_fn, num_steps: int):
    """Many steps in one: (state, data) -> (state, metrics each [num_steps])."""

    def steps(state: TrainState, data: Tree):
        return jax.lax.scan(
            lambda state, _: step_fn(state, data), state, None, length=num_steps
        )

    return steps


def draw_examples(
    source: Source, data: Tree, root: Array, step: Array, batch_size: int
) -> Example:
    """The examples that the step `step` sees, leaves [B, ...]."""
    keys = jax.random.split(stream_key(root, step, Stream.DATA), batch_size)
    return Example(*blocks.vmap(partial(source.draw, data))(keys))


def update_ema(ema: Ema, step: Array, average: Tree, params: Tree) -> Tree:
    """A copy of `params` up to step `warmup`; then, every `every` steps, decayed."""
    chex.assert_trees_all_equal_shapes(average, params)
    decay = jnp.where(step <= ema.warmup, 0.0, ema.decay)
    decay = jnp.where((step % ema.every == 0) | (step <= ema.warmup), decay, 1.0)
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
