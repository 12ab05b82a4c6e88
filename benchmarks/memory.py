"""Does the memory of a compiled sampler grow with its number of steps?

    python -m benchmarks.memory

Bytes of temporaries that the compiler plans, at 5 and at 80 steps: nothing is run.
"""

import jax

from benchmarks import harness, systems
from ired_jax.samplers import descent, langevin
from ired_jax.types import bind

SHORT, LONG = 5, 80


def samplers(inputs) -> dict:
    """name -> chain of one example: (key, params, x, y, t, num_steps) -> y."""
    s = inputs.schedule.s

    def chain(key, params, x, y, t, num_steps, adjusted=False):
        energy_fn = bind(inputs.energy, params, x, t)
        return langevin.sample(
            key,
            energy_fn,
            y,
            step_size=0.25 * s[t],
            temperature=s[t],
            num_steps=num_steps,
            adjusted=adjusted,
        )[0]

    def adjusted(*args):
        return chain(*args, adjusted=True)

    def descend(key, params, x, y, t, num_steps):
        del key
        energy_fn = bind(inputs.energy, params, x, t)
        return descent.minimize(energy_fn, y, step_size=s[t], num_steps=num_steps)[0]

    return {"langevin": chain, "adjusted": adjusted, "descent": descend}


def temporaries(inputs, chain, num_steps: int) -> int:
    """Bytes that the compiled chains of the whole batch need beside their arguments."""

    def one(params, key, x, y, t):
        return chain(key, params, x, y, t, num_steps)

    keys = jax.random.split(jax.random.key(1), len(inputs.x))
    args = inputs.params, keys, inputs.x, inputs.y, inputs.t
    executable, _ = harness.compiled(systems.of_all_rows(inputs, one), *args)
    return executable.memory_analysis().temp_size_in_bytes


def main(argv: list[str] | None = None) -> None:
    flags = harness.start(harness.parser(__doc__.splitlines()[0]).parse_args(argv))
    inputs, rows = systems.make_inputs(flags), []
    for name, chain in samplers(inputs).items():
        short, long = (temporaries(inputs, chain, k) for k in (SHORT, LONG))
        print(
            f"{name}: {short / 2**20:.1f} MiB at {SHORT} steps,"
            f" {long / 2**20:.1f} MiB at {LONG}: {long / short:.2f} times"
        )
        row = {"work": name, "system": "ired_jax", "ratio": long / short}
        params = {"n": flags.n, "batch_size": flags.batch_size}
        rows.append(row | {"params": params, "bytes": {SHORT: short, LONG: long}})
    harness.record("memory", flags, rows)


if __name__ == "__main__":
    main()
