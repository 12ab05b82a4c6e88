"""Turns a config into library calls: the only reader of its fields.

A new task, energy, strategy or loss is one line in a table here.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from experiments.errors import UserError
from experiments.fields import Fields
from ired_jax import diffusion, losses, negatives, training
from ired_jax.diffusion import Schedule
from ired_jax.energies.matrix import make_matrix
from ired_jax.energies.mlp import make_mlp
from ired_jax.negatives import Strategy
from ired_jax.tasks.base import Task
from ired_jax.tasks.inverse import make_inverse
from ired_jax.training import Contrast, Problem, TrainState
from ired_jax.types import Energy

STEP_MULTIPLE = 0.25  # of s_t^2, unadjusted chains: the width comes out 7 % too large
ADJUSTED_STEP = 1.36  # D^(-1/3) s_t^2, adjusted chains: acceptance .57


class Evaluation(NamedTuple):
    """How answers are scored."""

    num_examples: int
    num_examples_running: int
    batch_size: int
    num_steps: int
    double_steps: bool
    bounds: float  # 0: the split's own


class Periods(NamedTuple):
    """The length of a run and what happens when, in steps."""

    num_steps: int
    steps_per_dispatch: int
    log_every: int
    eval_every: int
    patience: int


class Experiment(NamedTuple):
    """All that a config stands for."""

    task: Task
    problem: Problem
    contrast: Contrast | None
    optimizer: optax.GradientTransformation
    step_fn: Callable  # one train step of one seed
    batch_size: int  # rows of the denoising loss
    periods: Periods
    evaluation: Evaluation
    seeds: tuple[int, ...]

    @property
    def schedule(self) -> Schedule:
        return self.problem.schedule

    def init_state(self) -> TrainState:
        """The first state; several seeds are stacked along a leading axis."""
        make = partial(
            training.init_state,
            problem=self.problem,
            optimizer=self.optimizer,
            contrast=self.contrast,
        )
        if len(self.seeds) == 1:
            return make(jax.random.key(self.seeds[0]))
        return jax.vmap(make)(jnp.stack([jax.random.key(seed) for seed in self.seeds]))

    def dispatch(self) -> Callable:
        """state -> (state, metrics), `steps_per_dispatch` steps, the state donated."""
        step_fn = self.step_fn if len(self.seeds) == 1 else jax.vmap(self.step_fn)
        steps = training.repeat(step_fn, self.periods.steps_per_dispatch)
        return jax.jit(steps, donate_argnums=0)

    def of_seed(self, tree, index: int):
        """The part of a state, or of parameters, that belongs to one seed."""
        if len(self.seeds) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf[index], tree)


TASKS = {
    "inverse": lambda read: make_inverse(read("task.n", at_least=1)),
}

ENERGIES = {
    "matrix": lambda read, task: make_matrix(
        channels=read("energy.channels", at_least=1),
        layers=read("energy.layers", at_least=1),
        outputs=read("energy.outputs", at_least=1),
        reach=read("energy.reach", one_of=("products", "direct")),
    ),
    "mlp": lambda read, task: make_mlp(
        task.x_size,
        task.y_size,
        width=read("energy.width", at_least=1),
        head=read("energy.head", one_of=("squared_norm", "scalar")),
    ),
}

STRATEGIES = {
    "none": None,
    "nce_random": lambda read, task, schedule: negatives.nce_random(
        schedule, bounds=task.train.bounds
    ),
    "nce_noise": lambda read, task, schedule: negatives.nce_noise(
        schedule, scale=_noise_scale(read), bounds=task.train.bounds
    ),
    "adversarial": lambda read, task, schedule: _adversarial(read, task, schedule),
    "mixed": lambda read, task, schedule: negatives.mixed(
        STRATEGIES["nce_noise"](read, task, schedule),
        STRATEGIES["adversarial"](read, task, schedule),
        share=read("negatives.mixed_share", above=0, below=1),
    ),
    "langevin": lambda read, task, schedule: _langevin(read, task, schedule),
}

PAIR_LOSSES = {
    "cd": lambda read, size: _contrastive_divergence(read, size),
    "logistic": lambda read, size: partial(
        losses.logistic, tau=_per_element(read, size) * read("loss.tau", above=0)
    ),
    "hinge": lambda read, size: _hinge(read, size),
}


def build(config: ConfigDict) -> Experiment:
    """Builds everything that a config names.

    Raises:
      UserError: a field whose value cannot work, or that would change nothing.
    """
    read = Fields(config)
    try:
        experiment = _build(read)
    except ValueError as error:  # the library's makers speak in one sentence as well
        raise UserError(str(error)) from error
    read.refuse_unread()
    _refuse_if_too_large(experiment, read)
    return experiment


def build_task(read: Fields) -> Task:
    return TASKS[read("task.name", one_of=tuple(TASKS))](read)


def build_evaluation(read: Fields) -> Evaluation:
    return Evaluation(
        num_examples=read("eval.num_examples", at_least=2),
        num_examples_running=read("eval.num_examples_running", at_least=2),
        batch_size=read("eval.batch_size", at_least=1),
        num_steps=read("eval.num_steps", at_least=0),
        double_steps=read("eval.double_steps"),
        bounds=read("eval.bounds", at_least=0),
    )


def _build(read: Fields) -> Experiment:
    task = build_task(read)
    schedule = diffusion.make_schedule(
        read("diffusion.schedule", one_of=("cosine", "linear")),
        read("diffusion.num_levels", at_least=1),
    )
    energy = _energy(read, task)
    problem = Problem(task.train.draw, task.residual, energy, schedule)
    contrast = _contrast(read, task, schedule)
    optimizer, periods = _optimizer(read), _periods(read)
    batch_size, first = read("train.batch_size", at_least=1), read("seed", at_least=0)
    step_fn = training.make_train_step(
        problem,
        optimizer=optimizer,
        batch_size=batch_size,
        num_steps=periods.num_steps,
        ema=training.Ema(
            read("train.ema_decay", at_least=0, at_most=1),
            read("train.ema_every", at_least=1),
            read("train.ema_warmup", at_least=0),
        ),
        contrast=contrast,
    )
    return Experiment(
        task=task,
        problem=problem,
        contrast=contrast,
        optimizer=optimizer,
        step_fn=step_fn,
        batch_size=batch_size,
        periods=periods,
        evaluation=build_evaluation(read),
        seeds=tuple(range(first, first + read("train.num_seeds", at_least=1))),
    )


def _energy(read: Fields, task: Task) -> Energy:
    return ENERGIES[read("energy.name", one_of=tuple(ENERGIES))](read, task)


def _optimizer(read: Fields) -> optax.GradientTransformation:
    rate = read("train.learning_rate", above=0)
    warmup = read("train.lr_warmup", at_least=0)
    num_steps = read("train.num_steps", at_least=1)
    if read("train.lr_schedule", one_of=("constant", "cosine")) == "cosine":
        after = optax.cosine_decay_schedule(rate, max(num_steps - warmup, 1))
    else:
        after = optax.constant_schedule(rate)
    grow = optax.linear_schedule(0.0, rate, warmup)
    rate = optax.join_schedules([grow, after], [warmup]) if warmup else after
    b1 = read("train.beta1", at_least=0, below=1)
    b2 = read("train.beta2", at_least=0, below=1)
    clip = optax.clip_by_global_norm(read("train.grad_clip", above=0))
    return optax.chain(clip, optax.adam(rate, b1=b1, b2=b2))


def _periods(read: Fields) -> Periods:
    dispatch = read("train.steps_per_dispatch", at_least=1)
    names = ("num_steps", "log_every", "eval_every")
    values = {name: read(f"train.{name}", at_least=1) for name in names}
    for name, value in values.items():
        if value % dispatch:
            raise UserError(
                f"train.{name}={value}: must be a multiple of"
                f" train.steps_per_dispatch={dispatch}"
            )
    return Periods(
        steps_per_dispatch=dispatch,
        patience=read("train.patience", at_least=0),
        **values,
    )


def _contrast(read: Fields, task: Task, schedule: Schedule) -> Contrast | None:
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
    weight = partial(
        losses.warmup,
        maximum=read("loss.weight", at_least=0),
        num_steps=read("loss.warmup", at_least=0),
    )
    power, size = read("loss.level_power"), task.y_size
    share = read("loss.penalty", at_least=0)
    return Contrast(
        strategy=STRATEGIES[name](read, task, schedule),
        pair_loss=PAIR_LOSSES[form](read, size),
        weight=weight,
        levels=levels,
        num_rows=_num_rows(read, levels, schedule.num_levels),
        bounds=task.train.bounds,
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
    return first, last if last >= 0 else first


def _adversarial(read: Fields, task: Task, schedule: Schedule) -> Strategy:
    return negatives.adversarial(
        schedule,
        scale=_noise_scale(read),
        bounds=task.train.bounds,
        num_steps=read("negatives.descent_steps", at_least=1),
        step_size=_descent_step(read, schedule),
    )


def _descent_step(read: Fields, schedule: Schedule):
    """beta_t / s_t on E; on U = E / s_t the same move is beta_t."""
    if _in_nats(read):
        return lambda t: schedule.beta[t]
    return partial(diffusion.descent_step_size, schedule)


def _langevin(read: Fields, task: Task, schedule: Schedule) -> Strategy:
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
    clamp = read("loss.clamp", at_least=0)

    def pair_loss(u_pos, u_neg):
        value = losses.contrastive_divergence(u_pos, u_neg, num_elements=size)
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


def _refuse_if_too_large(experiment: Experiment, read: Fields) -> None:
    """Refuses what the memory cannot hold, before anything is allocated."""
    state = jax.eval_shape(experiment.init_state)
    batch = read("train.batch_size") * (experiment.task.x_size + experiment.task.y_size)
    leaves = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != state.key.dtype]
    need = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + 4 * batch
    have = _memory_bytes()
    if need > have:
        raise UserError(
            f"task.n={read('task.n')}, train.batch_size={read('train.batch_size')},"
            f" replay.capacity={read.values['replay.capacity']}: the run's state needs"
            f" {need / 2**30:.1f} GiB, the device has {have / 2**30:.1f} GiB"
        )


def _memory_bytes() -> int:
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
