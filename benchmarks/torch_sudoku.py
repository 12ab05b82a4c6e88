"""What the Sudoku energies in PyTorch share: rows, the gradient in y, a train step.

Written for the comparison, as a careful user would: gradients are PyTorch's own, Adam
is the fused one, and the gradient in y holds the weights. A model has `energy(rows)`
[B] and `loss(rows, target)` ().

Everything works on batches: known, y, is_free [B, 3, 3, 3, 3, 9], t int64 [B].
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Rows(NamedTuple):
    """A batch of boards."""

    known: Tensor  # +-1 one-hot where given, else 0
    y: Tensor
    is_free: Tensor  # 0 or 1
    t: Tensor

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, t: np.ndarray, device="cpu"):
        """From digits x [B, 9, 9], 0 where unknown, and y [B, 9, 9, 9]."""
        x, t = torch.tensor(x).long().to(device), torch.tensor(t).long().to(device)
        y = torch.tensor(y).to(device)
        is_free = (x == 0)[..., None].expand(y.shape).to(y.dtype)
        known = (2 * F.one_hot((x - 1).clamp(min=0), 9) - 1) * (1 - is_free)
        return cls(*map(as_units, (known, y, is_free)), t)


def as_units(a: Tensor) -> Tensor:
    """[B, 9, 9, 9] -> [B, band, row, stack, column, digit]."""
    return a.reshape(-1, 3, 3, 3, 3, 9)


def energy_and_grad(model: nn.Module, *, compiled: bool = False):
    """rows -> (E [B], dE/dy); compiled: both passes as one graph."""
    model.requires_grad_(False)

    def eager(rows: Rows):
        y = rows.y.detach().requires_grad_(True)
        energy = model.energy(rows._replace(y=y))
        (grad,) = torch.autograd.grad(energy.sum(), y)
        return energy.detach(), grad

    def total(y, rows):
        energy = model.energy(rows._replace(y=y))
        return energy.sum(), energy

    def whole(rows: Rows):
        grad, (_, energy) = torch.func.grad_and_value(total, has_aux=True)(rows.y, rows)
        return energy, grad

    return torch.compile(whole, fullgraph=True) if compiled else eager


class Trainer:
    """Loss on given rows, its gradient, Adam."""

    def __init__(self, model: nn.Module, learning_rate: float, *, compiled: bool):
        self.model = model
        self.loss = torch.compile(model.loss) if compiled else model.loss
        options = {"lr": learning_rate, "fused": True}
        self.optimizer = torch.optim.Adam(model.parameters(), **options)

    def loss_and_grads(self, rows: Rows, target: Tensor) -> Tensor:
        """The loss; its gradients are at the parameters."""
        self.optimizer.zero_grad()
        loss = self.loss(rows, target)
        loss.backward()
        return loss.detach()

    def step(self, rows: Rows, target: Tensor) -> Tensor:
        loss = self.loss_and_grads(rows, target)
        self.optimizer.step()
        return loss
