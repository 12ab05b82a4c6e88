"""What does replay cost: insert and sample a batch, against deques on the host?

    python -m benchmarks.replay

Two works: `y` stores the answers alone, as the earlier system did; `rows` stores
{x, y0, y, t}, as conditional replay needs, in rings and in deques alike.
"""

import jax
import jax.numpy as jnp

from benchmarks import harness, systems
from benchmarks.harness import Peer
from benchmarks.train_step import Step, make_config
from ired_jax import replay

BUCKETS = systems.NUM_LEVELS
FILL = 4  # batches put in before the clock starts


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


class Deques:
    """The earlier replay: one deque for each array, one item at a time."""

    def __init__(self, rows, t, capacity: int, device: str):
        import numpy as np
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
    step = Step(make_config("cd_full", flags, **{"sampler.num_steps": 30}))
    peers.append(Peer("ired_jax", "cd_full_K30", step, step.compile_s))
    results = harness.measure(peers, flags)
    harness.report("replay", results, flags)
    share = results[3].median / results[5].median
    print(f"rows, share of the cd_full train step: {100 * share:.2f} %")
    row = {"work": "rows", "system": "ired_jax", "share_of_train_step": share}
    harness.record("replay", flags, [row])


if __name__ == "__main__":
    main()
