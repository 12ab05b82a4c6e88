"""The rows of a negative phase: {x, y0, t, y_pos, y, keep, ...}, all constants.

Order: fresh rows at levels of the phase's range; replayed rows where available and the
coin says so; refinement with parameters held; the filter; the refined rows go into the
rings. The positive that stands against a negative is its own row's y_0 noised afresh,
since energies are comparable only at the same x and t.
"""

from typing import Annotated, NamedTuple

import chex
import jax
import jax.numpy as jnp

from ired_jax import blocks, losses, replay, trees
from ired_jax.fields import Field
from ired_jax.negatives import filters
from ired_jax.negatives.base import q_sample, refined, started, still
from ired_jax.objectives.base import Context, Metrics
from ired_jax.types import Array, Batch, Example, Stream, Tree, bind, scaled


class Levels(NamedTuple):
    """Where the phase is: int(low (T-1)) to int(high (T-1)), and how many rows."""

    level_low: Annotated[
        float, Field("first level over T-1", at_least=0, at_most=1)
    ] = 0.0
    level_high: Annotated[
        float, Field("last level over T-1", at_least=0, at_most=1)
    ] = 1.0
    rows: Annotated[
        str,
        Field(
            "N: in_range (B times the range's share), all (B in it), masked (B at all"
            " levels, pair loss masked to the range: earlier)",
            one_of=("in_range", "all", "masked"),
        ),
    ] = "in_range"
    parts: Annotated[
        int,
        Field("of the batch, each with its rows and rings: one a device", at_least=1),
    ] = 1

    def num_rows(self, batch_size: int, num_levels: int) -> int:
        """N: as many of each part."""
        if self.rows != "in_range":
            return batch_size
        first, last = self.range(num_levels)
        share = (last - first + 1) / num_levels
        return self.parts * max(1, round(batch_size // self.parts * share))

    def range(self, num_levels: int) -> tuple[int, int]:
        """First and last level, inclusive.

        Raises:
          ValueError: the last is before the first.
        """
        if self.level_low > self.level_high:
            raise ValueError(
                f"negatives.level_low={self.level_low}: must be at most"
                f" negatives.level_high={self.level_high}"
            )
        return losses.level_range(num_levels, self.level_low, self.level_high)


class Replay(NamedTuple):
    """How starts are drawn from the buffer."""

    share: float = 0.95  # probability of a replayed start, where one is available
    capacity: int = 10_000  # rows a bucket
    num_buckets: int = 10
    conditional: bool = True  # a row brings its own x, y0, t; else only its y
    per_row_coin: bool = True  # else one coin for the whole batch
    curriculum: float = 0.0  # share of the run over which `share` grows from 0


def make_replay(
    share: float,
    num_levels: int,
    *,
    capacity: Annotated[int, Field("rows a bucket", at_least=1)] = 10_000,
    num_buckets: Annotated[
        int,
        Field("rings; more than T only if not conditional; 0: T", at_least=0, other=4),
    ] = 10,
    conditional: Annotated[
        bool, Field("a row brings its own x, y0, t; False: y alone (earlier)")
    ] = True,
    coin: Annotated[
        str,
        Field("one for each row, or for the batch (earlier)", one_of=("row", "batch")),
    ] = "row",
    curriculum: Annotated[
        float,
        Field(
            "share of the run over which `share` grows from 0", at_least=0, at_most=1
        ),
    ] = 0.0,
) -> Replay:
    """A buffer.

    Raises:
      ValueError: more buckets than levels, where rows bring their own level.
    """
    if conditional and num_buckets > num_levels:
        raise ValueError(
            f"replay.num_buckets={num_buckets}: must be at most"
            f" diffusion.num_levels={num_levels}, one bucket a level"
        )
    buckets = num_buckets or num_levels
    return Replay(share, capacity, buckets, conditional, coin == "row", curriculum)


def init_memory(spec, example: Example) -> dict[str, Tree]:
    """Empty rings and thresholds, as far as the phase has them."""
    memory: dict[str, Tree] = {}
    if spec.replay is not None:
        level = jax.ShapeDtypeStruct((), jnp.int32)
        x, y = example
        parts = spec.parts
        rings = replay.init(
            {"x": x, "y0": y, "y": y, "t": level},
            num_buckets=spec.replay.num_buckets,
            capacity=spec.replay.capacity // parts,
        )
        memory["replay"] = rings if parts == 1 else _stacked(rings, parts)
    if spec.residual_filter is not None:
        unseen = jnp.full(spec.schedule.num_levels, filters.UNSEEN, float)
        memory["thresholds"] = unseen
    return memory


def draw_pairs(
    spec, context: Context, memory: dict[str, Tree], batch: Example
) -> tuple[Batch, dict[str, Tree], Metrics]:
    """The rows, the memory after them, and metrics.

    Parameters are held and every sample leaves through stop_gradient: gradient can flow
    through both energies of a pair, and through no chain, start or threshold.
    """
    memory, params = dict(memory), context.params.energy
    rows = _fresh_rows(spec, context, batch)
    key = context.key(Stream.START)
    given = spec.strategy.start(key, _stilled(spec, rows), context.progress)
    y = started(given, rows["y0"])
    if spec.replay is not None:
        rows, y = _replayed_rows(spec, context, memory["replay"], rows, y)
    rows = _stilled(spec, rows)  # what a replayed row knows, its own x says

    def landscape(x, t):
        energy_fn = bind(spec.chain_energy, params, x, t)
        return scaled(energy_fn, spec.units.scale(t))

    key = context.key(Stream.CHAIN)
    given = spec.strategy.refine(key, landscape, rows, y, context.progress)
    y, chain = refined(given, y)
    rows = rows | {"y": y, "keep": jnp.ones(spec.num_rows)}
    metrics = {
        "chain/acceptance": jnp.mean(chain.acceptance),
        "chain/displacement": jnp.mean(chain.displacement),
        "chain/clipped": jnp.mean(chain.clipped),
    }
    if spec.residual_filter is not None:
        keep, limits, more = _filter(spec, params, memory["thresholds"], rows)
        rows, metrics = rows | {"keep": keep}, metrics | more
        memory["thresholds"] = limits
    chex.assert_trees_all_equal_shapes(rows["y"], rows["y0"], rows["eps"])
    chex.assert_shape([rows["t"], rows["keep"]], (spec.num_rows,))
    y_pos = q_sample(spec.schedule, rows["y0"], rows["t"], rows["eps"])
    rows, memory = jax.lax.stop_gradient((rows | {"y_pos": y_pos}, memory))
    if spec.replay is not None:
        memory["replay"] = insert_pairs(spec, memory["replay"], rows)
        size = jnp.sum(memory["replay"].size).astype(jnp.float32)
        metrics["replay/size"] = size
    return rows, memory, metrics


def insert_pairs(spec, rings: replay.ReplayState, rows: Batch) -> replay.ReplayState:
    """Puts the refined rows, in y_t space, into the buckets of their levels."""
    bucket = _bucket_of(spec, rings, rows["t"])
    rows = {name: rows[name] for name in rings.rows}
    if spec.parts == 1:
        return replay.insert(rings, *blocks.whole((rows, bucket)))
    rows, bucket = blocks.in_parts((rows, bucket), spec.parts)
    return blocks.vmap(replay.insert)(rings, rows, bucket)


def _fresh_rows(spec, context: Context, batch: Example) -> dict[str, Tree]:
    """The first N of the step's examples, at levels and with noise of their own."""
    low, high = (0, spec.schedule.num_levels - 1) if spec.masked else spec.levels
    x, y0 = blocks.first(batch, spec.num_rows, spec.parts)
    key = context.key(Stream.NEGATIVE_LEVEL)
    t = jax.random.randint(key, (spec.num_rows,), low, high + 1)
    eps = trees.normal(context.key(Stream.NEGATIVE_NOISE), y0)
    return {"x": x, "y0": y0, "t": t, "eps": eps}


def _stilled(spec, rows: dict[str, Tree]) -> dict[str, Tree]:
    """The rows [N, ...], their noise 0 at what each row's own x knows (`Box`)."""
    return rows | {"eps": still(spec.box, rows["x"], rows["eps"])}


def _replayed_rows(spec, context: Context, rings, rows: Batch, y: Tree):
    """Replaces rows by replayed ones where one is available and the coin says so."""
    bucket = _bucket_of(spec, rings, rows["t"])
    stored, is_available = _sample(spec, context.key(Stream.REPLAY), rings, bucket)
    shape = bucket.shape if spec.replay.per_row_coin else ()
    share = spec.replay.share * losses.ramp(context.progress, spec.replay.curriculum)
    coin = jax.random.bernoulli(context.key(Stream.COIN), share, shape)
    use = is_available & coin
    names = ("x", "y0", "t") if spec.replay.conditional else ()
    chosen = {name: trees.where(use, stored[name], rows[name]) for name in names}
    return {**rows, **chosen}, trees.where(use, stored["y"], y)


def _sample(spec, key: Array, rings, bucket: Array) -> tuple[Tree, Array]:
    """`replay.sample`, of each row from the rings of its own part."""
    if spec.parts == 1:
        return replay.sample(key, rings, bucket)
    keys, bucket = (
        jax.random.split(key, spec.parts),
        blocks.in_parts(bucket, spec.parts),
    )
    return blocks.in_one(blocks.vmap(replay.sample)(keys, rings, bucket))


def _stacked(rings: replay.ReplayState, parts: int) -> replay.ReplayState:
    """Empty rings, once for each part."""
    return jax.tree.map(lambda a: jnp.zeros((parts, *a.shape), a.dtype), rings)


def _filter(spec, params, previous: Array, rows: Batch):
    """keep [N], thresholds [T], and the residuals' quantiles of each level."""
    num_levels = spec.schedule.num_levels
    residual = filters.filtered_residual(
        spec.schedule,
        spec.residual,
        lambda x, t: bind(spec.energy, params, x, t),
        rows,
        box=spec.box,
        denoised=spec.residual_filter.denoised,
        block_rows=spec.block_rows,
    )
    every, t = blocks.whole((residual, rows["t"]))  # two numbers a row are moved
    limits = filters.thresholds(spec.residual_filter, every, t, previous)
    keep = (residual >= limits[rows["t"]]).astype(jnp.float32)
    low, high = spec.levels
    metrics = {"filter/kept": jnp.mean(keep)}
    for quantile in (0.1, 0.5, 0.9):
        of_level = losses.level_quantiles(
            every, t, num_levels=num_levels, quantile=quantile
        )
        for level in range(low, high + 1):
            metrics[f"filter/q{round(100 * quantile)}_level{level}"] = of_level[level]
    return keep, limits, metrics


def _bucket_of(spec, rings: replay.ReplayState, t: Array) -> Array:
    return replay.bucket_of(
        t, num_levels=spec.schedule.num_levels, num_buckets=rings.num_buckets
    )
