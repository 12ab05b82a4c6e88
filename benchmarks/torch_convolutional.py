"""The published Sudoku energy in PyTorch: convolutions over the cells, O(x, y, t)^2."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_sudoku import Rows

WAVES, TIME_WIDTH, MAX_PERIOD = 128, 64, 10_000
DIGITS = 9


def sinusoid(t: Tensor) -> Tensor:
    """[B, WAVES]: sine, then cosine."""
    half = WAVES // 2
    rates = torch.arange(half, device=t.device) * (math.log(MAX_PERIOD) / (half - 1))
    phase = t[:, None] * torch.exp(-rates)
    return torch.cat([phase.sin(), phase.cos()], -1)


class Block(nn.Module):
    """Two convolutions; the second is modulated by the level."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 5, padding="same")
        self.second = nn.Conv2d(channels, channels, 5, padding="same")
        self.modulate = nn.Linear(TIME_WIDTH, 2 * channels)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        gain, bias = self.modulate(level)[..., None, None].chunk(2, 1)
        change = self.second(F.silu(self.first(h)))
        return h + F.silu(change * (1 + gain) + bias)


class Convolutional(nn.Module):
    """O [B, digit, 9, 9], the energy, and the denoising loss."""

    def __init__(self, channels: int, layers: int, a: np.ndarray):
        super().__init__()
        self.time_first = nn.Linear(WAVES, TIME_WIDTH)
        self.time_second = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.inputs = nn.Conv2d(2 * DIGITS, channels, 3, padding="same")
        self.stack = nn.ModuleList(Block(channels) for _ in range(layers))
        self.head = nn.Conv2d(channels, DIGITS, 1)
        self.register_buffer("a", torch.tensor(a))

    def forward(self, rows: Rows) -> Tensor:
        is_free = rows.is_free > 0
        known = torch.where(is_free, -1.0, rows.known)
        a = self.a[rows.t].reshape(-1, 1, 1, 1, 1, 1)
        seen = torch.where(is_free, rows.y, a * known)
        both = torch.cat([known, seen], -1).reshape(-1, 9, 9, 2 * DIGITS)
        level = self.time_second(F.gelu(self.time_first(sinusoid(rows.t))))
        h = F.silu(self.inputs(both.permute(0, 3, 1, 2)))
        for block in self.stack:
            h = block(h, level)
        return self.head(h)

    def energy(self, rows: Rows) -> Tensor:
        """E [B]."""
        return (self(rows) ** 2).flatten(1).sum(1)

    def loss(self, rows: Rows, eps: Tensor) -> Tensor:
        """mean over rows of the mean over free elements of (dE/dy - eps)^2."""

        def total(y):
            return self.energy(rows._replace(y=y)).sum()

        if torch.compiler.is_compiling():
            grad = torch.func.grad(total)(rows.y)
        else:
            y = rows.y.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(total(y), y, create_graph=True)
        error = ((grad - eps) ** 2 * rows.is_free).flatten(1).sum(1)
        return (error / rows.is_free.flatten(1).sum(1).clamp(min=1)).mean()


def load(params: Mapping, a: np.ndarray, s: np.ndarray, **sizes: int) -> Convolutional:
    """A module with the weights of the energy's parameters and the schedule's a."""
    del s
    model = Convolutional(**sizes, a=a)
    model.load_state_dict(state_dict(params), strict=False)
    return model


def state_dict(params: Mapping) -> dict[str, Tensor]:
    """A tree of the parameters' shape, by PyTorch's names and in its layout."""
    state = {}
    for name, part in params.items():
        if name.startswith("stack_"):
            parts = {f"{name.replace('_', '.')}.{k}": v for k, v in part.items()}
        else:
            parts = {name: part}
        for path, layer in parts.items():
            kernel = np.array(layer["kernel"])
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            state[f"{path}.weight"] = torch.tensor(kernel.transpose(axes))
            state[f"{path}.bias"] = torch.tensor(np.array(layer["bias"]))
    return state
