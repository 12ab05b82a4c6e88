"""Aliases, the callables that cross a module, and the named random streams."""

import enum
import functools
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

Array = jax.Array
Tree = Any  # a pytree of arrays
Params = Tree  # of float32 arrays
Batch = Mapping[str, Tree]  # rows {x, y0, y, t, ...}, each leaf [B, ...]


class PartError(ValueError):
    """What a part gives is not what its place asks for; the message names both."""


def refuse_no_count(**values: int) -> None:
    """Raises ValueError for what is not a whole number from 0 on."""
    for name, value in values.items():
        if not isinstance(value, Integral) or value < 0:
            raise ValueError(f"{name}={value}: must be a whole number, at least 0")


def refuse_negative(**values: Any) -> None:
    """Raises ValueError for a plain number below 0; of an array nothing is known."""
    for name, value in values.items():
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name}={value}: must be at least 0")


class Example(NamedTuple):
    """Condition and answer of one row; pytrees of arrays of any shapes."""

    x: Tree
    y: Tree


class Box(NamedTuple):
    """Where y_0 may lie, low <= y_0 <= high; equal sides are a known element.

    Each side is a pytree like y, or one number for all elements: see `boxes`.
    """

    low: Tree
    high: Tree


class EnergyFn(Protocol):
    """A landscape at fixed parameters, condition and level: y -> ().

    It may also have a method `grad`, y -> dE/dy in less work than by way of the energy;
    the two must agree.
    """

    def __call__(self, y: Tree) -> Array: ...


class Energy(NamedTuple):
    """An energy E(params, x, y, t) -> (), low where y answers x.

    Calling it is calling `apply`. `bind`, where there is one, gives the same number
    with the parts that do not depend on y computed once; both agree, and a test holds
    that for every energy. An energy of the form |y - a F|^2 / (2 s) may show its F:
    `propose` gives the answers after each round of the network inside, leaves [R, ...]
    of y's, the last of them F.

    How it is used to answer, each optional: `answering`, the energy that does, of the
    same parameters; `rounds`, how often its network is applied, by level; `denoise`,
    (params, x, y, t) -> y_0, else by the gradient; `score`, (params, x, y_0) -> (),
    what answers to one x are ranked by, the least first, else
    E(x, a_0 y_0, 0).
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Tree, Tree, Array], Array]
    bind: Callable[[Params, Tree, Array], EnergyFn] | None = None
    propose: Callable[[Params, Tree, Tree, Array], Tree] | None = None
    answering: "Energy | None" = None
    rounds: tuple[int, ...] = ()
    denoise: Callable[[Params, Tree, Tree, Array], Tree] | None = None
    score: Callable[[Params, Tree, Tree], Array] | None = None

    def __call__(self, params: Params, x: Tree, y: Tree, t: Array) -> Array:
        """E of one example.

        Raises:
          PartError: `apply` gives anything but one float.
        """
        return _one_float("apply", self.apply(params, x, y, t))


class Landscape(NamedTuple):
    """All landscapes of one condition: `energy` at fixed parameters, (y, t) -> ()."""

    energy: Callable[[Params, Tree, Tree, Array], Array]
    params: Params
    x: Tree

    def __call__(self, y: Tree, t: Array) -> Array:
        return self.energy(self.params, self.x, y, t)

    def at(self, t: Array) -> EnergyFn:
        """The landscape of level t, its x and t parts computed here and only once."""
        return bind(self.energy, self.params, self.x, t)


class WithGrad(NamedTuple):
    """An `EnergyFn` y -> () that brings its gradient, y -> dE/dy."""

    energy_fn: Callable[[Tree], Array]
    grad: Callable[[Tree], Tree]

    def __call__(self, y: Tree) -> Array:
        return self.energy_fn(y)


def gradient(energy_fn: EnergyFn) -> Callable[[Tree], Tree]:
    """y -> dE/dy: the landscape's own where it brings one, else by `jax.grad`.

    For chains. Its own may cost some gradients beforehand, as W W^T does: where one is
    needed alone, or E with it, `jax.grad` is less work.
    """
    return getattr(energy_fn, "grad", None) or jax.grad(energy_fn)


def scaled(energy_fn: EnergyFn, scale: Array | float) -> EnergyFn:
    """E / scale: with the temperature s_t for scale, a landscape in nats."""

    def over_scale(of_y):
        return lambda y: jax.tree.map(lambda leaf: leaf / scale, of_y(y))

    grad, value = getattr(energy_fn, "grad", None), over_scale(energy_fn)
    return value if grad is None else WithGrad(value, over_scale(grad))


def bind(energy: Any, params: Params, x: Tree, t: Array) -> EnergyFn:
    """`energy.bind(params, x, t)` where it has one, else all work is left for y.

    Raises:
      PartError: of the landscape, it gives anything but one float.
    """
    if getattr(energy, "bind", None) is None:
        return Partial(functools.partial(_call_at, energy), params, x, t)
    energy_fn = energy.bind(params, x, t)

    def checked(y: Tree) -> Array:
        return _one_float("bind", energy_fn(y))

    grad = getattr(energy_fn, "grad", None)
    return checked if grad is None else WithGrad(checked, grad)


def _call_at(energy: Any, params: Params, x: Tree, t: Array, y: Tree) -> Array:
    return energy(params, x, y, t)


def _one_float(function: str, value: Any) -> Array:
    if not is_number(value) or not is_float(value):
        raise PartError(
            f"energy: {function} gives {told(value)} for one example, must give a"
            " float, of shape ()"
        )
    return value


def is_number(value: Any) -> bool:
    """Whether it is one number, an array of shape () or Python's own."""
    return isinstance(value, float | int) or getattr(value, "shape", None) == ()


def is_float(value: Any) -> bool:
    """Whether it is of floats, an array or Python's own: what has a gradient."""
    return isinstance(value, float) or jnp.issubdtype(
        getattr(value, "dtype", int), jnp.inexact
    )


def alike(tree: Tree, other: Tree) -> bool:
    """Whether two trees have the same structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    others, other_structure = jax.tree.flatten(other)
    same = list(map(told, leaves)) == list(map(told, others))
    return same and structure == other_structure  # type: ignore[operator]


def told(value: Any) -> str:
    """An array as `float32[8]`, a tuple by what it holds, all else by its type."""
    if type(value) is tuple:
        return f"({', '.join(map(told, value))})"
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


class Stream(enum.IntEnum):
    """The named random streams of a train step. Numbers are part of a run: append."""

    DATA = 0
    LEVEL = 1
    NOISE = 2
    NEGATIVE_LEVEL = 3
    NEGATIVE_NOISE = 4
    START = 5
    COIN = 6
    REPLAY = 7
    CHAIN = 8
    INIT = 9
    EVAL_DATA = 10
    EVAL_OOD = 11
    EVAL_START = 12
    EVAL_NOISE = 13
    BASELINE = 14
    INIT_OWN = 15


def stream_key(key: Array, step: Array | int, stream: Stream) -> Array:
    """The key of one stream at one step; the root `key` itself never advances."""
    return streams(key, step)(stream)


def streams(key: Array, step: Array | int) -> Callable[[Stream], Array]:
    """All streams of one step: stream -> key, the step folded in only once."""
    step_key = jax.random.fold_in(key, step)
    return lambda stream: jax.random.fold_in(step_key, int(stream))
