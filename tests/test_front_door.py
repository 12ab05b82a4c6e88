"""What `import ired_jax as ij` shows: every public name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ired_jax as ij
from tests import toys
from tests.mutants import Mutant, one


@pytest.mark.parametrize("name", ij.__all__)
def test_a_public_name_is_there_and_listed(name):
    assert getattr(ij, name) is not None
    assert name in dir(ij)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'langewin'"):
        _ = ij.langewin


def test_anybody_s_energy_is_sampled_and_solved():
    """y of two leaves, a quadratic bowl around x: the law of the chain, the answer."""

    def energy_fn(y):
        return (jnp.sum((y["a"] - 1) ** 2) + jnp.sum((y["b"] + 2) ** 2)) / 2

    start = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)}
    options = {"step_size": 0.1, "temperature": 0.0, "num_steps": 200}
    sample = toys.jit(lambda key: ij.sample(key, energy_fn, start, **options)[0])
    y = sample(jax.random.key(0))
    np.testing.assert_allclose(y["a"], 1, atol=1e-5)
    np.testing.assert_allclose(y["b"], -2, atol=1e-5)
    schedule = ij.make_schedule("cosine", 10)

    def of_level(y, t):
        a, s = schedule.a[t], schedule.s[t]
        away = jnp.sum((y["a"] - a) ** 2) + jnp.sum((y["b"] + 2 * a) ** 2)
        return away / (2 * s)

    solve = toys.jit(
        lambda key: ij.solve(key, of_level, schedule, start, num_steps=2, bounds=3.0)
    )
    y, info = solve(jax.random.key(1))
    np.testing.assert_allclose(y["a"], 1, atol=1e-4)
    np.testing.assert_allclose(y["b"], -2, atol=1e-4)
    assert float(info.energy) < 1e-6


SCHEDULE = ij.make_schedule("cosine", 2)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("sample", {"temperature": -1}, "temperature=-1: must be at least 0"),
        ("sample", {"step_size": -0.1}, "step_size=-0.1: must be at least 0"),
        ("sample", {"num_steps": 1.5}, "num_steps=1.5: must be a whole number"),
        ("sample", {"temperature": 0.0, "adjusted": True}, "temperature=0: must be ab"),
        ("minimize", {"step_size": -0.1}, "step_size=-0.1: must be at least 0"),
        ("metropolis", {"temperature": -1}, "temperature=-1: must be at least 0"),
        ("solve", {"y_shape": 2}, "y_shape=2: must be a tuple of sizes"),
        ("solve", {"y_shape": (3, -1)}, r"y_shape\[1\]=-1: must be a whole number"),
        ("solve", {"schedule": "cosine"}, "schedule='cosine': must be a Schedule"),
    ],
)
def test_plain_values_that_cannot_be_are_one_sentence(name, changed, said):
    """Numbers that are known before the program is: of arrays nothing is said."""
    key, y = {"key": jax.random.key(0)}, {"y": jnp.ones(2)}
    given = {
        "sample": key | y | {"step_size": 0.1, "temperature": 1.0, "num_steps": 1},
        "minimize": y | {"step_size": 0.1, "num_steps": 1},
        "metropolis": key | y | {"move": lambda key, y: y, "num_moves": 1},
        "solve": key
        | {"schedule": SCHEDULE, "y_shape": (2,), "num_steps": 0}
        | {"bounds": None},
    }
    options = given[name] | {"energy_fn": lambda y, *_: jnp.sum(y**2)} | changed
    with pytest.raises(ValueError, match=said):
        getattr(ij, name)(**options)


MUTANTS = [
    Mutant(
        "front door",
        "a temperature below 0 is taken",
        "ired_jax.samplers.langevin",
        one(
            "step_size=step_size, temperature=temperature)\n    if",
            "step_size=step_size)\n    if",
        ),
        test_plain_values_that_cannot_be_are_one_sentence,
        {
            "name": "sample",
            "changed": {"temperature": -1},
            "said": "temperature=-1: must be at least 0",
        },
        error=pytest.fail.Exception,
    ),
]
