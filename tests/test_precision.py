"""The precision that an energy asks for reaches every product and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ired_jax import diffusion
from ired_jax.energies import board, matrix, mlp
from ired_jax.precision import PRECISIONS, in_precision
from ired_jax.tasks import sudoku
from ired_jax.types import Energy, bind, gradient
from tests import toys
from tests.mutants import Mutant, one

T = jnp.int32(3)
ASKED = {"float32": "HIGHEST", "tf32": "HIGH", "bfloat16": "DEFAULT"}


def convolution():
    """E = |K * y - x|^2: a kernel of rank 3, no matrix product at all."""

    def apply(params, x, y, t):
        del t
        out = lax.conv_general_dilated(y[None, None], params, (1,), "SAME")
        return jnp.sum((out[0, 0] - x) ** 2)

    return Energy(lambda key: jax.random.normal(key, (1, 1, 3)), apply)


def small_board():
    """A proposal beside its gradient, both of a layer whose derivative is by hand."""
    schedule = diffusion.make_schedule("cosine", 4)
    energy = board.make_board(schedule, sudoku.box_of, channels=2, layers=1, rounds=2)

    def apply(params, x, y, t):
        return energy(params, x, y, t) + jnp.sum(energy.propose(params, x, y, t))

    return energy._replace(apply=apply, bind=None)


VECTORS = {size: (jax.ShapeDtypeStruct((size,), jnp.float32),) * 2 for size in (4, 5)}
GAME = (
    jax.ShapeDtypeStruct((9, 9), jnp.int8),
    jax.ShapeDtypeStruct((9, 9, 9), jnp.float32),
)
ENERGIES = {
    "mlp": (mlp.make_mlp(4, 4, width=6), VECTORS[4]),  # narrow: brings its gradient
    "matrix": (matrix.make_matrix(channels=3, layers=1), VECTORS[4]),
    "convolution": (convolution(), VECTORS[5]),
    "board": (small_board(), GAME),
}


def program_of(name, precision, part):
    """The text of a program: of the energy, of its gradients, of a chain's gradient."""
    energy, example = ENERGIES[name]
    energy = in_precision(energy, precision)
    params = jax.eval_shape(energy.init, jax.random.key(0))

    def loss(params, x, y):
        return jnp.sum(jax.grad(energy, argnums=2)(params, x, y, T) ** 2)

    parts = {
        "energy": lambda p, x, y: energy(p, x, y, T),
        "loss": jax.grad(loss),
        "chain": lambda p, x, y: gradient(bind(energy, p, x, T))(y),
    }
    return jax.jit(parts[part]).lower(params, *example).as_text()


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("part", ["energy", "loss", "chain"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_product_asks_for_the_precision(name, part, precision):
    lines = [
        line
        for line in program_of(name, precision, part).splitlines()
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert lines
    other = set(ASKED.values()) - {ASKED[precision]}
    for line in lines:
        # The default is left out of a matrix product's text.
        is_default = precision == "bfloat16" and "precision" not in line
        assert (
            is_default
            or f"[{ASKED[precision]}, {ASKED[precision]}]" in line
            or (f"#stablehlo<precision {ASKED[precision]}>" in line)
        )
        assert not any(f"<precision {name}>" in line for name in other)


def test_a_score_of_answers_asks_for_the_precision_too():
    energy = convolution()
    energy = energy._replace(score=lambda params, x, y: params @ y)
    score = in_precision(energy, "float32").score
    text = str(jax.make_jaxpr(score)(jnp.ones((2, 3)), (), jnp.ones(3)))
    assert "HIGHEST" in text


def test_on_a_cpu_all_of_them_compute_the_same():
    energy, (like, _) = ENERGIES["convolution"]
    x, y = np.random.default_rng(0).normal(size=(2, *like.shape)).astype(np.float32)
    params = energy.init(jax.random.key(0))
    values = {
        name: float(toys.jit(in_precision(energy, name).apply)(params, x, y, T))
        for name in PRECISIONS
    }
    assert len(set(values.values())) == 1


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision='float16': allowed are float32"):
        in_precision(ENERGIES["mlp"][0], "float16")


MUTANTS = [
    Mutant(
        "precision",
        "answers are ranked in another precision",
        "ired_jax.precision",
        one(
            'names = ("propose", "denoise", "score")', 'names = ("propose", "denoise")'
        ),
        test_a_score_of_answers_asks_for_the_precision_too,
    ),
    Mutant(
        "precision",
        "a gradient written by hand in the precision of wherever it is traced",
        "ired_jax.energies.board",
        one("with jax.default_matmul_precision(precision):", "if True:"),
        test_every_product_asks_for_the_precision,
        {"name": "board", "part": "loss", "precision": "float32"},
    ),
    Mutant(
        "precision",
        "chains move in another precision than they ask for",
        "ired_jax.precision",
        one("WithGrad(at(energy_fn), at(grad))", "WithGrad(at(energy_fn), grad)"),
        test_every_product_asks_for_the_precision,
        {"name": "mlp", "part": "chain", "precision": "float32"},
    ),
    Mutant(
        "precision",
        "tf32 asks for float32",
        "ired_jax.precision",
        one('"tf32": "tensorfloat32"', '"tf32": "highest"'),
        test_every_product_asks_for_the_precision,
        {"name": "convolution", "part": "loss", "precision": "tf32"},
    ),
]
