"""What do ten seeds at once cost, against one?

    python -m benchmarks.seeds

One dispatch of the ten train steps that a run takes by default: the seeds of a run are
stacked, and take turns in one program (on a GPU they are vmapped). `times ours` is
against one seed.
"""

from benchmarks import harness
from benchmarks.harness import Peer
from benchmarks.train_step import Step, make_config

STRATEGIES = ("none", "cd_full")
QUICK = ("none",)
ENERGIES = ("mlp", "matrix")
SEEDS = (1, 10)  # the first is the reference
STEPS = 10  # in a dispatch
CAPACITY = 1_000  # rows a bucket: of ten seeds at n = 20 half a GiB


def make_peers(strategy: str, energy: str, flags) -> list[Peer]:
    """The same step of one seed and of several."""
    fields = {"energy.name": energy, "train.steps_per_dispatch": STEPS}
    if strategy == "cd_full":
        fields["replay.capacity"] = CAPACITY
    peers = []
    for count in SEEDS:
        fields["train.num_seeds"] = count
        step = Step(make_config(strategy, flags, **fields))
        work, params = f"{strategy}_{energy}", {"seeds": count}
        peers.append(Peer("ired_jax", work, step, step.compile_s, params=params))
    return peers


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], repeats=9, batch_size=256)
    flags = harness.start(flags.parse_args(argv))
    results, strategies = [], QUICK if flags.quick else STRATEGIES
    for energy in ENERGIES:
        for strategy in strategies:  # one state of ten seeds at a time
            results += harness.measure(make_peers(strategy, energy, flags), flags)
    first = results[0]
    results = [first] + [r for r in results if r.peer.system != harness.MATRIX]
    harness.report("seeds", results, flags)


if __name__ == "__main__":
    main()
