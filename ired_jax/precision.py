"""An energy whose products take operands in a given format, and add in float32.

    product(a, b)  ->  product(R a, R b),    R rounds to nearest even

for every product of the energy, of its gradients, and of theirs: what the units of an
accelerator compute (bfloat16 or tf32 operands, float32 sums). All the rest stays
float32, and so do parameters, samples and states.

The operands are rounded here, and an accelerator is told that it may use the faster
unit. Naming the unit is not enough: a CPU has no tf32, and there jaxlib 0.10 takes the
rounding of `BF16_BF16_F32` out again as excess precision, or dies of it. So a format
means the same everywhere: on a CPU it shows what it costs in accuracy, and gains no
time. On an NVIDIA GPU float32 has to be asked for: the default of JAX is tf32.

Source: the interpreter of jaxprs of the JAX documentation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
from jax import lax
from jax.extend import core
from jax.extend.core.primitives import dot_general_p
from jax.tree_util import Partial

from ired_jax import types
from ired_jax.types import Array, Energy, EnergyFn, Params, WithGrad

Precision = Literal["float32", "tf32", "bfloat16"]
Product = Callable[..., Array]  # (a, b, precision=), bilinear in a and b


class Format(NamedTuple):
    """How operands are rounded, and by what unit an accelerator multiplies them."""

    mantissa_bits: int  # stored
    precision: lax.Precision | lax.DotAlgorithmPreset

    @property
    def unit_roundoff(self) -> float:
        """The greatest relative error of one rounding."""
        return 2.0 ** -(self.mantissa_bits + 1)


# Where primitives keep what they compute. A derivative that a function brings for
# itself is replaced by that of its rounded products.
INSIDE = {"jit": "jaxpr", "custom_vjp_call": "call_jaxpr", "custom_vmap_call": "call"}
FORMATS = {
    "float32": Format(23, lax.Precision.HIGHEST),
    "tf32": Format(10, lax.Precision.HIGH),
    "bfloat16": Format(7, lax.DotAlgorithmPreset.BF16_BF16_F32),
}


def in_precision(energy: Energy, precision: Precision) -> Energy:
    """The same energy with its products, and those of its gradients, in a format.

    Args:
      energy: its `bind`, if any, returns a `jax.tree_util.Partial`, or two in a
        `WithGrad`, unless `precision` is float32.
      precision: of the operands; sums are float32.

    Returns:
      An energy with the same parameters, for reverse mode only unless `precision` is
      float32.

    Raises:
      ValueError: an unknown precision. When called, TypeError: `bind` returned another
        function; NotImplementedError: a product inside a loop or branch.
    """
    if precision not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise ValueError(f"precision={precision!r}: allowed are {allowed}")
    run = partial(_run, FORMATS[precision])

    def apply(params: Params, x: Array, y: Array, t: Array) -> Array:
        return run(energy.apply, params, x, y, t)

    def bind(params: Params, x: Array, t: Array) -> EnergyFn:
        landscape = run(partial(types.bind, energy), params, x, t)
        energy_fn, grad = in_format(landscape), getattr(landscape, "grad", None)
        return energy_fn if grad is None else WithGrad(energy_fn, in_format(grad))

    def in_format(of_y: Callable[[Array], Array]) -> Partial:
        return Partial(partial(run, _call), of_y)

    return Energy(energy.init, apply, bind)


def rounded(product: Product, form: Format) -> Callable[[Array, Array], Array]:
    """product(R a, R b), whose derivatives of every order are rounded products too.

    Args:
      product: (a, b, precision), bilinear in float32 a and b.
      form: of what it multiplies.
    """
    cut = partial(
        lax.reduce_precision, exponent_bits=8, mantissa_bits=form.mantissa_bits
    )

    @jax.custom_vjp
    def multiply(a, b):
        return lax.platform_dependent(
            cut(a),
            cut(b),
            cpu=partial(product, precision=lax.Precision.HIGHEST),
            default=partial(product, precision=form.precision),
        )

    def backward(operands, cotangent):
        # A product's two transposes are bilinear as well: they round what they
        # multiply, the cotangent too, and not their result.
        a, b = operands
        to_a = _transpose(product, a)
        to_b = _transpose(partial(_swapped, product), b)
        return rounded(to_a, form)(cotangent, b), rounded(to_b, form)(cotangent, a)

    multiply.defvjp(lambda a, b: (multiply(a, b), (a, b)), backward)
    return multiply


def _transpose(product: Product, like: Array) -> Product:
    """(cotangent, other) -> cotangent of `like`, the first operand of `product`."""
    like = jax.ShapeDtypeStruct(like.shape, like.dtype)

    def transpose(cotangent, other, precision):
        def linear(operand):
            return product(operand, other, precision=precision)

        return jax.linear_transpose(linear, like)(cotangent)[0]

    return transpose


def _swapped(product: Product, b: Array, a: Array, precision) -> Array:
    return product(a, b, precision=precision)


def _multiply(params: dict[str, Any], a: Array, b: Array, precision) -> Array:
    return dot_general_p.bind(a, b, **params | {"precision": precision})


def _call(of_y: Callable[[Array], Array], y: Array) -> Array:
    return of_y(y)


def _run(form: Format, function: Callable, *args) -> Any:
    """function(*args), its products in the format."""
    if form is FORMATS["float32"]:
        with jax.default_matmul_precision("highest"):
            return function(*args)
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    leaves = _evaluate(closed, jax.tree.leaves(args), form)
    return jax.tree.unflatten(jax.tree.structure(shape), leaves)


def _evaluate(closed: core.ClosedJaxpr, args: list[Array], form: Format):
    """The jaxpr's results, every float32 product of it rounded."""
    jaxpr = closed.jaxpr
    names, values = [*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *args]
    known = dict(zip(names, values, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        results = _evaluate_eqn(eqn, [read(atom) for atom in eqn.invars], form)
        known |= zip(eqn.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate_eqn(eqn: core.JaxprEqn, args: list[Array], form: Format):
    inside = eqn.params.get(INSIDE.get(eqn.primitive.name))
    if inside is not None and "dot_general" in str(inside):
        return _evaluate(inside, args, form)
    if eqn.primitive is dot_general_p and all(a.dtype == "float32" for a in args):
        return [rounded(partial(_multiply, eqn.params), form)(*args)]
    if any("dot_general" in str(value) for value in eqn.params.values()):
        raise NotImplementedError(f"{eqn.primitive}: has a product inside, unroll it")
    params = eqn.primitive.get_bind_params(eqn.params)
    # Until JAX 0.10 functions come apart from the other parameters.
    functions, params = params if isinstance(params, tuple) else ((), params)
    results = eqn.primitive.bind(*functions, *args, **params)
    return results if eqn.primitive.multiple_results else [results]
