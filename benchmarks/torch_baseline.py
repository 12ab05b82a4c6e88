"""The earlier system in PyTorch: energy, samplers, replay, data and train steps.

Written for the comparison: the published layout of the weights and the released order
of work, at the released settings. `frozen` versions hold the parameters and build no
graph for them, which the released code does not do and a careful user would.

Everything works on batches: x [B, Dx], y [B, D], t int64 [B].
"""

import math
import random
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 512
TIME_WIDTH = 128


class Sinusoid(nn.Module):
    """t [B] -> [B, width]: sine, then cosine, at width / 2 frequencies."""

    def __init__(self, width: int = TIME_WIDTH):
        super().__init__()
        self.half = width // 2

    def forward(self, t: Tensor) -> Tensor:
        i = torch.arange(self.half, device=t.device)
        phase = t[:, None] * torch.exp(-i * (math.log(1e4) / (self.half - 1)))
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def swish(h: Tensor) -> Tensor:
    return h * torch.sigmoid(h)


class EBM(nn.Module):
    """E(x, y, t) [B], with the weights' names of the published layout."""

    def __init__(self, x_size: int, y_size: int, *, head: str = "squared_norm"):
        super().__init__()
        self.time_mlp = nn.Sequential(
            Sinusoid(),
            nn.Linear(TIME_WIDTH, TIME_WIDTH),
            nn.GELU(),
            nn.Linear(TIME_WIDTH, TIME_WIDTH),
        )
        self.fc1 = nn.Linear(x_size + y_size, WIDTH)
        self.fc2 = nn.Linear(WIDTH, WIDTH)
        self.fc3 = nn.Linear(WIDTH, WIDTH)
        self.fc4 = nn.Linear(WIDTH, y_size)
        self.t_map_fc2 = nn.Linear(TIME_WIDTH, 2 * WIDTH)
        self.t_map_fc3 = nn.Linear(TIME_WIDTH, 2 * WIDTH)
        self.energy_head = nn.Linear(WIDTH, 1) if head == "scalar" else None

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        time = self.time_mlp(t)
        gain2, bias2 = self.t_map_fc2(time).chunk(2, dim=-1)
        gain3, bias3 = self.t_map_fc3(time).chunk(2, dim=-1)
        h = swish(self.fc1(torch.cat([x, y], dim=-1)))
        h = swish(self.fc2(h) * (gain2 + 1) + bias2)
        h = swish(self.fc3(h) * (gain3 + 1) + bias3)
        if self.energy_head is not None:
            return self.energy_head(h)[:, 0]
        return self.fc4(h).pow(2).sum(dim=-1)


class Model(nn.Module):
    """The wrapper that puts `ebm.` before the names; energy and its input gradient."""

    def __init__(self, x_size: int, y_size: int, *, head: str = "squared_norm"):
        super().__init__()
        self.ebm = EBM(x_size, y_size, head=head)

    def forward(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return self.ebm(x, y, t)

    def energy_and_grad(self, x, y, t, *, create_graph: bool = False):
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            energy = self.ebm(x, y, t)
            (grad,) = torch.autograd.grad(energy.sum(), y, create_graph=create_graph)
        return energy, grad


def load(state: Mapping[str, np.ndarray], *, prefix: str = "model.", device="cpu"):
    """A module with the weights of a NumPy state dict; its names tell the head."""
    state = {k.removeprefix(prefix): torch.tensor(v) for k, v in state.items()}
    scalar = "ebm.energy_head.weight" in state
    y_size = state["ebm.fc4.weight"].shape[0]
    x_size = state["ebm.fc1.weight"].shape[1] - y_size
    model = Model(x_size, y_size, head="scalar" if scalar else "squared_norm")
    model.load_state_dict(state, strict=True)
    return model.to(device)


def freeze(model: Model) -> Model:
    return model.requires_grad_(False)


class Schedule(NamedTuple):
    """The cosine schedule, [T] each."""

    beta: Tensor
    a: Tensor
    s: Tensor


def make_schedule(num_levels: int = 10, device="cpu") -> Schedule:
    i = np.arange(num_levels + 1) / num_levels
    f = np.cos((i + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - f[1:] / f[:-1], 0.999)
    bar = np.cumprod(1 - beta)
    arrays = beta, np.sqrt(bar), np.sqrt(1 - bar)
    return Schedule(*(torch.tensor(v, dtype=torch.float32).to(device) for v in arrays))


class Grad:
    """grad_y E by autograd: what eager code calls."""

    def __init__(self, model: Model, *, create_graph: bool = False):
        self.model, self.create_graph = model, create_graph

    def __call__(self, x, y, t):
        return self.model.energy_and_grad(x, y, t, create_graph=self.create_graph)


class CompiledGrad:
    """The same through torch.func and torch.compile, one graph of both passes."""

    def __init__(self, model: Model):
        def total(y, x, t):
            energy = model(x, y, t)
            return energy.sum(), energy

        def energy_and_grad(x, y, t):
            grad, (_, energy) = torch.func.grad_and_value(total, has_aux=True)(y, x, t)
            return energy, grad

        self.call = torch.compile(energy_and_grad, fullgraph=True)

    def __call__(self, x, y, t):
        return self.call(x, y, t)


@torch.no_grad()
def langevin(grad_fn, x, y, t, *, step_size, temperature, num_steps):
    """y - h grad E + sqrt(2 h temperature) noise; step_size and temperature [B, 1]."""
    scale = torch.sqrt(2 * step_size * temperature)
    for _ in range(num_steps):
        _, grad = grad_fn(x, y, t)
        y = y - step_size * grad + scale * torch.randn_like(y)
    return y


@torch.no_grad()
def adjusted_langevin(grad_fn, x, y, t, *, step_size, temperature, num_steps):
    """Metropolis-adjusted; energy and gradient of the present state are kept."""
    scale, h = torch.sqrt(2 * step_size * temperature), step_size
    energy, grad = grad_fn(x, y, t)
    for _ in range(num_steps):
        new = y - h * grad + scale * torch.randn_like(y)
        new_energy, new_grad = grad_fn(x, new, t)
        back = ((y - new + h * new_grad) ** 2).sum(-1, keepdim=True)
        forth = ((new - y + h * grad) ** 2).sum(-1, keepdim=True)
        log_alpha = (energy - new_energy)[:, None] + (forth - back) / (4 * h)
        accept = torch.rand_like(log_alpha).log() < log_alpha / temperature
        y = torch.where(accept, new, y)
        grad = torch.where(accept, new_grad, grad)
        energy = torch.where(accept[:, 0], new_energy, energy)
    return y


@torch.no_grad()
def descent(grad_fn, energy_fn, x, y, t, *, step_size, num_steps, bounds):
    """Released form: step, clamp, evaluate the energy again, undo the rises.

    step_size [num_steps, B, 1]; bounds [B, 1]. (The released code bounds all rows by
    row 0's level: the same within an inference, where all rows share a level.)
    """
    for i in range(num_steps):
        energy, grad = grad_fn(x, y, t)
        new = torch.clamp(y - step_size[i] * grad, -bounds, bounds)
        rises = energy_fn(x, new, t) > energy
        new[rises] = y[rises]
        y = new
    return y


@torch.no_grad()
def solve(grad_fn, energy_fn, schedule, x, y, *, num_steps, bounds=2.0):
    """Released inference from the start noise y: y_0 of the last level."""
    doubled = torch.ones(num_steps, 1, 1, device=x.device)
    doubled[1:] = 2.0  # from each level's second step on
    for level in reversed(range(len(schedule.a))):
        t = torch.full((len(x),), level, device=x.device)
        a, s, beta = schedule.a[level], schedule.s[level], schedule.beta[level]
        _, grad = grad_fn(x, y, t)
        y = a * torch.clamp((y - s * grad) / a, -bounds, bounds)
        limit = bounds * a * torch.ones(len(x), 1, device=x.device)
        y = descent(
            grad_fn,
            energy_fn,
            x,
            y,
            t,
            step_size=beta / s * doubled,
            num_steps=num_steps,
            bounds=limit,
        )
        y0 = torch.clamp(y, -limit, limit) / a
        y = schedule.a[max(level - 1, 0)] * y0
    return y0


class DequeReplay:
    """Earlier replay: one Python deque a bucket on the host, one item at a time."""

    def __init__(self, num_buckets: int = 16, capacity: int = 10_000, *, num_levels=10):
        self.rings = [deque(maxlen=capacity) for _ in range(num_buckets)]
        self.num_levels = num_levels

    def bucket_of(self, level: int) -> int:
        return int(level / (self.num_levels - 1) * (len(self.rings) - 1))

    def insert(self, y: Tensor, t: Tensor) -> None:
        for row, level in zip(y.detach().cpu(), t.tolist(), strict=True):
            self.rings[self.bucket_of(level)].append(row.clone())

    def sample(self, t: Tensor) -> Tensor | None:
        """[B, D], or None if any row's bucket is empty."""
        rows = []
        for level in t.tolist():
            ring = self.rings[self.bucket_of(level)]
            if not ring:
                return None
            rows.append(ring[random.randrange(len(ring))])
        return torch.stack(rows).to(t.device)


def draw(batch_size: int, n: int, device="cpu", shift: float = 0.5):
    """x = vec(A), y = vec(A^-1), A = 2 M M^T + shift I: [B, n^2] each."""
    m = torch.rand(batch_size, n, n, device=device) * 2 - 1
    a = 2 * m @ m.mT + shift * torch.eye(n, device=device)
    return a.flatten(1), torch.linalg.inv(a).flatten(1)


class TrainSettings(NamedTuple):
    """One train step of the earlier system."""

    strategy: str  # none, adversarial, cd_full
    batch_size: int
    n: int
    num_steps: int = 10  # chain steps of cd_full
    learning_rate: float = 1e-4
    replay_share: float = 0.95
    quantile: float = 0.3
    weight: float = 0.05
    level_range: tuple[int, int] = (1, 7)
    noise_scale: float = 1.5
    bounds: float = 2.0


class Trainer:
    """Data, noise, negatives, loss, Adam and EMA: the earlier train step."""

    def __init__(self, model: Model, settings: TrainSettings, *, compiled=False):
        self.model, self.settings = model, settings
        self.device = next(model.parameters()).device
        self.schedule = make_schedule(device=self.device)
        betas = (0.9, 0.99) if settings.strategy == "none" else (0.0, 0.999)
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=settings.learning_rate, betas=betas
        )
        self.average = [p.detach().clone() for p in model.parameters()]
        self.replay, self.steps = DequeReplay(), 0
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.grad_fn = CompiledGrad(model) if compiled else Grad(model)

    def step(self) -> Tensor:
        settings = self.settings
        x, y0 = draw(settings.batch_size, settings.n, self.device)
        t = torch.randint(0, 10, (len(x),), device=self.device)
        eps = torch.randn_like(y0)
        negatives = self._negatives(x, y0, t, eps)
        loss = self.loss(x, y0, t, eps, *negatives)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        if self.steps % 10 == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.model.parameters()), 0.005)
        return loss.detach()

    def _noised(self, y0, t, eps):
        return self.schedule.a[t][:, None] * y0 + self.schedule.s[t][:, None] * eps

    def _negatives(self, x, y0, t, eps) -> tuple[Tensor, ...]:
        """(y-, keep) of the strategy, or nothing; the parameters are held."""
        if self.settings.strategy == "none":
            return ()
        self.model.requires_grad_(False)
        make = {"adversarial": self._adversarial, "cd_full": self._chains}
        result = make[self.settings.strategy](x, y0, t, eps)
        self.model.requires_grad_(True)
        return result

    def _adversarial(self, x, y0, t, eps):
        schedule, settings = self.schedule, self.settings
        a, s, beta = (v[t][:, None] for v in (schedule.a, schedule.s, schedule.beta))
        y = self._noised(y0, t, 3.0 * eps)
        factor = torch.ones(2, 1, 1, device=x.device)
        factor[1:] = 2.0
        y = descent(
            self.grad_fn,
            self.model,
            x,
            y,
            t,
            step_size=beta / s * factor,
            num_steps=2,
            bounds=settings.bounds * a,
        )
        wrong = torch.clamp(y / a, -settings.bounds, settings.bounds)
        return self._noised(wrong, t, eps), torch.ones_like(s[:, 0])

    def _chains(self, x, y0, t, eps):
        settings, schedule = self.settings, self.schedule
        y = self.replay.sample(t) if random.random() < settings.replay_share else None
        if y is None:
            y = self._noised(y0, t, settings.noise_scale * torch.randn_like(y0))
        s = schedule.s[t][:, None]
        y = langevin(
            self.grad_fn,
            x,
            y,
            t,
            step_size=0.25 * s,  # on E; 0.25 s^2 on U = E / s
            temperature=s,
            num_steps=settings.num_steps,
        )
        self.replay.insert(y, t)
        residual = self._residual(x, y / schedule.a[t][:, None])
        keep = (residual >= torch.quantile(residual, settings.quantile)).float()
        low, high = settings.level_range
        return y, keep * ((t >= low) & (t <= high))

    def _residual(self, x, y):
        n = self.settings.n
        y = torch.clamp(y, -self.settings.bounds, self.settings.bounds)
        eye = torch.eye(n, device=x.device)
        return (x.view(-1, n, n) @ y.view(-1, n, n) - eye).flatten(1).norm(dim=1)

    def _loss(self, x, y0, t, eps, y_neg=None, keep=None):
        y = self._noised(y0, t, eps)

        def total(y):
            return self.model(x, y, t).sum()

        if self.loss is self._loss:  # eager
            _, grad = self.model.energy_and_grad(x, y, t, create_graph=True)
        else:
            grad = torch.func.grad(total)(y)
        loss = F.mse_loss(grad, eps)
        if y_neg is None:
            return loss
        twice = [torch.cat([v, v]) for v in (x, t)]
        energy = self.model(twice[0], torch.cat([y, y_neg]), twice[1])
        pos, neg = energy.chunk(2)
        if self.settings.strategy == "adversarial":
            return loss + 0.5 * F.softplus(pos - neg).mean()
        gap = (pos - neg) / self.schedule.s[t] / y.shape[1]
        return loss + self.settings.weight * (gap * keep).mean()
