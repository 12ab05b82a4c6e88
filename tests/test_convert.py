"""Weights of the published layout come in and go out unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import torch_baseline
from ired_jax import convert
from ired_jax.energies.mlp import make_mlp

X_SIZE, Y_SIZE, BATCH = 5, 7, 12
HEADS = ("squared_norm", "scalar")


def torch_model(head):
    torch.manual_seed(0)
    return torch_baseline.Model(X_SIZE, Y_SIZE, head=head)


def state_of(model, prefix="model."):
    """The module's own arrays, as a checkpoint would name them."""
    return {prefix + k: v.numpy().copy() for k, v in model.state_dict().items()}


def rows():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(BATCH, X_SIZE)).astype(np.float32)
    y = generator.normal(size=(BATCH, Y_SIZE)).astype(np.float32)
    return x, y, np.arange(BATCH, dtype=np.int32) % 10


def ours(converted):
    """Energies [B] and input gradients [B, D] of the rows, by the library."""
    _, x_size, y_size, width, head = converted
    energy = make_mlp(x_size, y_size, width=width, head=head)
    call = jax.vmap(jax.value_and_grad(energy.apply, argnums=2), (None, 0, 0, 0))
    return call(converted.params, *map(jnp.asarray, rows()))


def theirs(model):
    x, y, t = (torch.tensor(v) for v in rows())
    energy, grad = model.energy_and_grad(x, y, t)
    return energy.detach().numpy(), grad.numpy()


@pytest.mark.parametrize("head", HEADS)
def test_energy_and_gradient_are_those_of_the_pytorch_module(head):
    model = torch_model(head)
    converted = convert.from_state_dict(state_of(model))
    assert converted[1:] == (X_SIZE, Y_SIZE, torch_baseline.WIDTH, head)
    for mine, expected in zip(ours(converted), theirs(model), strict=True):
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("head", HEADS)
def test_a_round_trip_returns_the_same_bits(head):
    state = state_of(torch_model(head))
    converted = convert.from_state_dict(state)
    back = convert.to_state_dict(converted.params, head=head)
    assert back.keys() == state.keys()
    unused = ("ebm.fc4.weight", "ebm.fc4.bias") if head == "scalar" else ()
    for name in state:
        if not name.endswith(unused):
            np.testing.assert_array_equal(back[name], state[name])


@pytest.mark.parametrize("head", HEADS)
def test_what_goes_out_is_loaded_strictly_by_the_pytorch_module(head):
    energy = make_mlp(X_SIZE, Y_SIZE, head=head)
    params = energy.init(jax.random.key(2))
    model = torch_baseline.load(convert.to_state_dict(params, head=head))
    call = jax.vmap(energy.apply, (None, 0, 0, 0))
    mine = call(params, *map(jnp.asarray, rows()))
    expected, _ = theirs(model)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5 * scale)


def test_parameters_have_the_tree_that_the_energy_draws():
    converted = convert.from_state_dict(state_of(torch_model("squared_norm")))
    drawn = make_mlp(X_SIZE, Y_SIZE).init(jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), converted.params)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), drawn)


@pytest.mark.parametrize("head", HEADS)
def test_a_gradient_divided_in_training_gives_the_energy_divided(head):
    model, divisor = torch_model(head), 2048.0
    converted = convert.from_state_dict(state_of(model), input_grad_divisor=divisor)
    for mine, expected in zip(ours(converted), theirs(model), strict=True):
        scale = np.max(np.abs(expected)) / divisor
        np.testing.assert_allclose(mine, expected / divisor, rtol=0, atol=1e-5 * scale)
    back = convert.to_state_dict(
        converted.params, head=head, input_grad_divisor=divisor
    )
    last = (
        "model.ebm.energy_head.weight" if head == "scalar" else "model.ebm.fc4.weight"
    )
    np.testing.assert_allclose(back[last], state_of(model)[last], rtol=1e-6)


def test_schedule_buffers_and_the_averages_counters_are_passed_over():
    state = state_of(torch_model("squared_norm"), "ema_model.model.")
    extra = {f"ema_model.{name}": np.zeros(10) for name in ("betas", "opt_step_size")}
    extra |= {"initted": np.array([True]), "step": np.array([100])}
    plain = convert.from_state_dict(state)
    same = convert.from_state_dict(state | extra)
    jax.tree.map(np.testing.assert_array_equal, plain.params, same.params)


def test_of_two_networks_the_one_asked_for_is_read():
    model = torch_model("squared_norm")
    average = state_of(model, "ema_model.model.")
    online = {k.replace("ema_", "online_"): v + 1 for k, v in average.items()}
    both = average | online
    with pytest.raises(ValueError, match=r"several networks.*ema_model\.model\."):
        convert.from_state_dict(both)
    chosen = convert.from_state_dict(both, prefix="ema_model.model.")
    expected = convert.from_state_dict(average)
    jax.tree.map(np.testing.assert_array_equal, chosen.params, expected.params)
    with pytest.raises(ValueError, match=r"prefix='module\.'"):
        convert.from_state_dict(both, prefix="module.")


def wrong_shape(state):
    state["model.ebm.fc2.weight"] = state["model.ebm.fc2.weight"][:, 1:]


def missing(state):
    del state["model.ebm.t_map_fc3.bias"]


def unknown(state):
    state["model.ebm.fc5.weight"] = np.zeros((2, 2))


def unknown_outside(state):
    state["optimizer"] = np.zeros(3)


def no_network(state):
    del state["model.ebm.fc1.weight"]


def not_finite(state):
    state["model.ebm.fc3.bias"][4] = np.nan


def not_a_matrix(state):
    state["model.ebm.fc4.weight"] = np.zeros(3)


def no_room_for_x(state):
    state["model.ebm.fc1.weight"] = state["model.ebm.fc1.weight"][:, :Y_SIZE]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            wrong_shape,
            r"ebm\.fc2\.weight has shape \(512, 511\), expected \(512, 512\)",
        ),
        (missing, r"ebm\.t_map_fc3\.bias: missing"),
        (unknown, r"ebm\.fc5\.weight: unknown name"),
        (unknown_outside, r"optimizer: unknown name"),
        (no_network, r"no name of the state dict ends in 'ebm\.fc1\.weight'"),
        (not_finite, r"ebm\.fc3\.bias holds values that are not finite"),
        (not_a_matrix, r"ebm\.fc4\.weight has shape \(3,\), a matrix"),
        (
            no_room_for_x,
            r"ebm\.fc1\.weight has shape \(512, 7\): its inputs must be more",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(spoil, message):
    state = state_of(torch_model("squared_norm"))
    spoil(state)
    with pytest.raises(ValueError, match=message) as refusal:
        convert.from_state_dict(state)
    assert "\n" not in str(refusal.value)


def test_a_divisor_that_is_not_positive_is_refused():
    state = state_of(torch_model("squared_norm"))
    for divisor in (0.0, -1.0, float("nan"), float("inf"), 1e-80):
        with pytest.raises(ValueError, match="input_grad_divisor"):
            convert.from_state_dict(state, input_grad_divisor=divisor)
        with pytest.raises(ValueError, match="input_grad_divisor"):
            convert.to_state_dict({}, head="scalar", input_grad_divisor=divisor)
