"""What every objective offers; the train step adds up those that it is given."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ired_jax.types import (
    Array,
    Example,
    Params,
    PartError,
    Stream,
    Tree,
    alike,
    is_float,
    is_number,
    told,
)

Metrics = dict[str, Array]  # name -> () float32


class Parameters(NamedTuple):
    """All that the optimizer moves."""

    energy: Params
    own: dict[str, Params]  # by objective: log Z, a sampler, a head; mostly ()


class Context(NamedTuple):
    """What an objective knows of the step that it is in."""

    step: Array  # () int32, finished steps
    progress: Array  # () share of the run done
    key: Callable[[Stream], Array]  # the step's random streams
    params: Parameters  # held: no gradient flows to them from `prepare`
    ema_params: Parameters


class InitFn(Protocol):
    """(key, example) -> (parameters of its own, memory that it keeps)."""

    def __call__(self, key: Array, example: Example) -> tuple[Params, Tree]: ...


class PrepareFn(Protocol):
    """The rows of a loss, all of them constants, and the memory after this step.

    `batch` holds the step's examples, each leaf [B, ...].
    """

    def __call__(
        self, context: Context, memory: Tree, batch: Example
    ) -> tuple[Tree, Tree, Metrics]: ...


class LossFn(Protocol):
    """The mean over rows and metrics that are means over rows too.

    `own` are the parameters that `init` made.
    """

    def __call__(
        self, params: Params, own: Params, rows: Tree, context: Context
    ) -> tuple[Array, Metrics]: ...


def init_nothing(key: Array, example: Example) -> tuple[Params, Tree]:
    """No parameters of its own, no memory."""
    del key, example
    return (), ()


class Objective(NamedTuple):
    """One term of what a train step lowers.

    Gradient flows through `loss` alone, to the parameters: what `prepare` returns is
    constant there. A chain that shall carry gradient takes that step in `loss`.

    Attributes:
      roots: metrics of which `loss` gives the mean of squares: the step takes the root.
      metrics: {name or pattern: (unit, meaning)} of all that it reports.
      spec: what it is made of, for a person's look at it.
    """

    prepare: PrepareFn
    loss: LossFn
    init: InitFn = init_nothing
    roots: tuple[str, ...] = ()
    metrics: Mapping[str, tuple[str, str]] = {}
    spec: Any = None


def prepared(
    name: str, objective: Objective, given: Any, memory: Tree
) -> tuple[Tree, Tree, Metrics]:
    """(rows, memory, metrics), as an objective's `prepare` gave them.

    Raises:
      PartError: it gave something else, a memory of other shapes than that before, or
        a metric that it has not declared.
    """
    if not isinstance(given, tuple) or len(given) != 3:
        raise PartError(
            f"objectives: prepare of {name!r} gives {told(given)}, must give (rows,"
            " memory, metrics)"
        )
    if not alike(given[1], memory):
        raise PartError(
            f"objectives: prepare of {name!r} gives another memory than it got, must"
            " keep its structure, shapes and dtypes"
        )
    _refuse_metrics(name, objective, "prepare", given[2])
    return given


def lowered(name: str, objective: Objective, given: Any) -> tuple[Array, Metrics]:
    """(value, metrics), as an objective's `loss` gave them.

    Raises:
      PartError: it gave something else, a value that is not one float, or a metric
        that it has not declared.
    """
    is_pair = isinstance(given, tuple) and len(given) == 2
    if not is_pair or not is_number(given[0]) or not is_float(given[0]):
        raise PartError(
            f"objectives: loss of {name!r} gives {told(given)}, must give (mean over"
            " rows, a float of shape (), metrics)"
        )
    _refuse_metrics(name, objective, "loss", given[1])
    return given


def joined(metrics: Metrics, more: Metrics) -> Metrics:
    """Both, each under a name of its own.

    Raises:
      PartError: a name that is in both.
    """
    if twice := sorted(set(metrics) & set(more)):
        raise PartError(
            f"objectives: the metric {twice[0]!r} is given twice, each must have a name"
            " of its own"
        )
    return metrics | more


def _refuse_metrics(
    name: str, objective: Objective, function: str, metrics: Any
) -> None:
    if not isinstance(metrics, Mapping):
        raise PartError(
            f"objectives: {function} of {name!r} gives {told(metrics)} for metrics,"
            " must give a dict of numbers"
        )
    for metric, value in metrics.items():
        if not is_number(value):
            raise PartError(
                f"objectives: {function} of {name!r} gives {told(value)} for the"
                f" metric {metric!r}, must give a number, of shape ()"
            )
        if not any(re.fullmatch(known, metric) for known in objective.metrics):
            raise PartError(
                f"objectives: {function} of {name!r} gives the metric {metric!r}, which"
                " must be declared among its `metrics`: name, unit, meaning"
            )
