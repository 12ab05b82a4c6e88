"""What does a train step cost, strategy by strategy, and in the earlier system?

python -m benchmarks.train_step
python -m benchmarks.train_step --strategies=none,cd_full --device=gpu
"""

import importlib
import time

from benchmarks import harness, systems
from benchmarks.harness import Peer
from experiments import fields
from experiments.build import build, make_experiment

STRATEGIES = (  # configs
    "none",
    "nce_random",
    "nce_noise",
    "adversarial",
    "mixed",
    "cd_langevin",
    "cd_langevin_replay",
    "cd_full",
)
QUICK = ("none", "adversarial", "cd_full")
CHAIN_STEPS = (10, 30)  # of cd_full
EARLIER = ("none", "adversarial", "cd_full")  # what the earlier system is timed on


class Step:
    """One compiled dispatch of a train step that carries its own state along."""

    def __init__(self, config):
        experiment = build(config)
        self.state = experiment.init_state()
        begin = time.perf_counter()
        self.data = experiment.train_data
        step = experiment.dispatch()
        self.executable = step.lower(self.state, self.data).compile()
        self.compile_s = time.perf_counter() - begin

    def __call__(self):
        self.state, metrics = self.executable(self.state, self.data)
        return metrics


def make_config(strategy: str, flags, **overrides):
    """A config file's run at the sizes of the flags, the warm-up already over."""
    config = importlib.import_module(f"configs.{strategy}").get_config()
    changes = {"task.n": flags.n, "train.batch_size": flags.batch_size}
    changes |= {"train.steps_per_dispatch": 1}
    changes |= {"energy.name": "mlp", "train.learning_rate": 1e-6, "seed": flags.seed}
    given = fields.flatten(config)
    return fields.nest(fields.replace(make_experiment, given, changes | overrides))


def variants(strategy: str, flags):
    """Config overrides of each row of the table, with the name of the row's sizes."""
    if strategy != "cd_full":
        return [({}, {})]
    rows = []
    for num_steps in CHAIN_STEPS[-1:] if flags.quick else CHAIN_STEPS:
        for which in ("in_range", "all"):
            changes = {"sampler.num_steps": num_steps, "negatives.rows": which}
            rows.append((changes, {"K": num_steps, "rows": which}))
    return rows


def make_peers(strategy: str, flags) -> list[Peer]:
    peers, seen = [], set()
    for changes, params in variants(strategy, flags):
        step = Step(make_config(strategy, flags, **changes))
        work = "_".join([strategy, *(f"K{v}" for k, v in params.items() if k == "K")])
        peers.append(Peer("ired_jax", work, step, step.compile_s, params=params))
        if strategy in EARLIER and flags.torch and work not in seen:
            peers += _earlier(strategy, work, params.get("K", 0), flags)
            seen.add(work)
    return peers


def _earlier(strategy: str, work: str, num_steps: int, flags) -> list[Peer]:
    """The earlier train step, eager and compiled, from the same kind of weights."""
    from benchmarks import torch_baseline

    device = harness.torch_device(flags)
    state = systems.make_inputs(flags).state_dict()
    settings = torch_baseline.TrainSettings(
        strategy, flags.batch_size, flags.n, num_steps=num_steps, learning_rate=1e-6
    )
    peers = []
    params = {"K": num_steps, "rows": "all"} if num_steps else {}
    for system in ("earlier", "torch_compile"):
        model = torch_baseline.load(state, device=device)
        compiles = system == "torch_compile"
        trainer = torch_baseline.Trainer(model, settings, compiled=compiles)
        seconds = harness.first_call_extra(trainer.step) if compiles else 0.0
        peers.append(Peer(system, work, trainer.step, seconds, params=params))
    return peers


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0])
    flags.add_argument("--strategies", type=harness.some_of(STRATEGIES))
    flags.add_argument("--torch", type=int, choices=(0, 1), default=1)
    flags = harness.start(flags.parse_args(argv))
    chosen = flags.strategies or (QUICK if flags.quick else STRATEGIES)
    results = []
    for strategy in chosen:  # a strategy's peers together: memory holds one buffer
        results += harness.measure(make_peers(strategy, flags), flags)
    first = results[0]
    results = [first] + [r for r in results if r.peer.system != harness.MATRIX]
    harness.report("train_step", results, flags)


if __name__ == "__main__":
    main()
