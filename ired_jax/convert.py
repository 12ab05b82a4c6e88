"""Weights between a PyTorch `state_dict` of the published layout and ours.

A state dict comes as a plain mapping name -> NumPy array: nothing here imports torch.

    ebm.time_mlp.1, ebm.time_mlp.3     time embedding (0 and 2 hold no weights)
    ebm.fc1                            [x, y] -> width, x first
    ebm.fc2, ebm.fc3                   width -> width
    ebm.t_map_fc2, ebm.t_map_fc3       gain, then bias, of the layer above
    ebm.fc4                            squared_norm: width -> y, E = |out|^2
    ebm.energy_head                    scalar: width -> 1, E = out; fc4 is then unused

A name stands under a prefix such as `model.` or `ema_model.model.`; weights are [out,
in], ours [in, out]. Source: released code of Du et al., arXiv 2406.11179.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ired_jax.energies.mlp import TIME_WIDTH, Head
from ired_jax.types import Params

StateDict = Mapping[str, np.ndarray]

DIVISORS = (1e-12, 1e12)  # beyond, weights are 0 or infinite in float32
BODY = "ebm."
ANCHOR = BODY + "fc1.weight"  # where it stands, a network stands
# Of the diffusion module around the energy, and of its moving average.
BUFFERS = frozenset(
    [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "opt_step_size",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "loss_weight",
        "initted",
        "step",
    ]
)


class Converted(NamedTuple):
    """An energy's parameters, and the arguments of `make_mlp` that they belong to."""

    params: Params
    x_size: int
    y_size: int
    width: int
    head: Head


def prefixes(state: StateDict) -> tuple[str, ...]:
    """Where networks stand in a state dict, such as `model.`, in order of the names."""
    return tuple(sorted(k[: -len(ANCHOR)] for k in state if k.endswith(ANCHOR)))


def from_state_dict(
    state: StateDict, *, prefix: str | None = None, input_grad_divisor: float = 1.0
) -> Converted:
    """Parameters of the reference energy from a state dict.

    Args:
      state: name -> array; the names of schedule buffers are passed over.
      prefix: of the network's names, needed only if there are several networks (a
        moving average's own state dict holds `online_model.` and `ema_model.`).
      input_grad_divisor: what the input gradient was divided by in training: some
        runs took grad_y(sum_b E_b) / B as the predicted noise. The energy whose
        gradient is the noise is then E / B, and that is what comes out: the division
        is folded into the last layer (by its square root where E = |out|^2). The
        released code divides by nothing: 1.

    Returns:
      The parameters, float32, and the sizes and head of `make_mlp`.

    Raises:
      ValueError: no network or several; a name that is missing or unknown; a shape that
        does not fit; a value that is not finite; a divisor that is not positive.
    """
    _check_divisor(input_grad_divisor)
    names = _names(state, _prefix(state, prefix))
    head: Head = "scalar" if "energy_head.weight" in names else "squared_norm"
    width, inputs = _matrix_shape(names, "fc1.weight")
    # The unused fc4 of a scalar network still tells where x ends and y begins.
    y_size, _ = _matrix_shape(names, "fc4.weight")
    if y_size >= inputs:
        raise ValueError(
            f"{BODY}fc1.weight has shape ({width}, {inputs}): its inputs must be more"
            f" than the {y_size} of y, the rows of {BODY}fc4.weight"
        )
    expected = _shapes(inputs - y_size, y_size, width, head)
    for name in names:
        if name not in expected:
            raise ValueError(f"{BODY}{name}: unknown name in the state dict")
    arrays = {name: _array(names, name, expected[name]) for name in expected}

    def dense(name):
        kernel = jnp.asarray(arrays[f"{name}.weight"].T)
        return {"kernel": kernel, "bias": jnp.asarray(arrays[f"{name}.bias"])}

    first = dense("fc1")
    x_kernel, y_kernel = jnp.split(first["kernel"], [inputs - y_size])
    last = dense("energy_head" if head == "scalar" else "fc4")
    # E / d = |out / sqrt(d)|^2
    scale = np.float32(_last_layer_factor(head, input_grad_divisor))
    params = {
        "time": {"Dense_0": dense("time_mlp.1"), "Dense_1": dense("time_mlp.3")},
        "fc1_x": {"kernel": x_kernel, "bias": first["bias"]},
        "fc1_y": {"kernel": y_kernel},
        "fc2": dense("fc2"),
        "fc3": dense("fc3"),
        "modulate2": dense("t_map_fc2"),
        "modulate3": dense("t_map_fc3"),
        "fc4": {name: array * scale for name, array in last.items()},
    }
    return Converted(params, inputs - y_size, y_size, width, head)


def to_state_dict(
    params: Params,
    *,
    head: Head,
    prefix: str = "model.",
    input_grad_divisor: float = 1.0,
) -> dict[str, np.ndarray]:
    """The state dict of the published layout, the inverse of `from_state_dict`.

    With head `scalar` the unused `ebm.fc4` is there as zeros, as PyTorch's strict
    loading wants it.

    Raises:
      ValueError: a divisor that is not positive.
    """
    _check_divisor(input_grad_divisor)
    y_size, width = params["fc1_y"]["kernel"].shape
    scale = np.float32(1 / _last_layer_factor(head, input_grad_divisor))
    kernels = [params["fc1_x"]["kernel"], params["fc1_y"]["kernel"]]
    layers = {
        "time_mlp.1": params["time"]["Dense_0"],
        "time_mlp.3": params["time"]["Dense_1"],
        "fc1": {"kernel": jnp.concatenate(kernels), "bias": params["fc1_x"]["bias"]},
        "fc2": params["fc2"],
        "fc3": params["fc3"],
        "t_map_fc2": params["modulate2"],
        "t_map_fc3": params["modulate3"],
    }
    last = {name: array * scale for name, array in params["fc4"].items()}
    if head == "scalar":
        layers["energy_head"] = last
        layers["fc4"] = {"kernel": np.zeros((width, y_size)), "bias": np.zeros(y_size)}
    else:
        layers["fc4"] = last
    state = {}
    for name, layer in layers.items():
        state[f"{prefix}{BODY}{name}.weight"] = _float32(layer["kernel"]).T.copy()
        state[f"{prefix}{BODY}{name}.bias"] = _float32(layer["bias"])
    return state


def _last_layer_factor(head: Head, divisor: float) -> float:
    return 1 / divisor if head == "scalar" else divisor**-0.5


def _check_divisor(divisor: float) -> None:
    if not DIVISORS[0] <= divisor <= DIVISORS[1]:
        raise ValueError(
            f"input_grad_divisor={divisor}: must be above 0, from {DIVISORS[0]:g} to"
            f" {DIVISORS[1]:g}"
        )


def _prefix(state: StateDict, prefix: str | None) -> str:
    found = prefixes(state)
    if not found:
        raise ValueError(f"no name of the state dict ends in {ANCHOR!r}")
    if prefix is None:
        if len(found) > 1:
            raise ValueError(
                f"several networks in the state dict: prefix= one of {found}"
            )
        return found[0]
    if prefix not in found:
        raise ValueError(f"prefix={prefix!r}: the state dict has {found}")
    return prefix


def _names(state: StateDict, prefix: str) -> dict[str, np.ndarray]:
    """The network's arrays without `<prefix>ebm.`; anything unknown is refused."""
    names = {}
    others = tuple(p + BODY for p in prefixes(state) if p != prefix)
    for key, value in state.items():
        if key.startswith(prefix + BODY):
            names[key.removeprefix(prefix + BODY)] = value
        elif not key.startswith(others) and key.rsplit(".", 1)[-1] not in BUFFERS:
            raise ValueError(f"{key}: unknown name in the state dict")
    return names


def _shapes(x_size: int, y_size: int, width: int, head: Head) -> dict[str, tuple]:
    layers = {  # name: (out, in)
        "time_mlp.1": (TIME_WIDTH, TIME_WIDTH),
        "time_mlp.3": (TIME_WIDTH, TIME_WIDTH),
        "fc1": (width, x_size + y_size),
        "fc2": (width, width),
        "fc3": (width, width),
        "t_map_fc2": (2 * width, TIME_WIDTH),
        "t_map_fc3": (2 * width, TIME_WIDTH),
        "fc4": (y_size, width),
    }
    if head == "scalar":
        layers["energy_head"] = (1, width)
    weights = {f"{name}.weight": shape for name, shape in layers.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in layers.items()}


def _matrix_shape(names: StateDict, name: str) -> tuple[int, int]:
    shape = np.shape(_get(names, name))
    if len(shape) != 2:
        raise ValueError(f"{BODY}{name} has shape {shape}, a matrix is expected")
    return shape


def _array(names: StateDict, name: str, shape: tuple) -> np.ndarray:
    array = _float32(_get(names, name))
    if array.shape != shape:
        raise ValueError(f"{BODY}{name} has shape {array.shape}, expected {shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{BODY}{name} holds values that are not finite")
    return array


def _get(names: StateDict, name: str) -> np.ndarray:
    if name not in names:
        raise ValueError(f"{BODY}{name}: missing from the state dict")
    return names[name]


def _float32(array) -> np.ndarray:
    return np.asarray(array, np.float32)
