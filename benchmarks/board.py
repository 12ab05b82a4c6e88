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
from jax.flatten_util import ravel_pytree

from benchmarks import harness, systems
from benchmarks.harness import Peer
from experiments import cli
from ired_jax import blocks, diffusion
from ired_jax.diffusion import Schedule
from ired_jax.energies.board import make_board
from ired_jax.objectives.proposal import make_proposal
from ired_jax.tasks.sudoku import box_of, draw_symmetry, encode
from ired_jax.types import Array, Energy, Example, Params, bind

NUM_LEVELS = 4
GIVEN = 0.45  # of the cells
JITTER = 0.1  # on all weights, so that biases count
LEARNING_RATE = 1e-6
TOLERANCE = 1e-4
PEERS = "torch_eager", "torch_compile"
ENTRIES, MEANS = 9**3, 4 * 9**2  # of a board; a layer's means over units


class Inputs(NamedTuple):
    """The energy and a batch of boards, each row at its own level."""

    energy: Energy
    params: Params
    schedule: Schedule
    x: Array
    y0: Array
    y: Array
    t: Array


def make_inputs(flags: argparse.Namespace) -> Inputs:
    schedule = diffusion.make_schedule("cosine", NUM_LEVELS)
    sizes = {name: getattr(flags, name) for name in ("channels", "layers", "rounds")}
    energy = make_board(schedule, box_of, **sizes)
    keys = jax.random.split(jax.random.key(flags.seed), 5)
    params = energy.init(keys[0])
    flat, as_params = ravel_pytree(params)
    params = as_params(flat + JITTER * jax.random.normal(keys[1], flat.shape))
    rows = jnp.arange(9)
    solved = (3 * rows[:, None] + rows[:, None] // 3 + rows) % 9 + 1
    moves = jax.random.split(keys[2], flags.batch_size)
    boards = jax.vmap(lambda key: draw_symmetry(key)(solved))(moves)
    x = jnp.where(jax.random.bernoulli(keys[3], GIVEN, boards.shape), boards, 0)
    y0 = jax.vmap(encode)(boards)
    t = jnp.arange(flags.batch_size, dtype=jnp.int32) % NUM_LEVELS
    noised = jax.vmap(partial(diffusion.q_sample, schedule))
    y = noised(y0, t, jax.random.normal(keys[4], y0.shape))
    return Inputs(energy, params, schedule, x.astype(jnp.int8), y0, y, t)


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
            inputs.schedule, inputs.energy, box_of, error="categorical"
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
            return optax.apply_updates(params, updates), state, value

        self.loss_and_grads = partial(jax.jit(of_params), inputs.params, rows)
        self.rows, self.params = rows, jax.tree.map(jnp.copy, inputs.params)
        self.state = adam.init(self.params)
        args = self.params, self.state, rows
        self.executable, self.train_s = harness.compiled(step, *args, donate=(0, 1))

    def train(self) -> Array:
        args = self.params, self.state, self.rows
        self.params, self.state, loss = self.executable(*args)
        return loss


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
    (loss, _), grads = ours.loss_and_grads()
    for name, system in made.items():
        other, other_grad = system.gradient()
        other_grad = other_grad.cpu().reshape(grad.shape)
        systems.assert_close(f"energy, {name}", energy, other.cpu(), TOLERANCE)
        systems.assert_close(f"gradient, {name}", grad, other_grad, TOLERANCE)
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
