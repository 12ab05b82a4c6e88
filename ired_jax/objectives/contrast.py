"""Contrastive shaping: data down, the negatives of a strategy up.

With Langevin chains and the term `cd` it is contrastive divergence, with replay its
persistent form, beside denoising IRED-CD. Gradient flows through both energies of a
pair, and through no sample, chain, buffer entry or threshold.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import diffusion, losses, negatives
from ired_jax.diffusion import Schedule
from ired_jax.fields import Choice, Field, Package, Part
from ired_jax.losses import PAIR_LOSSES, PairLoss
from ired_jax.negatives.base import BoxFn, Strategy, Units, elements_of, make_units
from ired_jax.negatives.filters import FILTERS, ResidualFilter
from ired_jax.objectives import pairs as phase
from ired_jax.objectives.base import Context, Metrics, Objective
from ired_jax.objectives.pairs import Levels, Replay, make_replay
from ired_jax.precision import in_precision
from ired_jax.types import Array, Energy, Example, Params, Tree, bind

METRICS = {
    "energy_pos": ("nats", "mean energy of positives, E / s_t"),
    "energy_neg": ("nats", "mean energy of negatives, E / s_t"),
    "margin": ("nats", "energy_neg - energy_pos"),
    "frac_sat": ("share", "pairs with sigmoid((U+ - U-) / tau) < .01, U in nats"),
    "chain/acceptance": ("share", "of the moves"),
    "chain/displacement": (
        "per element",
        "root mean square, before it is noised again",
    ),
    "chain/clipped": ("share", "of the elements of a chain's last gradient"),
    "replay/size": ("rows", "held in all buckets"),
    "filter/kept": ("share", "of the negatives"),
    r"filter/q\d+_level\d+": ("residual", "quantile of a level's residuals"),
}


class Contrast(NamedTuple):
    """The negative phase.

    Attributes:
      energy: E, whose landscapes the filter looks at.
      loss_energy: the same in the losses' precision.
      chain_energy: the same in the precision that negatives move in.
      schedule, box, strategy, pair_loss: what they are called.
      weight: step () -> weight ().
      levels: first and last level of the phase, inclusive.
      num_rows: N.
      units: of chain, loss and penalty.
      factor: of the energies in loss and penalty; B for a divided gradient.
      masked: rows are drawn at all levels and the pair loss is masked outside `levels`,
        as in the documents; else they are drawn in `levels` and the weight is less.
      residual: of the task, for the filter.
      level_weights: [T].
      penalty_weight: step () -> (); the penalty sees every row that is drawn.
      block_rows: the most rows at once; None: all.
      parts: that rows are cut into, each with rings of its own.
    """

    energy: Energy
    loss_energy: Energy
    chain_energy: Energy
    schedule: Schedule
    strategy: Strategy
    pair_loss: PairLoss
    weight: Callable[[Array], Array]
    levels: tuple[int, int]
    num_rows: int
    units: Units
    box: BoxFn = None
    masked: bool = False
    residual: Callable[[Tree, Tree], Array] | None = None
    level_weights: Array | None = None
    replay: Replay | None = None
    residual_filter: ResidualFilter | None = None
    penalty_weight: Callable[[Array], Array | float] = lambda step: 0.0
    factor: int = 1
    block_rows: int | None = None
    parts: int = 1


class Weight(NamedTuple):
    """How much the phase counts."""

    weight: Annotated[float, Field("at its maximum", at_least=0)] = 0.05
    warmup: Annotated[
        int, Field("steps over which the weight grows from 0", at_least=0)
    ] = 0
    level_power: Annotated[
        float, Field("pair weight of a level in proportion to s_t^power")
    ] = 0.0
    penalty: Annotated[
        float,
        Field(
            "r of r mean((U+/D)^2 + (U-/D)^2); energy: w r (E+^2 + E-^2)",
            at_least=0,
            other=0.001,
        ),
    ] = 0.0
    divided: Annotated[
        bool,
        Field(
            "B E for E in pair loss and penalty, a temperature of 1 / B: what a"
            " gradient divided by the batch trains (006)"
        ),
    ] = False

    def at(self, step: Array, first_step: int) -> Array:
        """The weight after `step` finished steps, () -> ()."""
        step = jnp.maximum(step - first_step, 0)
        return losses.warmup(step, maximum=self.weight, num_steps=self.warmup)

    def of_levels(self, schedule: Schedule) -> Array | None:
        """Of the levels [T]; None: all alike."""
        if not self.level_power:
            return None
        return losses.level_weights(schedule.temperature, power=self.level_power)


STRATEGY = Choice(
    Package(negatives),
    Field("where negatives come from", group="negatives", name="strategy"),
    "negatives",
    "langevin",
)
PAIR_LOSS = Choice(
    PAIR_LOSSES, Field("pair loss", group="loss", name="contrastive"), "loss", "cd"
)
REPLAY = Choice(
    lambda share: make_replay if share else None,
    Field(
        "probability of a replayed start; 0: no buffer",
        at_least=0,
        at_most=1,
        group="replay",
        name="share",
    ),
    "replay",
    0.0,
)
FILTER = Choice(
    FILTERS,
    Field("drops negatives that are right", group="filter", name="mode"),
    "filter",
    "none",
)


def make_contrast(
    energy: Energy,
    loss_energy: Energy,
    schedule: Schedule,
    box: BoxFn,
    residual: Callable[[Tree, Tree], Array] | None,
    batch_size: int,
    block_rows: int | None = None,
    first_step: int = 0,
    *,
    units: Annotated[Units, Part(make_units, "negatives")],
    strategy: Annotated[Strategy, STRATEGY],
    pair_loss: Annotated[PairLoss, PAIR_LOSS],
    levels: Annotated[Levels, Part(Levels, "negatives")] = Levels(),
    replay: Annotated[Replay | None, REPLAY] = None,
    residual_filter: Annotated[ResidualFilter | None, FILTER] = None,
    weight: Annotated[Weight, Part(Weight, "loss")] = Weight(),
) -> Objective:
    """weight(step) mean_i keep_i pair_loss(U+_i, U-_i), plus the rows' penalty.

    Raises:
      ValueError: a level range that is none, replay with a strategy that does not go on
        from a replayed row, parts that do not divide the batch and the rings, or a
        filter on a task without residual.
    """
    _check(strategy, replay, levels.parts, batch_size)
    if residual_filter and residual is None:
        raise ValueError("filter.mode: must be 'none', the task has no residual")

    def penalty_weight(step: Array) -> Array | float:
        scale = 1.0 if units.in_nats else weight.at(step, first_step)
        return weight.penalty * scale

    num_levels = schedule.num_levels
    spec = Contrast(
        energy=in_precision(energy, "float32"),
        loss_energy=loss_energy,
        chain_energy=in_precision(energy, strategy.precision),
        schedule=schedule,
        strategy=strategy,
        pair_loss=pair_loss,
        weight=partial(weight.at, first_step=first_step),
        levels=levels.range(num_levels),
        num_rows=levels.num_rows(batch_size, num_levels),
        parts=levels.parts,
        units=units,
        box=box,
        masked=levels.rows == "masked",
        residual=residual,
        level_weights=weight.of_levels(schedule),
        replay=replay,
        residual_filter=residual_filter,
        penalty_weight=penalty_weight,
        factor=batch_size if weight.divided else 1,
        block_rows=block_rows,
    )
    return objective_of(spec)


def _check(
    strategy: Strategy, replay: Replay | None, parts: int, batch_size: int
) -> None:
    if replay and not strategy.goes_on:
        raise ValueError(
            f"replay.share={replay.share}: must be 0 with this negatives.strategy, it"
            " does not refine replayed rows"
        )
    if batch_size % parts or (replay and replay.capacity % parts):
        ring = f" and replay.capacity={replay.capacity}" if replay else ""
        raise ValueError(
            f"negatives.parts={parts}: must divide train.batch_size={batch_size}{ring}"
        )


def objective_of(spec: Contrast) -> Objective:
    """The objective of a negative phase."""

    def init(key: Array, example: Example) -> tuple[Params, Tree]:
        del key
        return (), phase.init_memory(spec, example)

    def prepare(context: Context, memory: Tree, batch: Example):
        return phase.draw_pairs(spec, context, memory, batch)

    def loss(params: Params, own: Params, rows: Tree, context: Context):
        del own
        return contrastive_loss(spec, params, rows, context.step)

    return Objective(prepare, loss, init, metrics=METRICS, spec=spec)


def contrastive_loss(
    spec: Contrast, params: Params, pairs: Tree, step: Array
) -> tuple[Array, Metrics]:
    """weight(step) mean_i keep_i pair_loss(U+_i, U-_i), plus the rows' penalty.

    The mean is over all N rows: a filtered pair, of finite energies, contributes
    exactly 0 and leaves the others as they are. The range's share of all levels
    multiplies the weight, so that the expected loss is that of all levels with a mask.
    """
    t, num_levels = pairs["t"], spec.schedule.num_levels

    def both(x, t, y_pos, y):
        # One landscape: its x and t parts, and their gradients, are computed once.
        energy_fn = bind(spec.loss_energy, params, x, t)
        return energy_fn(y_pos), energy_fn(y)

    # Of a gradient divided by the batch it is F = E / B that denoises: its E is B F.
    scale = spec.units.scale(t) / spec.factor
    u_pos, u_neg = jax.vmap(both)(pairs["x"], t, pairs["y_pos"], pairs["y"])
    u_pos, u_neg = u_pos / scale, u_neg / scale
    chex.assert_shape([u_pos, u_neg, pairs["keep"]], t.shape)
    size = elements_of(spec.box, pairs)
    value = spec.pair_loss.value(u_pos, u_neg, size) * pairs["keep"]
    if spec.level_weights is not None:
        value = value * spec.level_weights[t]
    low, high = spec.levels
    share = (high - low + 1) / num_levels
    if spec.masked:
        value, share = jnp.where((t >= low) & (t <= high), value, 0.0), 1.0
    loss = spec.weight(step) * share * jnp.mean(value)
    unit = size if spec.units.in_nats else 1
    penalty = losses.energy_penalty(u_pos, u_neg, num_elements=unit)
    loss += spec.penalty_weight(step) * jnp.mean(penalty)
    # Whatever the loss is in, a person reads nats: one name, one unit. A loss on E may
    # have a slope left where a pair counts as saturated.
    to_nats = scale / diffusion.temperature(spec.schedule, t)
    u_pos, u_neg = u_pos * to_nats, u_neg * to_nats
    tau = spec.pair_loss.tau(size) / spec.factor
    saturated = losses.saturation(u_pos, u_neg, tau=tau)
    metrics = {
        "energy_pos": jnp.mean(u_pos),
        "energy_neg": jnp.mean(u_neg),
        "margin": jnp.mean(u_neg - u_pos),
        "frac_sat": jnp.mean(saturated),
    }
    return loss, metrics
