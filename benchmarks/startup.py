"""How soon is the first finished train step of cd_full, cold and cached?

    python -m benchmarks.startup

From process start to the first finished step of the reference network: imports, build,
initial state, compilation, one step. First with an empty compilation cache, then with
the cache that this filled; each in a process of its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness

PROGRAM = """
import importlib, jax, sys
from experiments import cli
from experiments.build import build
cli.enable_compilation_cache()
config = importlib.import_module("configs.cd_full").get_config("mlp")
config.task.n, config.train.batch_size = int(sys.argv[1]), int(sys.argv[2])
experiment = build(config)
state = jax.jit(experiment.init_state)()
step = jax.jit(experiment.step_fns[-1], donate_argnums=0)
state, metrics = step(state, experiment.train_data)
jax.block_until_ready(state)
print(float(metrics["train/loss"]))
"""
ROOT = Path(__file__).resolve().parent.parent


def seconds(flags, cache: str) -> float:
    """One process from start to its first finished step."""
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    environment["JAX_PLATFORMS"] = "cpu" if flags.device == "cpu" else "cuda"
    command = [sys.executable, "-c", PROGRAM, str(flags.n), str(flags.batch_size)]
    begin = time.perf_counter()
    subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begin


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], repeats=3)
    flags = harness.start(flags.parse_args(argv))
    times = {"cold": [], "cached": []}
    for _ in range(1 if flags.quick else flags.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for name in times:  # the first fills the cache of the second
                times[name].append(seconds(flags, cache))
    rows = []
    for name, values in times.items():
        middle = sorted(values)[len(values) // 2]
        print(f"{name}: {middle:.1f} s ({', '.join(f'{v:.1f}' for v in values)})")
        params = {"n": flags.n, "batch_size": flags.batch_size}
        row = {"work": name, "system": harness.OURS, "params": params}
        rows.append(row | {"median_s": middle, "min_s": min(values)})
    harness.record("startup", flags, rows)


if __name__ == "__main__":
    main()
