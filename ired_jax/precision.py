"""By what unit of an accelerator the products of an energy are multiplied.

JAX's own `default_matmul_precision`: matrix products and convolutions alike, those of
gradients too. On an NVIDIA GPU float32 has to be asked for, the default is tf32; a CPU
computes all of them in float32.
"""

from typing import Annotated, Any

import jax

from ired_jax.fields import Field
from ired_jax.types import Array, Energy, EnergyFn, Params, Tree, WithGrad, bind

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


def in_precision(energy: Energy, precision: str) -> Energy:
    """The same energy, its products by the units of that precision.

    Raises:
      ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise ValueError(f"precision={precision!r}: allowed are {allowed}")

    def at(function):
        def call(*args):
            with jax.default_matmul_precision(PRECISIONS[precision]):
                return function(*args)

        return call

    def bind_at(params: Params, x: Tree, t: Array) -> EnergyFn:
        energy_fn = at(bind)(energy, params, x, t)
        grad = getattr(energy_fn, "grad", None)
        return at(energy_fn) if grad is None else WithGrad(at(energy_fn), at(grad))

    names = ("propose", "denoise", "score")
    optional = {name: getattr(energy, name) for name in names}
    parts: dict[str, Any] = {name: f and at(f) for name, f in optional.items()}
    if energy.answering is not None:
        parts["answering"] = in_precision(energy.answering, precision)
    return energy._replace(apply=at(energy.apply), bind=bind_at, **parts)


def make_loss_energy(
    energy: Energy,
    *,
    loss: Annotated[
        str,
        Field("of the energy in the losses and their gradients", one_of=(*PRECISIONS,)),
    ] = "float32",
) -> Energy:
    """The energy that losses are computed with."""
    return in_precision(energy, loss)
