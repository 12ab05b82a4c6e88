"""How does the Langevin chain scale with n, the batch, the steps and the levels?

    python -m benchmarks.scaling

Time should grow with the products alone: the share of the matrix rate stays put. Levels
enter a chain only by the rows' own parts, so their number must not matter to it; of an
inference they are the length.
"""

import argparse
from functools import partial

import jax

from benchmarks import harness, systems
from benchmarks.harness import Peer
from ired_jax.samplers import inference, langevin
from ired_jax.types import Landscape, bind

STEPS = 10
LEVEL_STEPS = 5
AXES = {
    "n": (10, 20, 30, 40),
    "batch_size": (256, 1024, 2048, 4096, 16384),
    "K": (5, 10, 20, 40, 80),
    "levels": (5, 10, 20),
}
QUICK = {"n": (10, 20), "batch_size": (256, 2048), "K": (5, 20), "levels": (5, 10)}


def chain_peer(flags, num_steps: int, params: dict) -> Peer:
    """Langevin chains of one size."""
    inputs = systems.make_inputs(flags)

    def one(params, key, x, y, t):
        return langevin.sample(
            key,
            bind(inputs.energy, params, x, t),
            y,
            step_size=0.25 * inputs.schedule.s[t],
            temperature=inputs.schedule.s[t],
            num_steps=num_steps,
        )[0]

    keys = jax.random.split(jax.random.key(1), flags.batch_size)
    args = inputs.params, keys, inputs.x, inputs.y, inputs.t
    run, seconds = harness.compiled(systems.of_all_rows(inputs, one), *args)
    row = num_steps * systems.grad_flops(flags.n) + systems.x_flops(flags.n)
    flops = flags.batch_size * row
    work = f"langevin_{next(iter(params))}"
    return Peer("ired_jax", work, partial(run, *args), seconds, flops, params)


def inference_peer(flags, num_levels: int) -> Peer:
    """Full inference over a number of levels."""
    inputs = systems.make_inputs(flags, num_levels=num_levels)

    def one(params, key, x):
        landscape = Landscape(inputs.energy, params, x)
        return inference.solve(
            key, landscape, inputs.schedule, x.shape, num_steps=LEVEL_STEPS, bounds=2.0
        )[0]

    keys = jax.random.split(jax.random.key(1), flags.batch_size)
    args = inputs.params, keys, inputs.x
    run, seconds = harness.compiled(systems.of_all_rows(inputs, one), *args)
    params = {"levels": num_levels}
    row = systems.inference_flops(flags.n, num_levels, LEVEL_STEPS)
    flops = flags.batch_size * row
    work = "inference_levels"
    return Peer("ired_jax", work, partial(run, *args), seconds, flops, params)


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], repeats=5)
    flags = harness.start(flags.parse_args(argv))
    results = []
    for axis, values in (QUICK if flags.quick else AXES).items():
        for value in values:  # one size at a time: the largest need the memory
            sizes = argparse.Namespace(**vars(flags))
            params = {axis: value}
            if axis in ("n", "batch_size"):
                setattr(sizes, axis, value)
            if axis == "levels":
                peer = inference_peer(sizes, value)
            else:
                steps = value if axis == "K" else STEPS
                peer = chain_peer(sizes, steps, params)
            # The product's batch follows the row's: a share is of its own limit.
            matrix, result = harness.measure([peer], sizes)
            results += [matrix] if not results else []
            results.append(result._replace(ours=None))
    harness.report("scaling", results, flags)


if __name__ == "__main__":
    main()
