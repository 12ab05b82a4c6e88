"""Where negatives come from: a start, a refinement, and a filter.

A strategy works on the rows {x, y0, t, eps} of a negative phase, each [N, ...]: `start`
gives a first y [N, D] in y_t space, `refine` moves it. Energies reach `refine` as
`landscape(x, t) -> (y -> ())`, in nats (U = E / s_t) unless the caller says otherwise,
with parameters held. Nothing here is differentiated: the caller stops the gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from ired_jax import blocks, diffusion, losses
from ired_jax.diffusion import Schedule
from ired_jax.samplers import descent, inference, langevin
from ired_jax.types import Array, Batch, EnergyFn

LandscapeAt = Callable[[Array, Array], EnergyFn]  # (x [Dx], t ()) -> (y [D] -> ())
StepSizeFn = Callable[[Array], Array]  # t () -> step on the landscape's energy ()


class ChainInfo(NamedTuple):
    """How the refinement went, for each row: [N]."""

    acceptance: Array
    displacement: Array  # root mean square over elements of end - start


class StartFn(Protocol):
    """Gives the first y [N, D]; `progress` in [0, 1] is the share of the run done."""

    def __call__(self, key: Array, rows: Batch, progress: Array) -> Array: ...


class RefineFn(Protocol):
    """Moves y [N, D] on the landscapes of its rows."""

    def __call__(
        self,
        key: Array,
        landscape: LandscapeAt,
        rows: Batch,
        y: Array,
        progress: Array,
    ) -> tuple[Array, ChainInfo]: ...


class Strategy(NamedTuple):
    """One way to make negatives."""

    start: StartFn
    refine: RefineFn


def nce_random(schedule: Schedule, *, bounds: float) -> Strategy:
    """clip(N(0, I), +-bounds) as a wrong y_0, noised with the positive's eps."""

    def start(key, rows, progress):
        del progress
        _assert_rows(rows, rows["y0"])
        wrong = jnp.clip(jax.random.normal(key, rows["y0"].shape), -bounds, bounds)
        return _q_sample(schedule, wrong, rows["t"], rows["eps"])

    return Strategy(start, _keep)


def nce_noise(schedule: Schedule, *, scale: tuple[float, float], bounds: float):
    """a_t y_0 + scale s_t eps', taken to y_0 space, clipped, noised again with eps."""

    def refine(key, landscape, rows, y, progress):
        y, info = _keep(key, landscape, rows, y, progress)
        return _renoise(schedule, rows, y, bounds), info

    return Strategy(_noised_start(schedule, scale), refine)


def adversarial(
    schedule: Schedule,
    *,
    scale: tuple[float, float],
    bounds: float,
    num_steps: int,
    step_size: StepSizeFn,
    block_rows: int | None = None,
) -> Strategy:
    """As `nce_noise`, with accepted descent on the energy before the y_0 round trip.

    Source: arXiv 2406.11179, section 4.2 and its released code.
    """

    def refine(key, landscape, rows, y, progress):
        del key, progress
        _assert_rows(rows, y)

        def one(x, t, y):
            limit = bounds * schedule.a[t]
            return descent.minimize(
                landscape(x, t),
                jnp.clip(y, -limit, limit),
                step_size=step_size(t),
                num_steps=num_steps,
                bounds=limit,
            )

        y, info = blocks.vmap(one, block_rows)(rows["x"], rows["t"], y)
        info = ChainInfo(info.acceptance, info.displacement)
        return _renoise(schedule, rows, y, bounds), info

    return Strategy(_noised_start(schedule, scale), refine)


def on_trajectory(
    schedule: Schedule,
    *,
    bounds: float,
    num_steps: int,
    unit: Callable[[Array], Array],
    block_rows: int | None = None,
) -> Strategy:
    """Where inference is after each row's level, noised with the positive's eps.

    The answers that the model itself gives, false minima included. Once they are right,
    y- is y+ and the pair says nothing: no other strategy has that. Inference begins at
    noise, whatever a row's level, and all levels are run, those below it too.

    Args:
      schedule: the levels.
      bounds: half-width of the box that holds the answers.
      num_steps: descent steps a level.
      unit: t () -> E in units of the landscape's energy (nats: s_t), ().
      block_rows: the most rows at once; None: all.
    """

    def start(key, rows, progress):
        del progress
        _assert_rows(rows, rows["y0"])
        return jax.random.normal(key, rows["y0"].shape)

    def refine(key, landscape, rows, y, progress):
        del key, progress
        _assert_rows(rows, y)

        def one(x, t, y):
            _, info = inference.solve_from(
                y,
                _Levels(landscape, unit, x),
                schedule,
                num_steps=num_steps,
                bounds=bounds,
                trace=True,
            )
            return info.answers[schedule.num_levels - 1 - t], jnp.mean(info.acceptance)

        y0, acceptance = blocks.vmap(one, block_rows)(rows["x"], rows["t"], y)
        end = _q_sample(schedule, y0, rows["t"], rows["eps"])
        return end, ChainInfo(acceptance, jnp.sqrt(jnp.mean((end - y) ** 2, axis=1)))

    return Strategy(start, refine)


class _Levels(NamedTuple):
    """The landscapes E of one x for `inference.solve`, from those that refine has."""

    landscape: LandscapeAt
    unit: Callable[[Array], Array]
    x: Array

    def __call__(self, y: Array, t: Array) -> Array:
        return self.at(t)(y)

    def at(self, t: Array) -> EnergyFn:
        energy_fn = self.landscape(self.x, t)
        return lambda y: self.unit(t) * energy_fn(y)


def mixed(first: Strategy, second: Strategy, *, share: float) -> Strategy:
    """The first round(share N) rows by `first`, the rest by `second`.

    Rows are independent draws, so a fixed split has the law of a coin for each row with
    less variance, and no row is refined in vain.
    """

    def split(rows):
        cut = round(share * rows["t"].shape[0])
        return jax.tree.map(lambda a: a[:cut], rows), jax.tree.map(
            lambda a: a[cut:], rows
        )

    def halves(key, rows):
        # One key for both would give their rows the same noise.
        return zip((first, second), jax.random.split(key), split(rows), strict=True)

    def start(key, rows, progress):
        return jnp.concatenate(
            [
                strategy.start(key, part, progress)
                for strategy, key, part in halves(key, dict(rows))
            ]
        )

    def refine(key, landscape, rows, y, progress):
        parts = [
            strategy.refine(key, landscape, part, part["y"], progress)
            for strategy, key, part in halves(key, {**rows, "y": y})
        ]
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)

    return Strategy(start, refine)


def langevin_chain(
    schedule: Schedule,
    *,
    scale: tuple[float, float],
    num_steps: int,
    step_size: StepSizeFn,
    temperature: float = 1.0,
    grad_clip: Callable[[Array], Array] | None = None,
    bounds: float | None = None,
    adjusted: bool = False,
    curriculum: float = 0.0,
    block_rows: int | None = None,
) -> Strategy:
    """a_t y_0 + scale s_t eps', then `num_steps` Langevin steps.

    Args:
      schedule: the levels.
      scale: the start's noise in units of s_t, at the beginning and the end of the run.
      num_steps: K.
      step_size: of each level, on the landscape's energy.
      temperature: of the chain, in units of the landscape's energy.
      grad_clip: of each level, on the landscape's gradient.
      bounds, adjusted: as in `samplers.langevin.sample`.
      curriculum: share of the run over which the number of steps that move grows from
        1 to K (0: all from the start). The others have step size 0.
      block_rows: the most chains at once; None: all.
    """

    def refine(key, landscape, rows, y, progress):
        _assert_rows(rows, y)
        is_active = 1.0  # one size for all steps; with a curriculum one for each
        if curriculum:
            moving = jnp.maximum(1.0, ramp(progress, curriculum) * num_steps)
            is_active = jnp.arange(num_steps) < moving

        def one(key, x, t, y):
            return langevin.sample(
                key,
                landscape(x, t),
                y,
                step_size=step_size(t) * is_active,
                temperature=temperature,
                num_steps=num_steps,
                grad_clip=grad_clip and grad_clip(t),
                bounds=bounds,
                adjusted=adjusted,
            )

        keys = jax.random.split(key, y.shape[0])
        y, info = blocks.vmap(one, block_rows)(keys, rows["x"], rows["t"], y)
        return y, ChainInfo(info.acceptance, info.displacement)

    return Strategy(_noised_start(schedule, scale), refine)


def ramp(progress: Array, share: float) -> Array:
    """min(1, progress / share): grows over the first `share` of a run; 1 if it is 0."""
    return jnp.minimum(1.0, progress / share) if share else jnp.ones(())


class ResidualFilter(NamedTuple):
    """Drops negatives that are right answers: residual below their level's threshold.

    What is kept depends on y-, so filtering moves the fixed point of contrastive
    divergence: it is a bias, bought for fewer false negatives.
    """

    mode: Literal["fixed", "batch_quantile", "running_quantile"]
    quantile: float = 0.3
    momentum: float = 0.9  # of the running mean of the batch quantiles
    fixed: tuple[float, ...] = ()  # [T], mode `fixed`
    per_level: bool = True  # one threshold a level; else one for the whole batch
    denoised: bool = True  # look at predict_start(y-); else at y- / a_t


def filtered_residual(
    schedule: Schedule,
    task_residual: Callable[[Array, Array], Array],
    energy_at: LandscapeAt,
    rows: Batch,
    *,
    bounds: float,
    denoised: bool,
    block_rows: int | None = None,
) -> Array:
    """The task residual of each negative's y_0: [N].

    `energy_at(x, t)` is E (not U): predict_start needs its gradient.
    """

    def one(x, t, y):
        grad = jax.grad(energy_at(x, t))(y) if denoised else jnp.zeros_like(y)
        y0 = diffusion.predict_start(schedule, y, t, grad)
        return task_residual(x, jnp.clip(y0, -bounds, bounds))

    return blocks.vmap(one, block_rows)(rows["x"], rows["t"], rows["y"])


def thresholds(
    spec: ResidualFilter, residual: Array, t: Array, previous: Array
) -> Array:
    """The threshold of each level, without gradient: [N], [N], [T] -> [T].

    `previous` is the running threshold, 0 where a level has not been seen yet (which
    keeps every negative); a level without rows keeps it.
    """
    chex.assert_equal_shape([residual, t])
    chex.assert_rank(previous, 1)
    num_levels = previous.shape[0]
    if spec.mode == "fixed":
        limits = jnp.asarray(spec.fixed, residual.dtype)
        chex.assert_equal_shape([limits, previous])
        return limits
    if spec.per_level:
        batch = losses.level_quantiles(
            residual, t, num_levels=num_levels, quantile=spec.quantile
        )
    else:
        batch = jnp.quantile(jax.lax.stop_gradient(residual), spec.quantile)
        batch = jnp.full(num_levels, batch)
    batch = jnp.where(jnp.isnan(batch), previous, batch)
    if spec.mode == "batch_quantile":
        return batch
    is_new = previous == 0
    return jnp.where(
        is_new, batch, spec.momentum * previous + (1 - spec.momentum) * batch
    )


def _keep(key, landscape, rows, y, progress):
    """No refinement."""
    _assert_rows(rows, y)
    del key, landscape, rows, progress
    return y, ChainInfo(jnp.ones(y.shape[0]), jnp.zeros(y.shape[0]))


def _noised_start(schedule: Schedule, scale: tuple[float, float]) -> StartFn:
    """a_t y_0 + scale s_t eps', the scale going from scale[0] to scale[1]."""

    def start(key, rows, progress):
        _assert_rows(rows, rows["y0"])
        factor = scale[0] + (scale[1] - scale[0]) * progress
        eps = factor * jax.random.normal(key, rows["y0"].shape)
        return _q_sample(schedule, rows["y0"], rows["t"], eps)

    return start


def _renoise(schedule: Schedule, rows: Batch, y: Array, bounds: float) -> Array:
    """y_t -> y_0 = clip(y / a_t) -> a_t y_0 + s_t eps with the positive's eps."""
    y0 = jnp.clip(y / schedule.a[rows["t"]][:, None], -bounds, bounds)
    return _q_sample(schedule, y0, rows["t"], rows["eps"])


def _assert_rows(rows: Batch, y: Array) -> None:
    """y0 and y [N, D], t [N]."""
    chex.assert_rank([rows["y0"], rows["t"]], [2, 1])
    chex.assert_equal_shape([rows["y0"], y])
    chex.assert_equal_shape_prefix([rows["y0"], rows["t"]], 1)


def _q_sample(schedule, y0, t, eps):
    return jax.vmap(partial(diffusion.q_sample, schedule))(y0, t, eps)
