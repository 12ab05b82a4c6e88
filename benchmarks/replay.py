"""What does replay cost: insert and sample a batch, against deques on the host?

    python -m benchmarks.replay

Two works: `y` stores the answers alone, as the earlier system did; `rows` stores
{x, y0, y}, as conditional replay needs, in rings and in deques alike. `copies` is the
limit: the same bytes in and out of the same places in NumPy, all places known before.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, systems
from benchmarks.harness import Peer
from benchmarks.train_step import Step, make_config
from ired_jax import replay

BUCKETS = systems.NUM_LEVELS
FILL = 4  # batches put in before the clock starts
STEP = "cd_full_K30"


class Rings:
    """Insert the rows drawn last, then draw, in one dispatch with all state donated."""

    def __init__(self, rows, t, capacity: int):
        # Copies: what is donated is gone, and others work on the same rows.
        self.rows = jax.tree.map(jnp.copy, rows)
        example = jax.tree.map(lambda leaf: leaf[0], rows)
        self.state = replay.init(example, num_buckets=BUCKETS, capacity=capacity)

        def work(state, rows, key):
            bucket = replay.bucket_of(
                t, num_levels=systems.NUM_LEVELS, num_buckets=BUCKETS
            )
            state = replay.insert(state, rows, bucket)
            rows, is_available = replay.sample(key, state, bucket)
            return state, rows, is_available

        self.key = jax.random.key(0)
        self.executable, self.compile_s = harness.compiled(
            work, self.state, self.rows, self.key, donate=(0, 1)
        )

    def __call__(self):
        drawn = self.executable(self.state, self.rows, self.key)
        self.state, self.rows, is_available = drawn
        return self.rows, is_available


class Copies:
    """What no replay can do without: as many rows written in order, and read anywhere.

    Rows of `t` go round the buckets, as the inputs' do.
    """

    def __init__(self, rows, t, capacity: int):
        self.capacity, self.head, self.start = capacity, 0, np.asarray(t) * capacity
        self.rank = np.arange(len(t)) // BUCKETS
        held = min(capacity, FILL * (1 + int(self.rank[-1])))
        rng = np.random.default_rng(0)
        self.drawn = self.start + rng.integers(0, held, len(t))
        self.rows = [np.array(leaf) for leaf in rows.values()]
        # Not np.zeros: its pages are made only when they are first written.
        shape = BUCKETS * capacity
        self.rings = [np.full((shape, row.shape[1]), 1, row.dtype) for row in self.rows]

    def __call__(self):
        slot = self.start + (self.head + self.rank) % self.capacity
        self.head += 1 + int(self.rank[-1])
        for ring, rows in zip(self.rings, self.rows, strict=True):
            ring[slot] = rows
            np.take(ring, self.drawn, axis=0, out=rows, mode="clip")


class Deques:
    """The earlier replay: one deque for each array, one item at a time."""

    def __init__(self, rows, t, capacity: int, device: str):
        import torch

        from benchmarks.torch_baseline import DequeReplay

        self.t = torch.tensor(np.asarray(t)).to(device)
        self.rows = [torch.tensor(np.asarray(v)).to(device) for v in rows.values()]
        self.deques = [DequeReplay(capacity=capacity) for _ in self.rows]

    def __call__(self):
        for deques, row in zip(self.deques, self.rows, strict=True):
            deques.insert(row, self.t)
        return [deques.sample(self.t) for deques in self.deques]


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0], repeats=15)
    flags.add_argument("--capacity", type=int, default=10_000)
    flags = harness.start(flags.parse_args(argv))
    inputs = systems.make_inputs(flags)
    device = harness.torch_device(flags)
    peers, params = [], {"capacity": flags.capacity}
    for work, names in {"y": ("y",), "rows": ("x", "y0", "y")}.items():
        rows = {name: getattr(inputs, name) for name in names}
        ours = Rings(rows, inputs.t, flags.capacity)
        deques = Deques(rows, inputs.t, flags.capacity, device)
        for _ in range(FILL):
            _, is_available = ours()
            deques()
        assert bool(jnp.all(is_available)), "no bucket is empty"
        peers.append(Peer("ired_jax", work, ours, ours.compile_s, params=params))
        peers.append(Peer("earlier", work, deques, params=params))
        copies = Copies(rows, inputs.t, flags.capacity)
        peers.append(Peer("copies", work, copies, params=params))
    step = Step(make_config("cd_full", flags, **{"sampler.num_steps": 30}))
    peers.append(Peer("ired_jax", STEP, step, step.compile_s))
    results = harness.measure(peers, flags)
    harness.report("replay", results, flags)
    ours = {r.peer.work: r for r in results if r.peer.system == harness.OURS}
    share = ours["rows"].median / ours[STEP].median
    print(f"rows, share of the cd_full train step: {100 * share:.2f} %")
    row = {"work": "rows", "system": "ired_jax", "share_of_train_step": share}
    harness.record("replay", flags, [row])


if __name__ == "__main__":
    main()
