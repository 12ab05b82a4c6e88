"""The train step: one pure function of one state that holds the whole future of a run.

Order of a step: 1 fold the step number, then the stream's name, into a root key that
never advances. 2 Draw data and levels, noise them. 3 Starting points: replayed rows
where available and the coin says so, else fresh. 4 Refine with parameters held. 5 Both
energies, loss, gradients, with stop_gradient on samples only. 6 Optimizer, EMA. 7 Put
the refined rows into the buffer. 8 Scalars only leave.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from ired_jax import blocks, diffusion, losses, negatives, replay
from ired_jax.diffusion import Schedule
from ired_jax.negatives import ResidualFilter, Strategy
from ired_jax.types import (
    Array,
    Batch,
    Energy,
    Params,
    Stream,
    bind,
    scaled,
    stream_key,
    streams,
)

Metrics = dict[str, Array]
PairLoss = Callable[[Array, Array], Array]  # (u_pos [N], u_neg [N]) -> [N]
# Metrics whose mean over rows is of squares: the step takes the root.
ROOT_MEAN_SQUARES = ("grad_norm_pos", "pred_norm")


class TrainState(NamedTuple):
    """Everything that the future of a run depends on."""

    step: Array  # () int32, finished steps
    key: Array  # typed PRNG key, the root of all streams
    params: Params
    ema_params: Params
    opt_state: Any
    replay: replay.ReplayState | None
    thresholds: Array | None  # [T] running thresholds of the residual filter


class Ema(NamedTuple):
    """Average of the parameters: a copy until `warmup`, then decay every `every`."""

    decay: float = 0.995
    every: int = 10  # steps
    warmup: int = 100  # steps


class Replay(NamedTuple):
    """How starts are drawn from the buffer."""

    share: float = 0.95  # probability of a replayed start, where one is available
    capacity: int = 10_000  # rows a bucket
    num_buckets: int = 10
    conditional: bool = True  # a row brings its own x, y0, t; else only its y
    per_row_coin: bool = True  # else one coin for the whole batch
    curriculum: float = 0.0  # share of the run over which `share` grows from 0


class Contrast(NamedTuple):
    """The negative phase."""

    strategy: Strategy
    pair_loss: PairLoss
    weight: Callable[[Array], Array]  # step () -> weight ()
    levels: tuple[int, int]  # first and last level of the phase, inclusive
    num_rows: int  # N
    bounds: float  # of the denoised negatives that the filter looks at
    chain_energy: Energy | None = None  # what `refine` walks on; None: the problem's
    level_weights: Array | None = None  # [T]
    in_nats: bool = True  # U = E / s_t; else E itself stands for U
    replay: Replay | None = None
    residual_filter: ResidualFilter | None = None
    penalty: PairLoss | None = None
    penalty_weight: Callable[[Array], Array] | None = None  # step () -> ()
    tau: float = 1.0  # nats, of the saturation metric


class Problem(NamedTuple):
    """What is trained on what."""

    draw: Callable[[Array], tuple[Array, Array]]  # key -> (x, y0), one example
    residual: Callable[[Array, Array], Array]
    energy: Energy
    schedule: Schedule
    loss_energy: Energy | None = None  # the same in the losses' precision; None: energy
    block_rows: int | None = None  # the most rows of a loss at once; None: all


def init_state(
    key: Array,
    problem: Problem,
    optimizer: optax.GradientTransformation,
    contrast: Contrast | None = None,
) -> TrainState:
    """The state before the first step."""
    params = problem.energy.init(stream_key(key, 0, Stream.INIT))
    rings = thresholds = None
    if contrast is not None and contrast.replay is not None:
        x, y0 = jax.eval_shape(problem.draw, key)
        level = jax.ShapeDtypeStruct((), jnp.int32)
        rings = replay.init(
            {"x": x, "y0": y0, "y": y0, "t": level},
            num_buckets=contrast.replay.num_buckets,
            capacity=contrast.replay.capacity,
        )
    if contrast is not None and contrast.residual_filter is not None:
        thresholds = jnp.zeros(problem.schedule.num_levels)
    return TrainState(
        step=jnp.int32(0),
        key=jax.random.clone(key),  # the caller's key outlives a donated state
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        replay=rings,
        thresholds=thresholds,
    )


def make_train_step(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    num_steps: int,
    ema: Ema,
    contrast: Contrast | None = None,
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Makes one train step; jit it with the state donated.

    Args:
      problem: data, energy and schedule.
      optimizer: an optax transformation, clipping and learning rate included.
      batch_size: rows of the denoising loss, B.
      num_steps: length of the run, for what grows with progress.
      ema: the parameter average.
      contrast: the negative phase, None for denoising alone.

    Returns:
      step_fn(state) -> (state, metrics), metrics a dict of float32 scalars.

    Raises:
      ValueError: batch_size or num_steps below 1, or a negative phase without rows or
        with more rows than the batch.
    """
    if batch_size < 1 or num_steps < 1:
        raise ValueError(f"batch_size={batch_size}, num_steps={num_steps}: at least 1")
    if contrast is not None and not 1 <= contrast.num_rows <= batch_size:
        raise ValueError(
            f"num_rows={contrast.num_rows}: must be 1 to batch_size={batch_size}"
        )

    value_and_grad = partial(blocks.value_and_grad, block_rows=problem.block_rows)

    def gradient(params: Params, batch: Batch, pairs: Batch | None, step: Array):
        denoising = partial(denoising_loss, problem)
        (loss, metrics), grads = value_and_grad(denoising)(params, batch)
        if contrast is not None:
            term = partial(contrastive_loss, problem, contrast, step=step)
            (value, more), more_grads = value_and_grad(term)(params, pairs)
            loss, metrics = loss + value, metrics | more
            grads = jax.tree.map(jnp.add, grads, more_grads)
        roots = {name: jnp.sqrt(metrics[name]) for name in ROOT_MEAN_SQUARES}
        return grads, metrics | roots | {"train/loss": loss}

    def step_fn(state: TrainState) -> tuple[TrainState, Metrics]:
        batch = draw_batch(problem, state, batch_size)
        pairs, rings, limits, info = None, state.replay, state.thresholds, {}
        if contrast is not None:
            progress = state.step / num_steps
            pairs, info = draw_pairs(problem, contrast, state, batch, progress)
            limits = pairs.pop("thresholds", None)
            rings = insert_pairs(contrast, rings, pairs, problem.schedule.num_levels)
            if rings is not None:
                info["replay/size"] = jnp.sum(rings.size).astype(jnp.float32)
        grads, metrics = gradient(state.params, batch, pairs, state.step)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        norms = {"param": params, "grad": grads, "update": updates}
        metrics |= {f"norm/{k}": optax.tree.norm(v) for k, v in norms.items()}
        ema_params = update_ema(ema, step, state.ema_params, params)
        state = TrainState(
            step, state.key, params, ema_params, opt_state, rings, limits
        )
        return state, metrics | info

    return step_fn


def repeat(step_fn, num_steps: int):
    """Many steps in one dispatch: state -> (state, metrics each [num_steps])."""

    def steps(state: TrainState):
        return jax.lax.scan(
            lambda state, _: step_fn(state), state, None, length=num_steps
        )

    return steps


def draw_examples(
    problem: Problem, root: Array, step: Array, batch_size: int
) -> tuple[Array, Array]:
    """The examples x [B, Dx], y0 [B, D] that the step `step` sees."""
    keys = jax.random.split(stream_key(root, step, Stream.DATA), batch_size)
    return jax.vmap(problem.draw)(keys)


def draw_batch(problem: Problem, state: TrainState, batch_size: int) -> Batch:
    """Fresh rows {x, y0, t, eps} of the denoising loss at this step: [B, ...]."""
    key = streams(state.key, state.step)
    x, y0 = draw_examples(problem, state.key, state.step, batch_size)
    levels = problem.schedule.num_levels
    t = jax.random.randint(key(Stream.LEVEL), (batch_size,), 0, levels)
    eps = jax.random.normal(key(Stream.NOISE), y0.shape)
    return {"x": x, "y0": y0, "t": t, "eps": eps}


def denoising_loss(
    problem: Problem, params: Params, batch: Batch
) -> tuple[Array, Metrics]:
    """mean |grad_y E(x, y_t, t) - eps|^2 over rows and elements.

    The metrics are means over rows too: of squares, if in ROOT_MEAN_SQUARES.
    """
    energy = problem.loss_energy or problem.energy
    chex.assert_rank([batch["x"], batch["y0"], batch["t"]], [2, 2, 1])
    chex.assert_equal_shape([batch["y0"], batch["eps"]])

    def one(x, y0, t, eps):
        y = diffusion.q_sample(problem.schedule, y0, t, eps)
        grad = jax.grad(energy, argnums=2)(params, x, y, t)
        return grad, diffusion.predict_start(problem.schedule, y, t, grad)

    grad, y0 = jax.vmap(one)(batch["x"], batch["y0"], batch["t"], batch["eps"])
    loss = jnp.mean(losses.denoising(grad, batch["eps"]))
    metrics = {
        "train/denoise_mse": loss,
        "grad_norm_pos": jnp.mean(grad**2),
        "pred_norm": jnp.mean(y0**2),
    }
    return loss, metrics


def draw_pairs(
    problem: Problem,
    contrast: Contrast,
    state: TrainState,
    batch: Batch,
    progress: Array,
) -> tuple[dict[str, Array], Metrics]:
    """The rows of the negative phase {x, y0, t, y_pos, y, keep, ...}, all constants.

    Parameters are held and every sample leaves through stop_gradient: gradient can flow
    through both energies of a pair, and through no chain, start or threshold.
    """
    schedule, key = problem.schedule, streams(state.key, state.step)
    rows = _fresh_rows(contrast, key, batch)
    y = contrast.strategy.start(key(Stream.START), rows, progress)
    if contrast.replay is not None:
        rings, levels = state.replay, schedule.num_levels
        share = contrast.replay.share * negatives.ramp(
            progress, contrast.replay.curriculum
        )
        rows, y = _replayed_rows(contrast.replay, key, rings, rows, y, share, levels)

    def landscape(x, t):
        energy = contrast.chain_energy or problem.energy
        energy_fn = bind(energy, state.params, x, t)
        return scaled(energy_fn, _scale(contrast, schedule, t))

    y, chain = contrast.strategy.refine(key(Stream.CHAIN), landscape, rows, y, progress)
    rows = rows | {"y": y, "keep": jnp.ones(contrast.num_rows)}
    metrics = {
        "chain/acceptance": jnp.mean(chain.acceptance),
        "chain/displacement": jnp.mean(chain.displacement),
    }
    if contrast.residual_filter is not None:
        extra, more = _filter(problem, contrast, state, rows)
        rows, metrics = rows | extra, metrics | more
    chex.assert_equal_shape([rows["y"], rows["y0"], rows["eps"]])
    chex.assert_shape([rows["t"], rows["keep"]], (contrast.num_rows,))
    q_sample = jax.vmap(partial(diffusion.q_sample, schedule))
    rows = rows | {"y_pos": q_sample(rows["y0"], rows["t"], rows["eps"])}
    return jax.lax.stop_gradient(rows), metrics


def contrastive_loss(
    problem: Problem, contrast: Contrast, params: Params, pairs: Batch, step: Array
) -> tuple[Array, Metrics]:
    """weight(step) mean_i keep_i pair_loss(U+_i, U-_i), plus the rows' penalty.

    The mean is over all N rows: a filtered pair contributes exactly 0 and leaves the
    others as they are. The range's share of all levels multiplies the weight, so that
    the expected loss is that of all levels with a mask.
    """
    x, t = pairs["x"], pairs["t"]
    energy = problem.loss_energy or problem.energy

    def both(x, t, y_pos, y):
        # One landscape: its x and t parts, and their gradients, are computed once.
        energy_fn = bind(energy, params, x, t)
        return energy_fn(y_pos), energy_fn(y)

    scale = _scale(contrast, problem.schedule, t)
    u_pos, u_neg = jax.vmap(both)(x, t, pairs["y_pos"], pairs["y"])
    u_pos, u_neg = u_pos / scale, u_neg / scale
    chex.assert_shape([u_pos, u_neg, pairs["keep"]], t.shape)
    value = contrast.pair_loss(u_pos, u_neg) * pairs["keep"]
    if contrast.level_weights is not None:
        value = value * contrast.level_weights[t]
    low, high = contrast.levels
    share = (high - low + 1) / problem.schedule.num_levels
    loss = contrast.weight(step) * share * jnp.mean(value)
    if contrast.penalty is not None:
        penalty = jnp.mean(contrast.penalty(u_pos, u_neg))
        loss += contrast.penalty_weight(step) * penalty
    # Whatever the loss is in, a person reads nats: one name, one unit.
    to_nats = scale / diffusion.temperature(problem.schedule, t)
    u_pos, u_neg = u_pos * to_nats, u_neg * to_nats
    metrics = {
        "energy_pos": jnp.mean(u_pos),
        "energy_neg": jnp.mean(u_neg),
        "margin": jnp.mean(u_neg - u_pos),
        "frac_sat": jnp.mean(losses.saturation(u_pos, u_neg, tau=contrast.tau)),
    }
    return loss, metrics


def insert_pairs(
    contrast: Contrast, rings: replay.ReplayState | None, pairs: Batch, num_levels: int
) -> replay.ReplayState | None:
    """Puts the refined rows, in y_t space, into the buckets of their levels."""
    if contrast.replay is None:
        return rings
    bucket = replay.bucket_of(
        pairs["t"], num_levels=num_levels, num_buckets=rings.num_buckets
    )
    return replay.insert(rings, {name: pairs[name] for name in rings.rows}, bucket)


def update_ema(ema: Ema, step: Array, average: Params, params: Params) -> Params:
    """A copy of `params` up to step `warmup`; then, every `every` steps, decayed."""
    chex.assert_trees_all_equal_shapes(average, params)
    decay = jnp.where(step <= ema.warmup, 0.0, ema.decay)
    decay = jnp.where((step % ema.every == 0) | (step <= ema.warmup), decay, 1.0)
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)


def _fresh_rows(contrast: Contrast, key, batch: Batch) -> dict[str, Array]:
    """The first N of the step's examples, at levels and with noise of their own."""
    num_rows, (low, high) = contrast.num_rows, contrast.levels
    x, y0 = batch["x"][:num_rows], batch["y0"][:num_rows]
    t = jax.random.randint(key(Stream.NEGATIVE_LEVEL), (num_rows,), low, high + 1)
    eps = jax.random.normal(key(Stream.NEGATIVE_NOISE), y0.shape)
    return {"x": x, "y0": y0, "t": t, "eps": eps}


def _replayed_rows(spec, key, rings, rows, y, share, num_levels):
    """Replaces rows by replayed ones where one is available and the coin says so."""
    bucket = replay.bucket_of(
        rows["t"], num_levels=num_levels, num_buckets=rings.num_buckets
    )
    stored, is_available = replay.sample(key(Stream.REPLAY), rings, bucket)
    shape = bucket.shape if spec.per_row_coin else ()
    use = is_available & jax.random.bernoulli(key(Stream.COIN), share, shape)
    names = ("x", "y0", "t") if spec.conditional else ()
    chosen = {name: _where(use, stored[name], rows[name]) for name in names}
    return rows | chosen, _where(use, stored["y"], y)


def _filter(problem, contrast, state, rows):
    """keep [N] and thresholds [T], with the residuals' quantiles of each level."""
    spec, num_levels = contrast.residual_filter, problem.schedule.num_levels

    def energy_at(x, t):
        return bind(problem.energy, state.params, x, t)

    residual = negatives.filtered_residual(
        problem.schedule,
        problem.residual,
        energy_at,
        rows,
        bounds=contrast.bounds,
        denoised=spec.denoised,
        block_rows=problem.block_rows,
    )
    limits = negatives.thresholds(spec, residual, rows["t"], state.thresholds)
    keep = (residual >= limits[rows["t"]]).astype(jnp.float32)
    low, high = contrast.levels
    metrics = {"filter/kept": jnp.mean(keep)}
    for quantile in (0.1, 0.5, 0.9):
        of_level = losses.level_quantiles(
            residual, rows["t"], num_levels=num_levels, quantile=quantile
        )
        for t in range(low, high + 1):
            metrics[f"filter/q{round(100 * quantile)}_level{t}"] = of_level[t]
    return {"keep": keep, "thresholds": limits}, metrics


def _scale(contrast: Contrast, schedule: Schedule, t: Array) -> Array:
    """What E is divided by: its temperature s_t, or 1 in the earlier form."""
    one = jnp.ones(())
    return diffusion.temperature(schedule, t) if contrast.in_nats else one


def _where(use: Array, first: Array, second: Array) -> Array:
    return jnp.where(use.reshape(-1, *[1] * (first.ndim - 1)), first, second)
