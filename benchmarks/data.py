"""What does drawing data cost, and what share of a train step is it?

python -m benchmarks.data
"""

from functools import partial

import jax

from benchmarks import harness
from benchmarks.harness import Peer
from benchmarks.train_step import Step, make_config
from ired_jax.tasks.inverse import make_inverse

STEPS = {"none": {}, "cd_full": {"sampler.num_steps": 30}}


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], repeats=15)
    flags = harness.start(flags.parse_args(argv))
    source = make_inverse(n=flags.n).train

    def draw(key):
        return jax.vmap(partial(source.draw, source.data))(
            jax.random.split(key, flags.batch_size)
        )

    key = jax.random.key(flags.seed)
    run, seconds = harness.compiled(draw, key)
    peers = [Peer("ired_jax", "data", partial(run, key), seconds)]
    peers.append(Peer("earlier", "data", _earlier(flags)))
    for strategy, fields in STEPS.items():
        step = Step(make_config(strategy, flags, **fields))
        peers.append(Peer("ired_jax", f"step_{strategy}", step, step.compile_s))
    results = harness.measure(peers, flags)
    harness.report("data", results, flags)
    rows = []
    for result, strategy in zip(results[3:], STEPS, strict=True):
        share = results[1].median / result.median
        print(f"share of a train step, {strategy}: {100 * share:.2f} %")
        row = {"work": f"data/{strategy}", "system": "ired_jax"}
        rows.append(row | {"share_of_train_step": share})
    harness.record("data", flags, rows)


def _earlier(flags):
    from benchmarks.torch_baseline import draw

    return partial(draw, flags.batch_size, flags.n, harness.torch_device(flags))


if __name__ == "__main__":
    main()
