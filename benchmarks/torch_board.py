"""The Sudoku energy `board` in PyTorch: products by `linear`, its own norm."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_sudoku import Rows

SMALLEST = 1e-6  # of a probability
BLOCK, CELL, LINES = (2, 4), (5,), ((1, 2), (3, 4))


def bend(h: Tensor) -> Tensor:
    return h / 2 * (1 + h * torch.rsqrt(1 + h**2))


def normalised(h: Tensor) -> Tensor:
    return F.rms_norm(h, h.shape[-1:], eps=1e-6)


def first_state(y: Tensor, channels: int) -> Tensor:
    index = torch.arange(channels, device=y.device)
    rates, phases = 20.0 + 40.0 * index / channels, 2 * math.pi * 0.618034 * index
    return math.sqrt(2) * torch.cos(y.detach()[..., None] * rates + phases)


class Layer(nn.Module):
    """One mix of the means over an entry's units."""

    def __init__(self, channels: int):
        super().__init__()
        self.entry = nn.Linear(channels, channels)
        self.block = nn.Linear(channels, channels, bias=False)
        self.cell = nn.Linear(channels, channels, bias=False)
        self.line = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, h: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        z = normalised(h)
        mixed = self.entry(z) + self.block(z.mean(BLOCK, keepdim=True))
        mixed = mixed + self.cell(z.mean(CELL, keepdim=True))
        for axes in LINES:
            mixed = mixed + self.line(z.mean(axes, keepdim=True))
        return h + self.out(bend(mixed * (1 + gain) + bias))


class Board(nn.Module):
    """Answers after each round [R, B, 3, 3, 3, 3, 9], and the energy of the last."""

    def __init__(self, channels: int, layers: int, rounds: int, a, s):
        super().__init__()
        self.rounds = rounds
        self.inputs = nn.Linear(4, channels)
        self.stack = nn.ModuleList(Layer(channels) for _ in range(layers))
        self.levels = nn.Embedding(len(a), 2 * layers * channels)
        self.head = nn.Linear(channels, 1)
        self.register_buffer("a", torch.tensor(a))
        self.register_buffer("s", torch.tensor(s))

    def forward(self, rows: Rows) -> Tensor:
        known, y, is_free, t = rows
        y, channels = y * is_free, self.inputs.out_features
        levels = self.levels(t).reshape(-1, 1, 1, 1, 1, 1, len(self.stack), 2, channels)
        h = is_free[..., None] * first_state(y, channels)
        answer, answers = known, []
        for _ in range(self.rounds):
            h = h + self.inputs(torch.stack([known, y, answer, is_free], -1))
            for i, layer in enumerate(self.stack):
                h = layer(h, levels[..., i, 0, :], levels[..., i, 1, :])
            digits = 2 * self.head(normalised(h))[..., 0].softmax(-1) - 1
            answer = torch.where(is_free > 0, digits, known)
            answers.append(answer)
        return torch.stack(answers)

    def energy(self, rows: Rows) -> Tensor:
        """E [B]."""
        a = self.a[rows.t].reshape(-1, 1, 1, 1, 1, 1)
        gap = (rows.y - a * self(rows)[-1]) * rows.is_free
        return (gap**2).flatten(1).sum(1) / (2 * self.s[rows.t])

    def loss(self, rows: Rows, y0: Tensor) -> Tensor:
        """mean over rows and rounds of the cross-entropy of the free true digits."""
        is_one = rows.is_free * (y0 > 0)
        surprise = -torch.log((1 + (1 - 2 * SMALLEST) * self(rows)) / 2)
        of_rows = (is_one * surprise).flatten(2).sum(2)
        return (of_rows / is_one.flatten(1).sum(1).clamp(min=1)).mean()


def load(params: Mapping, a: np.ndarray, s: np.ndarray, **sizes: int) -> Board:
    """A module with the weights of the energy's parameters and the schedule's a, s."""
    model = Board(**sizes, a=a, s=s)
    model.load_state_dict(state_dict(params), strict=False)
    return model


def state_dict(params: Mapping) -> dict[str, Tensor]:
    """A tree of the parameters' shape, by PyTorch's names and in its layout."""
    state = {"levels.weight": params["levels"]["embedding"]}
    for name, part in params.items():
        if name.startswith("stack_"):
            parts = {f"{name.replace('_', '.')}.{k}": v for k, v in part.items()}
        else:
            parts = {name: part} if name != "levels" else {}
        for path, linear in parts.items():
            state[f"{path}.weight"] = linear["kernel"].T
            if "bias" in linear:
                state[f"{path}.bias"] = linear["bias"]
    return {name: torch.tensor(np.array(value)) for name, value in state.items()}
