"""What do the Sudoku energy's gradient and its train step cost, beside PyTorch's?

python -m benchmarks.board
taskset -c 0 python -m benchmarks.board --clock=cpu   # one core of a shared machine
"""

import argparse
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
from ired_jax.objectives.proposal import make_proposal
from ired_jax.tasks.sudoku import box_of
from ired_jax.types import Array, Energy, Example, Params, bind

NUM_LEVELS = 4
GIVEN = 0.45  # of the cells
LEARNING_RATE = 1e-6
TOLERANCE = 1e-4
PEERS = "torch_eager", "torch_compile"
ENTRIES, MEANS = 9**3, 4 * 9**2  # of a board; a layer's means over units


class Inputs(NamedTuple):
    """The energy and a batch of boards, each row at its own level."""

    energy: Energy
    params: Params
    schedule: Schedule
    x: np.ndarray  # digits, 0 where unknown
    y0: np.ndarray
    y: np.ndarray
    t: np.ndarray


def make_inputs(flags: argparse.Namespace) -> Inputs:
    """Drawn by NumPy: what compiles here is timed, and nothing else."""
    rng, count = np.random.default_rng(flags.seed), flags.batch_size
    schedule = diffusion.make_schedule("cosine", NUM_LEVELS)
    sizes = {name: getattr(flags, name) for name in ("channels", "layers", "rounds")}
    energy = make_board(schedule, box_of, **sizes)

    def draw(leaf):  # signals keep their size, and biases count
        scale = leaf.shape[0] ** -0.5 if leaf.ndim == 2 else 0.1
        return jnp.asarray(scale * rng.standard_normal(leaf.shape, np.float32))

    params = jax.tree.map(draw, jax.eval_shape(energy.init, jax.random.key(0)))
    row, column = np.indices((9, 9))
    solved = (3 * row + row // 3 + column) % 9
    boards = np.stack([rng.permutation(9)[solved] for _ in range(count)])
    x = np.where(rng.random(boards.shape) < GIVEN, boards + 1, 0).astype(np.int8)
    y0 = 2 * np.eye(9, dtype=np.float32)[boards] - 1
    t = np.arange(count, dtype=np.int32) % NUM_LEVELS
    a, s = (np.asarray(v)[t][:, None, None, None] for v in (schedule.a, schedule.s))
    y = a * y0 + s * rng.standard_normal(y0.shape, np.float32)
    return Inputs(energy, params, schedule, x, y0, y, t)


class Ours:
    """This library, rows in blocks as the train step takes them."""

    def __init__(self, inputs: Inputs):
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

        objective = make_proposal(
            inputs.schedule,
            inputs.energy,
            box_of,
            len(inputs.t),
            error="categorical",
        )
        rows = {name: getattr(inputs, name) for name in ("x", "y0", "y", "t")}

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

    def __init__(self, system: str, inputs: Inputs, rounds: int, device: str):
        from benchmarks import torch_board

        compiled = system == "torch_compile"
        params = jax.tree.map(np.asarray, inputs.params)
        a, s = np.array(inputs.schedule.a), np.array(inputs.schedule.temperature)

        def model():
            return torch_board.load(params, a, s, device)

        x, y0, y, t = (np.array(getattr(inputs, k)) for k in ("x", "y0", "y", "t"))
        rows = torch_board.Rows.of(x, y, t, device)
        y0 = torch_board.Rows.of(x, y0, t, device).y
        of_y = torch_board.energy_and_grad(model(), rounds, compiled=compiled)
        trainer = torch_board.Trainer(model(), rounds, LEARNING_RATE, compiled=compiled)
        self.trainer = trainer
        self.loss_and_grads = partial(trainer.loss_and_grads, rows, y0)
        self.gradient, self.train = partial(of_y, rows), partial(trainer.step, rows, y0)
        first = harness.first_call_extra if compiled else lambda run: 0.0
        self.gradient_s, self.train_s = first(self.gradient), first(self.loss_and_grads)


def compare(ours: Ours, made: dict[str, Torch]) -> None:
    """Energies, gradients in y, losses and gradients in the weights, or all stops."""
    from benchmarks import torch_board

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
        mine = torch_board.state_dict(grads)
        assert set(mine) == set(theirs)
        both = [(mine[k].flatten(), theirs[k].grad.cpu().flatten()) for k in mine]
        first, second = (np.concatenate(part) for part in zip(*both, strict=True))
        systems.assert_close(f"loss gradient, {name}", first, second, TOLERANCE)


def forward_flops(flags: argparse.Namespace) -> float:
    """Products of the layers of one board, forward: nearly all there are."""
    layer = 2.0 * (2 * ENTRIES + MEANS) * flags.channels**2
    return flags.rounds * flags.layers * layer


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], batch_size=32, n=9)
    flags.add_argument("--channels", type=int, default=32)
    flags.add_argument("--layers", type=int, default=4)
    flags.add_argument("--rounds", type=int, default=6)
    flags.add_argument("--systems", type=harness.some_of(PEERS), default=PEERS)
    flags = harness.start(flags.parse_args(argv))
    cli.keep_memory()  # as the train command does; of all systems alike
    device, inputs = harness.torch_device(flags), make_inputs(flags)
    ours = Ours(inputs)
    made = {s: Torch(s, inputs, flags.rounds, device) for s in flags.systems}
    compare(ours, made)
    # A gradient in y has one product backwards, in the weights a second.
    flops = {"gradient": 2, "train": 3}
    peers = [
        Peer(
            name,
            work,
            getattr(system, work),
            getattr(system, f"{work}_s"),
            flags.batch_size * flops[work] * forward_flops(flags),
        )
        for work in flops
        for name, system in {harness.OURS: ours, **made}.items()
    ]
    harness.report("board", harness.measure(peers, flags), flags)


if __name__ == "__main__":
    main()
