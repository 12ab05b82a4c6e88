"""What `import ired_jax as ij` shows: every public name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ired_jax as ij
from tests import toys


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
