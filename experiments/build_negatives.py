"""The negative phase of a config: strategies, pair losses, replay, filter.

A new strategy or pair loss is one line in a table here, and a strategy that moves on
the energy one word in WITH_CHAINS.
"""

from functools import partial

import jax.numpy as jnp

from experiments.errors import UserError
from experiments.fields import Fields
from ired_jax import diffusion, losses, negatives, training
from ired_jax.diffusion import Schedule
from ired_jax.negatives import Strategy
from ired_jax.precision import FORMATS, in_precision
from ired_jax.tasks.base import Task
from ired_jax.training import Contrast
from ired_jax.types import Energy

STEP_MULTIPLE = 0.25  # of s_t^2, unadjusted chains: the width comes out 7 % too large
ADJUSTED_STEP = 1.36  # D^(-1/3) s_t^2, adjusted chains: acceptance .57


STRATEGIES = {  # each made from a config's fields, its task, levels and rows at once
    "none": None,
    "nce_random": lambda read, task, schedule, block_rows: negatives.nce_random(
        schedule, bounds=task.train.bounds
    ),
    "nce_noise": lambda read, task, schedule, block_rows: negatives.nce_noise(
        schedule, scale=_noise_scale(read), bounds=task.train.bounds
    ),
    "adversarial": lambda *parts: _adversarial(*parts),
    "mixed": lambda read, *parts: negatives.mixed(
        STRATEGIES["nce_noise"](read, *parts),
        STRATEGIES["adversarial"](read, *parts),
        share=read("negatives.mixed_share", above=0, below=1),
    ),
    "on_trajectory": lambda read, task, schedule, block_rows: negatives.on_trajectory(
        schedule,
        bounds=task.train.bounds,
        num_steps=read("negatives.descent_steps", at_least=1),
        unit=partial(diffusion.temperature, schedule)
        if _in_nats(read)
        else jnp.ones_like,
        block_rows=block_rows,
    ),
    "langevin": lambda *parts: _langevin(*parts),
}

PAIR_LOSSES = {
    "cd": lambda read, size: _contrastive_divergence(read, size),
    "logistic": lambda read, size: partial(
        losses.logistic, tau=_per_element(read, size) * read("loss.tau", above=0)
    ),
    "hinge": lambda read, size: _hinge(read, size),
}


# Strategies whose negatives move on the energy.
WITH_CHAINS = ("adversarial", "mixed", "on_trajectory", "langevin")


def build_contrast(
    read: Fields,
    task: Task,
    schedule: Schedule,
    energy: Energy,
    block_rows: int | None,
) -> Contrast | None:
    name = read("negatives.strategy", one_of=tuple(STRATEGIES))
    forms = ("none", *PAIR_LOSSES)
    form = read("loss.contrastive", one_of=forms)
    if (name == "none") != (form == "none"):
        raise UserError(
            f"loss.contrastive={form!r}: with negatives.strategy={name!r} it must"
            f" {'be' if name == 'none' else 'not be'} 'none'"
        )
    if name == "none":
        return None
    in_nats = _in_nats(read)
    levels = losses.level_range(
        schedule.num_levels,
        read("negatives.level_low", at_least=0, at_most=1),
        read("negatives.level_high", at_least=0, at_most=1),
    )
    weight = _weight(read)
    power, size = read("loss.level_power"), task.y_size
    share = read("loss.penalty", at_least=0)
    return Contrast(
        strategy=STRATEGIES[name](read, task, schedule, block_rows),
        pair_loss=PAIR_LOSSES[form](read, size),
        weight=weight,
        levels=levels,
        num_rows=_num_rows(read, levels, schedule.num_levels),
        bounds=task.train.bounds,
        chain_energy=_chain_energy(read, name, energy),
        level_weights=losses.level_weights(schedule.s, power=power) if power else None,
        in_nats=in_nats,
        replay=_replay(read, name, schedule.num_levels),
        residual_filter=_residual_filter(read, schedule.num_levels),
        penalty=partial(losses.energy_penalty, num_elements=size if in_nats else 1),
        penalty_weight=(lambda step: share)
        if in_nats
        else (lambda step: share * weight(step)),
        tau=_saturation_tau(read, form, size),
    )


def first_step(read: Fields) -> int:
    """The step at which the negative phase begins: a whole number of dispatches."""
    share = read("train.denoise_share", at_least=0, below=1)
    dispatch = read("train.steps_per_dispatch", at_least=1)
    return round(share * read("train.num_steps", at_least=1) / dispatch) * dispatch


def _weight(read: Fields):
    maximum, first = read("loss.weight", at_least=0), first_step(read)
    num_steps = read("loss.warmup", at_least=0)
    return lambda step: losses.warmup(
        jnp.maximum(step - first, 0), maximum=maximum, num_steps=num_steps
    )


def _chain_energy(read: Fields, strategy: str, energy: Energy) -> Energy | None:
    if strategy not in WITH_CHAINS:
        return None
    return in_precision(energy, read("precision.chains", one_of=tuple(FORMATS)))


def _num_rows(read: Fields, levels: tuple[int, int], num_levels: int) -> int:
    batch_size = read("train.batch_size", at_least=1)
    if read("negatives.rows", one_of=("in_range", "all")) == "all":
        return batch_size
    return max(1, round(batch_size * (levels[1] - levels[0] + 1) / num_levels))


def _replay(read: Fields, strategy: str, num_levels: int) -> training.Replay | None:
    if read("replay.share", at_least=0, at_most=1) == 0:
        return None
    if strategy != "langevin":
        raise UserError(
            f"replay.share={read('replay.share')}: must be 0 with"
            f" negatives.strategy={strategy!r}, only 'langevin' refines replayed rows"
        )
    num_buckets = read("replay.num_buckets", at_least=1)
    conditional = read("replay.conditional")
    if conditional and num_buckets > num_levels:
        raise UserError(
            f"replay.num_buckets={num_buckets}: must be at most"
            f" diffusion.num_levels={num_levels}, one bucket a level"
        )
    return training.Replay(
        share=read("replay.share"),
        capacity=read("replay.capacity", at_least=1),
        num_buckets=num_buckets,
        conditional=conditional,
        per_row_coin=read("replay.coin", one_of=("row", "batch")) == "row",
        curriculum=read("replay.curriculum", at_least=0, at_most=1),
    )


def _residual_filter(read: Fields, num_levels: int) -> negatives.ResidualFilter | None:
    modes = ("none", "fixed", "batch_quantile", "running_quantile")
    mode = read("filter.mode", one_of=modes)
    if mode == "none":
        return None
    spec = negatives.ResidualFilter(mode, denoised=read("filter.denoised"))
    if mode == "fixed":
        limits = read("filter.thresholds")
        if len(limits) != num_levels:
            raise UserError(
                f"filter.thresholds={limits}: must hold one residual for each of"
                f" diffusion.num_levels={num_levels} (see experiments.calibrate)"
            )
        if not all(isinstance(v, (int, float)) and v >= 0 for v in limits):
            raise UserError(f"filter.thresholds={limits}: must be numbers, at least 0")
        return spec._replace(fixed=limits)
    spec = spec._replace(
        quantile=read("filter.quantile", above=0, below=1),
        per_level=read("filter.per_level"),
    )
    if mode == "running_quantile":
        spec = spec._replace(momentum=read("filter.momentum", at_least=0, below=1))
    return spec


def _in_nats(read: Fields) -> bool:
    return read("negatives.units", one_of=("nats", "energy")) == "nats"


def _noise_scale(read: Fields) -> tuple[float, float]:
    first = read("negatives.noise_scale", at_least=0)
    last = read("negatives.noise_scale_end", at_least=-1)
    if -1 < last < 0:
        raise UserError(
            f"negatives.noise_scale_end={last}: must be at least 0, or -1 for unchanged"
        )
    return first, last if last >= 0 else first


def _adversarial(
    read: Fields, task: Task, schedule: Schedule, block_rows: int | None
) -> Strategy:
    return negatives.adversarial(
        schedule,
        scale=_noise_scale(read),
        bounds=task.train.bounds,
        num_steps=read("negatives.descent_steps", at_least=1),
        step_size=_descent_step(read, schedule),
        block_rows=block_rows,
    )


def _descent_step(read: Fields, schedule: Schedule):
    """beta_t / s_t on E; on U = E / s_t the same move is beta_t."""
    if _in_nats(read):
        return lambda t: schedule.beta[t]
    return partial(diffusion.descent_step_size, schedule)


def _langevin(
    read: Fields, task: Task, schedule: Schedule, block_rows: int | None
) -> Strategy:
    multiple = read("sampler.step_size", at_least=0)
    adjusted, in_nats = read("sampler.adjusted"), _in_nats(read)
    if multiple == 0:
        plain = STEP_MULTIPLE if in_nats else 1.0
        multiple = ADJUSTED_STEP * task.y_size ** (-1 / 3) if adjusted else plain
    if in_nats:
        step_size = partial(diffusion.langevin_step_size, schedule, multiple=multiple)
    else:
        step_size = lambda t: multiple * diffusion.descent_step_size(schedule, t)  # noqa: E731
    return negatives.langevin_chain(
        schedule,
        scale=_noise_scale(read),
        num_steps=read("sampler.num_steps", at_least=1),
        step_size=step_size,
        temperature=_temperature(read, adjusted),
        grad_clip=_grad_clip(read, schedule),
        bounds=read("sampler.bounds", at_least=0) or None,
        adjusted=adjusted,
        curriculum=read("negatives.curriculum", at_least=0, at_most=1),
        block_rows=block_rows,
    )


def _grad_clip(read: Fields, schedule: Schedule):
    """The clip of grad E, as one of the landscape's gradient: on U it is 1 / s_t wider.

    Under a right denoiser grad E is the noise: 5 is five standard deviations, which a
    chain on the ideal landscape never meets, and which keeps one on a bad landscape
    from running away.
    """
    clip = read("sampler.grad_clip", at_least=0)
    if clip == 0:
        return None
    return (lambda t: clip / schedule.s[t]) if _in_nats(read) else (lambda t: clip)


def _temperature(read: Fields, adjusted: bool) -> float:
    value = read("sampler.temperature", at_least=0)
    if adjusted and value == 0:
        raise UserError("sampler.temperature=0.0: adjusted chains need it above 0")
    return value


def _contrastive_divergence(read: Fields, size: int):
    clamp, unit = read("loss.clamp", at_least=0), _per_element(read, size)

    def pair_loss(u_pos, u_neg):
        value = losses.contrastive_divergence(u_pos, u_neg, num_elements=unit)
        return jnp.maximum(value, -clamp) if clamp else value

    return pair_loss


def _hinge(read: Fields, size: int):
    unit, margin = _per_element(read, size), read("loss.margin", at_least=0)
    return lambda u_pos, u_neg: losses.hinge(u_pos / unit, u_neg / unit, margin=margin)


def _per_element(read: Fields, size: int) -> int:
    return size if read("loss.per_element") else 1


def _saturation_tau(read: Fields, form: str, size: int) -> float:
    """Nats: the logistic loss's own tau, else 1."""
    if form == "logistic":
        return _per_element(read, size) * read("loss.tau", above=0)
    return 1.0
