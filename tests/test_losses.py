"""Every loss against NumPy float64, its gradient, and its masks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ired_jax import losses
from tests import references
from tests.mutants import Mutant, one

B, D = 7, 5


def _pairs(scale=3.0, count=B):
    u_pos, u_neg = scale * np.random.default_rng(0).normal(size=(2, count))
    return jnp.float32(u_pos), jnp.float32(u_neg)


def _softplus(z):
    return np.logaddexp(0, z)


# One row a pair loss: call, float64 value, float64 derivative by U+ (by U- it is minus
# that where `is_difference`, else the same formula at U-).
PAIR_LOSSES = {
    "contrastive divergence": (
        lambda p, n: losses.contrastive_divergence(p, n, num_elements=D),
        lambda p, n: (p - n) / D,
        lambda p, n: (np.full(B, 1 / D), np.full(B, -1 / D)),
    ),
    "logistic": (
        lambda p, n: losses.logistic(p, n, tau=2.5),
        lambda p, n: _softplus((p - n) / 2.5),
        lambda p, n: (
            1 / (1 + np.exp((n - p) / 2.5)) / 2.5,
            -1 / (1 + np.exp((n - p) / 2.5)) / 2.5,
        ),
    ),
    "hinge": (
        lambda p, n: losses.hinge(p, n, margin=1.5),
        lambda p, n: np.where(1.5 + p > n, 1.5 + p - n, 0),
        lambda p, n: (1.0 * (1.5 + p > n), -1.0 * (1.5 + p > n)),
    ),
    "energy penalty": (
        lambda p, n: losses.energy_penalty(p, n, num_elements=D),
        lambda p, n: (p**2 + n**2) / D**2,
        lambda p, n: (2 * p / D**2, 2 * n / D**2),
    ),
}
pair_losses = pytest.mark.parametrize("name", PAIR_LOSSES)


@pair_losses
def test_a_pair_loss_and_its_gradient_equal_the_formula_for_each_pair(name):
    loss, value, derivative = PAIR_LOSSES[name]
    pairs = _pairs()
    result = loss(*pairs)
    chex.assert_shape(result, (B,))
    exact = [np.float64(u) for u in pairs]
    np.testing.assert_allclose(result, value(*exact), rtol=1e-5, atol=1e-6)
    grads = jax.grad(lambda p, n: jnp.sum(loss(p, n)), argnums=(0, 1))(*pairs)
    for grad, expected in zip(grads, derivative(*exact), strict=True):
        np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-6)


@pair_losses
def test_a_pair_s_value_does_not_depend_on_its_batch(name):
    loss, _, _ = PAIR_LOSSES[name]
    u_pos, u_neg = _pairs()
    together = loss(u_pos, u_neg)
    for i in range(B):
        alone = loss(u_pos[i : i + 1], u_neg[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-6)


@pair_losses
def test_shapes_that_would_broadcast_are_refused(name):
    loss, _, _ = PAIR_LOSSES[name]
    good = jnp.zeros(3)
    for bad in (jnp.zeros(()), jnp.zeros(1), jnp.zeros((3, 1))):
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(AssertionError):
                loss(*pair)
    with pytest.raises(AssertionError):
        loss(jnp.zeros((3, 1)), jnp.zeros((3, 1)))


@pytest.mark.parametrize("name", ["contrastive divergence", "logistic", "hinge"])
def test_data_are_pushed_down_and_samples_up(name):
    loss, _, _ = PAIR_LOSSES[name]
    close = jnp.array([0.5, 0.0]), jnp.array([0.0, 0.5])
    to_pos, to_neg = jax.grad(lambda p, n: jnp.sum(loss(p, n)), argnums=(0, 1))(*close)
    assert np.all(to_pos > 0)  # descent lowers U+
    assert np.all(to_neg < 0)  # and raises U-


def test_contrastive_divergence_has_the_exact_parameter_gradient():
    # U = theta y^2 / 2: the gradient is (mean y+^2 - mean y-^2) / 2.
    y_pos, y_neg = np.random.default_rng(2).normal(size=(2, 50))
    y_neg = 1.5 * y_neg

    def loss(theta, y_pos, y_neg):
        u_pos, u_neg = theta * y_pos**2 / 2, theta * y_neg**2 / 2
        return jnp.mean(losses.contrastive_divergence(u_pos, u_neg, num_elements=1))

    pos, neg = jnp.float32(y_pos), jnp.float32(y_neg)
    for theta in (0.3, 2.0):
        slope = jax.grad(loss)(theta, pos, neg)
        expected = (np.mean(y_pos**2) - np.mean(y_neg**2)) / 2
        np.testing.assert_allclose(slope, expected, rtol=1e-5)
        # Samples wider than the data: descent makes the well narrower.
        assert slope < 0
        assert jax.grad(loss)(theta, pos, pos) == 0


def test_the_logistic_loss_at_tau_one_is_the_two_way_cross_entropy():
    u_pos, u_neg = _pairs(scale=5.0)
    loss = losses.logistic(u_pos, u_neg, tau=1.0)
    logits = jnp.stack([-u_pos, -u_neg], axis=1)
    labels = jnp.zeros(B, jnp.int32)
    optax_loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(loss, optax_loss, rtol=1e-5, atol=1e-6)
    exact = references.two_way_cross_entropy(np.float64(u_pos), np.float64(u_neg))
    np.testing.assert_allclose(loss, exact, rtol=1e-5, atol=1e-6)


def test_the_logistic_loss_survives_gaps_of_thousands_of_nats():
    gap = jnp.array([-4000.0, 4000.0])
    loss = losses.logistic(gap, jnp.zeros(2), tau=1.0)
    np.testing.assert_array_equal(loss, [0, 4000])
    slope = jax.grad(lambda p: jnp.sum(losses.logistic(p, jnp.zeros(2), tau=1.0)))(gap)
    np.testing.assert_array_equal(slope, [0, 1])


def test_a_pair_is_saturated_where_the_sigmoid_is_below_one_percent():
    tau, edge = 3.0, 3.0 * np.log(0.01 / 0.99)
    gaps = np.array([edge - 0.01, edge + 0.01, 0.0, -edge, -1e4, 1e4])
    u_neg = np.full(6, 7.0)
    share = losses.saturation(jnp.float32(u_neg + gaps), jnp.float32(u_neg), tau=tau)
    np.testing.assert_array_equal(share, [1, 0, 0, 0, 1, 0])
    assert share.dtype == jnp.float32


def test_the_warm_up_is_a_ramp_that_ends():
    steps = jnp.array([0, 1, 50, 99, 100, 101, 10_000])
    weight = jax.vmap(lambda step: losses.warmup(step, maximum=0.05, num_steps=100))(
        steps
    )
    expected = 0.05 * np.minimum(1, np.asarray(steps) / 100)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    at_once = losses.warmup(jnp.int32(0), maximum=0.05, num_steps=0)
    np.testing.assert_allclose(at_once, 0.05, rtol=1e-6)


def test_a_level_that_is_asked_for_by_its_share_is_that_level():
    for num_levels in range(2, 61):
        shares = [k / (num_levels - 1) for k in range(num_levels)]
        found = [losses.level_range(num_levels, share, share) for share in shares]
        assert found == [(k, k) for k in range(num_levels)]


def test_a_level_range_is_truncated_to_levels_inclusive():
    assert losses.level_range(10, 0.2, 0.8) == (1, 7)
    assert losses.level_range(10, 0.0, 1.0) == (0, 9)
    assert losses.level_range(1, 0.0, 1.0) == (0, 0)
    assert losses.level_range(100, 0.5, 0.5) == (49, 49)


@pytest.mark.parametrize("low, high", [(-0.1, 0.5), (0.5, 0.4), (0.2, 1.1)])
def test_a_level_range_outside_zero_to_one_is_refused_by_value(low, high):
    with pytest.raises(ValueError, match=rf"\({low}, {high}\)"):
        losses.level_range(10, low, high)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_level_weights_have_mean_one_and_follow_the_power(power):
    _, _, _, s = references.schedule("cosine", 10)
    weight = losses.level_weights(jnp.float32(s), power=power)
    np.testing.assert_allclose(np.mean(weight), 1, rtol=1e-6)
    np.testing.assert_allclose(weight / weight[0], (s / s[0]) ** power, rtol=1e-5)


def _residuals(count=60):
    rng = np.random.default_rng(3)
    t = rng.choice([0, 2, 3, 3, 3, 7], size=count)
    return jnp.float32(rng.gamma(2.0, 10.0, size=count) * (1 + t)), jnp.int32(t)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 1.0])
def test_a_level_s_quantile_is_that_of_its_own_rows(quantile):
    residual, t = _residuals()
    result = losses.level_quantiles(residual, t, num_levels=10, quantile=quantile)
    chex.assert_shape(result, (10,))
    for level in range(10):
        own = np.float64(residual)[np.asarray(t) == level]
        if own.size:
            np.testing.assert_allclose(
                result[level], np.quantile(own, quantile), rtol=1e-5
            )
        else:
            assert np.isnan(result[level])


def test_a_quantile_carries_no_gradient():
    residual, t = _residuals()

    def total(residual):
        result = losses.level_quantiles(residual, t, num_levels=10, quantile=0.3)
        return jnp.nansum(result)

    np.testing.assert_array_equal(jax.grad(total)(residual), 0)


def test_quantiles_refuse_shapes_that_would_broadcast():
    residual, t = _residuals()
    for bad in (t[:1], t[:, None], t[0]):
        with pytest.raises(AssertionError):
            losses.level_quantiles(residual, bad, num_levels=10, quantile=0.3)


MADE = {  # what a maker's defaults are, D elements
    "cd": lambda p, n: (p - n) / D,
    "logistic": lambda p, n: _softplus((p - n) / D),
    "hinge": lambda p, n: np.maximum(0, 1 + (p - n) / D),
}


def test_the_makers_read_their_fields():
    pairs = [jnp.float32([1.0, 5.0]), jnp.float32([3.0, -3.0])]
    gap = np.array([-2.0, 8.0])
    whole = {"per_element": False}
    rows = [
        (losses.make_cd(clamp=0.25), np.maximum(gap / D, -0.25), 1.0),
        (losses.make_cd(**whole), gap, 1.0),
        (losses.make_logistic(tau=2.0), _softplus(gap / (2 * D)), 2.0 * D),
        (losses.make_logistic(tau=2.0, **whole), _softplus(gap / 2), 2.0),
        (losses.make_hinge(margin=0.3), np.maximum(0, 0.3 + gap / D), 1.0),
        (losses.make_hinge(margin=3.0, **whole), np.maximum(0, 3 + gap), 1.0),
    ]
    for loss, expected, tau in rows:
        np.testing.assert_allclose(loss.value(*pairs, D), expected, rtol=1e-5)
        assert loss.tau(D) == tau


class GoldenTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_every_loss_agrees_compiled_and_not(self):
        pairs = _pairs()
        exact = [np.float64(u) for u in pairs]
        for loss, value, _ in PAIR_LOSSES.values():
            result = self.variant(loss)(*pairs)
            np.testing.assert_allclose(result, value(*exact), rtol=1e-5, atol=1e-6)
        for name, loss in losses.PAIR_LOSSES.items():
            value = loss(per_element=True).value
            result = self.variant(lambda p, n, v=value: v(p, n, D))(*pairs)
            np.testing.assert_allclose(result, MADE[name](*exact), rtol=1e-5, atol=1e-6)


MUTANTS = [
    Mutant(
        "losses",
        "a level asked for by its share is the one before",
        "ired_jax.losses",
        one(
            "int(low * last + 1e-9), int(high * last + 1e-9)",
            "int(low * last), int(high * last)",
        ),
        test_a_level_that_is_asked_for_by_its_share_is_that_level,
    ),
    Mutant(
        "reg",
        "the penalty not per element, so far too strong",
        "ired_jax.losses",
        one("(u_pos / num_elements) ** 2", "u_pos**2"),
        test_a_pair_loss_and_its_gradient_equal_the_formula_for_each_pair,
        {"name": "energy penalty"},
    ),
    Mutant(
        "12",
        "the margin is never read",
        "ired_jax.losses",
        one(
            "hinge(u_pos / unit, u_neg / unit, margin=margin)",
            "hinge(u_pos / unit, u_neg / unit, margin=1.0)",
        ),
        test_the_makers_read_their_fields,
    ),
]
