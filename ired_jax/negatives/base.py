"""What every strategy offers: a start, a refinement.

A strategy works on the rows {x, y0, t, eps} of a negative phase, each leaf [N, ...]:
`start` gives a first y in y_t space, `refine` moves it. Energies reach `refine` as
`landscape(x, t) -> (y -> ())`, in the phase's units, with parameters held. Nothing here
is differentiated: the caller stops the gradient. Known elements of y are 0 in eps and
stay at a_t y_0 throughout.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from ired_jax import boxes, diffusion, trees
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.precision import PRECISIONS
from ired_jax.types import Array, Batch, Box, EnergyFn, PartError, Tree, alike, told

LandscapeAt = Callable[[Tree, Array], EnergyFn]  # (x, t ()) -> (y -> ())
BoxFn = Callable[[Tree], Box] | None  # x -> Box; None: all of R^D


class ChainInfo(NamedTuple):
    """How the refinement went, for each row: [N].

    `displacement` is the root mean square over free elements of what a chain or descent
    moved, before it is noised again; `on_trajectory` has that of its noised answer from
    its start.
    """

    acceptance: Array
    displacement: Array
    clipped: Array  # share of the last gradient's elements that a chain's clip cut


class StartFn(Protocol):
    """Gives the first y, leaves [N, ...]; `progress` is the share of the run done."""

    def __call__(self, key: Array, rows: Batch, progress: Array) -> Tree: ...


class RefineFn(Protocol):
    """Moves y, leaves [N, ...], on the landscapes of its rows."""

    def __call__(
        self, key: Array, landscape: LandscapeAt, rows: Batch, y: Tree, progress: Array
    ) -> tuple[Tree, ChainInfo]: ...


class Strategy(NamedTuple):
    """One way to make negatives.

    Attributes:
      start: (key, rows, progress) -> y, where negatives begin.
      refine: (key, landscape, rows, y, progress) -> (y, `ChainInfo`), what moves them.
      precision: of the energy that `refine` moves on.
      goes_on: whether `refine` can go on from a replayed y.
      step_size: t -> the step of its chain or descent, for a person to see; where that
        depends on known elements, that without any.
    """

    start: StartFn
    refine: RefineFn
    precision: str = "float32"
    goes_on: bool = False
    step_size: Callable[[Array], Array] | None = None


class Units(NamedTuple):
    """What the landscapes of a negative phase are measured in."""

    in_nats: bool
    scale: Callable[[Array], Array]  # t -> what E is divided by, ()
    descent_step: Callable[[Array], Array]  # t -> step of the same move, ()
    langevin_step: Callable[[Array, float], Array]  # (t, multiple) -> step, ()


ChainPrecision = Annotated[
    str,
    Field(
        "of the energy that negatives move on",
        one_of=(*PRECISIONS,),
        group="precision",
        name="chains",
    ),
]
NoiseScale = Annotated[
    float, Field("start noise in units of s_t", at_least=0, name="noise_scale")
]
NoiseScaleEnd = Annotated[
    float,
    Field("the same at the end of the run; -1: unchanged", at_least=-1, other=0.5),
]
DescentSteps = Annotated[int, Field("accepted descent steps", at_least=1)]


def make_units(
    schedule: Schedule,
    *,
    units: Annotated[
        str,
        Field(
            "of chain, loss, penalty: nats (U = E / s_t), energy (E)",
            one_of=("nats", "energy"),
        ),
    ] = "nats",
) -> Units:
    """Nats, U = E over its temperature, or E itself as in the earlier form."""
    of_energy = partial(diffusion.descent_step_size, schedule)
    if units == "energy":
        return Units(
            False,
            lambda t: jnp.ones(()),
            of_energy,
            lambda t, multiple: multiple * of_energy(t),
        )

    def of_nats(t: Array) -> Array:
        """On E beta_t / s_t, on U the same move; without noise 1, as on E."""
        return jnp.where(schedule.s[t] > 0, schedule.beta[t], schedule.temperature[t])

    return Units(
        True,
        partial(diffusion.temperature, schedule),
        of_nats,
        lambda t, multiple: diffusion.langevin_step_size(schedule, t, multiple),
    )


def keep(key, landscape, rows, y, progress):
    """No refinement."""
    assert_rows(rows, y)
    del key, landscape, progress
    none = jnp.zeros(rows["t"].shape[0])
    return y, ChainInfo(acceptance=1 + none, displacement=none, clipped=none)


def noised_start(
    schedule: Schedule, box: BoxFn, noise_scale: float, noise_scale_end: float
) -> StartFn:
    """a_t y_0 + scale s_t eps', the scale going from the first to the last of a run.

    Raises:
      ValueError: an end between -1, for unchanged, and 0.
    """
    if -1 < noise_scale_end < 0:
        raise ValueError(
            f"negatives.noise_scale_end={noise_scale_end}: must be at least 0, or -1"
            " for unchanged"
        )
    first, last = noise_scale, noise_scale if noise_scale_end < 0 else noise_scale_end

    def start(key, rows, progress):
        assert_rows(rows, rows["y0"])
        factor = first + (last - first) * progress
        noise = trees.normal(key, rows["y0"])
        noise = jax.tree.map(lambda leaf: factor * leaf, noise)
        return q_sample(schedule, rows["y0"], rows["t"], still(box, rows["x"], noise))

    return start


def renoise(schedule: Schedule, box: BoxFn, rows: Batch, y: Tree) -> Tree:
    """y_t -> y_0 = clip(y / a_t) -> a_t y_0 + s_t eps with the positive's eps."""

    def start_of(x, t, y):
        y0 = jax.tree.map(lambda leaf: leaf / schedule.a[t], y)
        return boxes.clip(box_of(box, x), y0)

    y0 = jax.vmap(start_of)(rows["x"], rows["t"], y)
    return q_sample(schedule, y0, rows["t"], rows["eps"])


def box_of(box: BoxFn, x: Tree) -> Box | None:
    """The box of one x."""
    return None if box is None else box(x)


def still(box: BoxFn, x: Tree, noise: Tree) -> Tree:
    """Rows of noise with 0 at the known elements, leaves [N, ...]."""
    return jax.vmap(lambda x, noise: boxes.still(box_of(box, x), noise))(x, noise)


def q_sample(schedule: Schedule, y0: Tree, t: Array, eps: Tree) -> Tree:
    """a_t y_0 + s_t eps of each row, leaves [N, ...]."""
    return jax.vmap(partial(diffusion.q_sample, schedule))(y0, t, eps)


def elements_of(box: BoxFn, rows: Batch) -> Array | int:
    """D of each row [N], or one number where none has known elements."""
    row = jax.tree.map(lambda leaf: leaf[0], {k: rows[k] for k in ("x", "y")})
    if boxes.free(box_of(box, row["x"]), row["y"]) is None:
        return boxes.count_free(None, row["y"])
    return jax.vmap(lambda x, y: boxes.count_free(box_of(box, x), y))(
        rows["x"], rows["y"]
    )


def started(given: Any, y0: Tree) -> Tree:
    """y, leaves [N, ...], as a strategy's `start` gave it.

    Raises:
      PartError: it is not like y_0.
    """
    if not alike(given, y0):
        raise PartError(
            f"negatives.strategy: start gives {told(given)}, must give y like the rows'"
            f" y0, {told(y0)}"
        )
    return given


def refined(given: Any, y: Tree) -> tuple[Tree, ChainInfo]:
    """(y, info), leaves [N, ...] and [N], as a strategy's `refine` gave them.

    Raises:
      PartError: it gave something else, a y of other shapes, or information that is not
        of each row.
    """
    is_pair = isinstance(given, tuple) and len(given) == 2
    if not is_pair or not isinstance(given[1], ChainInfo) or not alike(given[0], y):
        raise PartError(
            f"negatives.strategy: refine gives {told(given)}, must give (y,"
            f" ChainInfo), y of {told(y)}"
        )
    num_rows = jax.tree.leaves(y)[0].shape[:1]
    for name, of_rows in given[1]._asdict().items():
        if jnp.shape(of_rows) != num_rows:
            raise PartError(
                f"negatives.strategy: refine gives {told(of_rows)} for {name}, must"
                f" give a number for each of {num_rows[0]} rows"
            )
    return given


def assert_rows(rows: Batch, y: Tree) -> None:
    """y like y0, leaves [N, ...]; t [N]."""
    chex.assert_rank(rows["t"], 1)
    chex.assert_trees_all_equal_shapes(rows["y0"], y)
    chex.assert_tree_shape_prefix([rows["y0"], rows["t"]], rows["t"].shape)
