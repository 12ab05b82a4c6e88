"""What do a Sudoku energy's gradient and its train step cost, beside PyTorch's?

python -m benchmarks.board
python -m benchmarks.board --energy=convolutional   # the published one, 32 channels
taskset -c 0 python -m benchmarks.board --clock=cpu   # one core of a shared machine
"""

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, systems
from benchmarks.harness import Peer
from experiments import cli
from ired_jax import blocks, diffusion
from ired_jax.diffusion import Schedule
from ired_jax.energies.board import make_board
from ired_jax.energies.convolutional import make_convolutional
from ired_jax.objectives.base import Objective
from ired_jax.objectives.denoising import make_denoising
from ired_jax.objectives.proposal import make_proposal
from ired_jax.tasks.sudoku import box_of
from ired_jax.types import Array, Energy, Example, Params, bind

NUM_LEVELS = 4
GIVEN = 0.45  # of the cells
LEARNING_RATE = 1e-6
TOLERANCE = 1e-4
PEERS = "torch_eager", "torch_compile"
ENTRIES, MEANS = 9**3, 4 * 9**2  # of a board; a layer's means over units


class Kind(NamedTuple):
    """One of the energies: its sizes, how it is trained, and its products by hand."""

    sizes: dict[str, int]  # each a flag, unless given the default
    make: Callable[..., Energy]  # (schedule, **sizes)
    peer: str  # the module with the same in PyTorch
    objective: Callable[..., Objective]  # (inputs)
    rows: tuple[str, ...]  # of the inputs, what the objective's loss takes
    target: str  # of the inputs, what the loss in PyTorch compares with
    forward_flops: Callable[..., float]  # of a board, by **sizes; nearly all there are
    passes: dict[str, int]  # of each work, over the products forward


class Inputs(NamedTuple):
    """The energy and a batch of boards, each row at its own level."""

    energy: Energy
    params: Params
    schedule: Schedule
    x: np.ndarray  # digits, 0 where unknown
    y0: np.ndarray
    eps: np.ndarray
    y: np.ndarray
    t: np.ndarray


def _board(schedule: Schedule, **sizes: int) -> Energy:
    return make_board(schedule, box_of, **sizes)


def _convolutional(schedule: Schedule, channels: int, layers: int) -> Energy:
    return make_convolutional(schedule, channels=channels, blocks=layers)


def _proposal(inputs: Inputs) -> Objective:
    of_rows = inputs.schedule, inputs.energy, box_of, len(inputs.t)
    return make_proposal(*of_rows, error="categorical")


def _denoising(inputs: Inputs) -> Objective:
    return make_denoising(inputs.schedule, inputs.energy, box_of, len(inputs.t))


def board_flops(channels: int, layers: int, rounds: int) -> float:
    return rounds * layers * 2.0 * (2 * ENTRIES + MEANS) * channels**2


def convolutional_flops(channels: int, layers: int) -> float:
    """The first of 18 channels, two of width 5 a block, the last to nine."""
    weights = 9 * 18 * channels + layers * 2 * 25 * channels**2 + channels * 9
    return 2.0 * 81 * weights


# A gradient in y has one product backwards, in the weights a second; that of a loss of
# the gradient in y has two for each of its two.
KINDS = {
    "board": Kind(
        {"channels": 32, "layers": 4, "rounds": 6},
        _board,
        "benchmarks.torch_board",
        _proposal,
        ("x", "y0", "y", "t"),
        "y0",
        board_flops,
        {"gradient": 2, "train": 3},
    ),
    "convolutional": Kind(
        {"channels": 32, "layers": 6},
        _convolutional,
        "benchmarks.torch_convolutional",
        _denoising,
        ("x", "y0", "eps", "t"),
        "eps",
        convolutional_flops,
        {"gradient": 2, "train": 6},
    ),
}


def make_inputs(flags: argparse.Namespace) -> Inputs:
    """Drawn by NumPy: what compiles here is timed, and nothing else."""
    rng, count = np.random.default_rng(flags.seed), flags.batch_size
    schedule = diffusion.make_schedule("cosine", NUM_LEVELS)
    energy = KINDS[flags.energy].make(schedule, **sizes_of(flags))

    def draw(leaf):  # signals keep their size, and biases count
        fan_in = leaf.size // leaf.shape[-1]
        scale = fan_in**-0.5 if leaf.ndim > 1 else 0.1
        return jnp.asarray(scale * rng.standard_normal(leaf.shape, np.float32))

    params = jax.tree.map(draw, jax.eval_shape(energy.init, jax.random.key(0)))
    row, column = np.indices((9, 9))
    solved = (3 * row + row // 3 + column) % 9
    boards = np.stack([rng.permutation(9)[solved] for _ in range(count)])
    x = np.where(rng.random(boards.shape) < GIVEN, boards + 1, 0).astype(np.int8)
    y0 = 2 * np.eye(9, dtype=np.float32)[boards] - 1
    t = np.arange(count, dtype=np.int32) % NUM_LEVELS
    a, s = (np.asarray(v)[t][:, None, None, None] for v in (schedule.a, schedule.s))
    eps = rng.standard_normal(y0.shape, np.float32)
    return Inputs(energy, params, schedule, x, y0, eps, a * y0 + s * eps, t)


def sizes_of(flags: argparse.Namespace) -> dict[str, int]:
    """The sizes of the energy that the flags choose."""
    given = vars(flags)
    return {k: given[k] or v for k, v in KINDS[flags.energy].sizes.items()}


class Ours:
    """This library, rows in blocks as the train step takes them."""

    def __init__(self, kind: Kind, inputs: Inputs):
        self.inputs = inputs
        example = Example(inputs.x[0], inputs.y[0])
        at_once = blocks.rows_at_once(inputs.energy, example)

        def one(params, x, y, t):
            return jax.value_and_grad(bind(inputs.energy, params, x, t))(y)

        def of_rows(params, *rows):
            return blocks.vmap(partial(one, params), at_once)(*rows)

        args = inputs.params, inputs.x, inputs.y, inputs.t
        executable, self.gradient_s = harness.compiled(of_rows, *args)
        self.gradient = partial(executable, *args)

        objective = kind.objective(inputs)
        rows = {name: getattr(inputs, name) for name in kind.rows}

        def loss(params, rows):
            return objective.loss(params, None, rows, None)

        of_params, adam = (
            blocks.value_and_grad(loss, at_once),
            optax.adam(LEARNING_RATE),
        )

        def step(params, state, rows):
            (value, _), grads = of_params(params, rows)
            updates, state = adam.update(grads, state)
            return optax.apply_updates(params, updates), state, (value, grads)

        self.rows, self.params = rows, jax.tree.map(jnp.array, inputs.params)
        self.state = adam.init(self.params)
        args = self.params, self.state, rows
        self.executable, self.train_s = harness.compiled(step, *args, donate=(0, 1))

    def train(self) -> tuple[Array, Params]:
        """The loss and its gradients, before the step."""
        args = self.params, self.state, self.rows
        self.params, self.state, found = self.executable(*args)
        return found


class Torch:
    """The same in PyTorch, from the same weights and rows."""

    def __init__(self, system: str, flags: argparse.Namespace, inputs: Inputs):
        from benchmarks import torch_sudoku

        kind, compiled = KINDS[flags.energy], system == "torch_compile"
        device = harness.torch_device(flags)
        self.peer = importlib.import_module(kind.peer)
        params = jax.tree.map(np.asarray, inputs.params)
        a, s = np.array(inputs.schedule.a), np.array(inputs.schedule.temperature)

        def model():
            return self.peer.load(params, a, s, **sizes_of(flags)).to(device)

        def rows_of(y):
            x, y, t = map(np.array, (inputs.x, y, inputs.t))
            return torch_sudoku.Rows.of(x, y, t, device)

        rows, target = rows_of(inputs.y), rows_of(getattr(inputs, kind.target)).y
        of_y = torch_sudoku.energy_and_grad(model(), compiled=compiled)
        trainer = torch_sudoku.Trainer(model(), LEARNING_RATE, compiled=compiled)
        self.trainer = trainer
        self.loss_and_grads = partial(trainer.loss_and_grads, rows, target)
        self.gradient = partial(of_y, rows)
        self.train = partial(trainer.step, rows, target)
        first = harness.first_call_extra if compiled else lambda run: 0.0
        self.gradient_s, self.train_s = first(self.gradient), first(self.loss_and_grads)


def compare(ours: Ours, made: dict[str, Torch]) -> None:
    """Energies, gradients in y, losses and gradients in the weights, or all stops."""
    energy, grad = ours.gradient()
    s = np.asarray(ours.inputs.schedule.temperature)
    scale = s[ours.inputs.t][:, None, None, None]  # all levels count alike
    loss, grads = ours.train()
    for name, system in made.items():
        other, other_grad = system.gradient()
        other_grad = scale * other_grad.cpu().numpy().reshape(grad.shape)
        systems.assert_close(f"energy, {name}", energy, other.cpu(), TOLERANCE)
        systems.assert_close(f"gradient, {name}", scale * grad, other_grad, TOLERANCE)
        other = system.loss_and_grads().cpu()
        systems.assert_close(f"loss, {name}", loss, other, TOLERANCE)
        theirs = dict(system.trainer.model.named_parameters())
        mine = system.peer.state_dict(grads)
        assert set(mine) == set(theirs)
        both = [(mine[k].flatten(), theirs[k].grad.cpu().flatten()) for k in mine]
        first, second = (np.concatenate(part) for part in zip(*both, strict=True))
        systems.assert_close(f"loss gradient, {name}", first, second, TOLERANCE)


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], batch_size=32, n=9)
    flags.add_argument("--energy", choices=tuple(KINDS), default="board")
    for name in ("channels", "layers", "rounds"):
        sizes = [
            f"{kind}: {of.sizes[name]}"
            for kind, of in KINDS.items()
            if name in of.sizes
        ]
        flags.add_argument(f"--{name}", type=int, help=", ".join(sizes))
    flags.add_argument("--systems", type=harness.some_of(PEERS), default=PEERS)
    flags = harness.start(flags.parse_args(argv))
    cli.keep_memory()  # as the train command does; of all systems alike
    kind, inputs = KINDS[flags.energy], make_inputs(flags)
    ours = Ours(kind, inputs)
    made = {s: Torch(s, flags, inputs) for s in flags.systems}
    compare(ours, made)
    products = flags.batch_size * kind.forward_flops(**sizes_of(flags))
    given = {name: vars(flags)[name] for name in kind.sizes if vars(flags)[name]}
    peers = [
        Peer(
            name,
            work,
            getattr(system, work),
            getattr(system, f"{work}_s"),
            passes * products,
            given or None,
        )
        for work, passes in kind.passes.items()
        for name, system in {harness.OURS: ours, **made}.items()
    ]
    harness.report(flags.energy, harness.measure(peers, flags), flags)


if __name__ == "__main__":
    main()
