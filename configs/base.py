"""Every field of a run, with its meaning, unit and legal values, and the presets.

The other files of this folder are overrides of these defaults. A field that the chosen
strategy, loss or energy does not read must keep its default: a run refuses it rather
than ignore it.
"""

from ml_collections import ConfigDict

DEFAULTS = {
    "seed": 0,  # root of all random streams of training, >= 0
    "task": {
        "name": "inverse",  # one of build.TASKS
        "n": 20,  # matrices are n x n, >= 1
    },
    "energy": {
        "name": "matrix",  # one of build.ENERGIES
        "channels": 12,  # matrix: maps carried from layer to layer, >= 1
        "layers": 7,  # matrix: product layers on x, >= 1
        "outputs": 2,  # matrix: maps whose squared norms are summed, >= 1
        "reach": "products",  # matrix: products (y is seen through x), direct
        "answer_layers": 0,  # matrix: product layers on y, degree 2^(1 + them), >= 0
        "width": 512,  # mlp: hidden units, >= 1
        "head": "squared_norm",  # mlp: squared_norm (E = |out|^2), scalar (E = out)
        "spectral_norm": False,  # every weight matrix over its largest singular value
    },
    "diffusion": {
        "schedule": "cosine",  # cosine, linear (linear: more than 20 levels)
        "num_levels": 10,  # T, landscapes from smooth to sharp, >= 1
    },
    # Langevin chains of the negative phase, in the unit of `negatives.units`.
    "sampler": {
        "num_steps": 10,  # K, >= 1
        "step_size": 0.0,  # multiple of s_t^2 (energy: of beta_t / s_t); 0: by kind
        "temperature": 1.0,  # of the chain, in units of its energy, >= 0
        "grad_clip": 5.0,  # clip of each element of grad E (on grad U: / s_t); 0: none
        "bounds": 0.0,  # half-width of the chain's box; 0: none
        "adjusted": False,  # Metropolis-Hastings acceptance
    },
    "negatives": {
        "strategy": "none",  # one of build_negatives.STRATEGIES
        "units": "nats",  # of chain, loss, penalty: nats (U = E / s_t), energy (E)
        "noise_scale": 1.5,  # start noise in units of s_t, >= 0
        "noise_scale_end": -1.0,  # the same at the end of the run; -1: unchanged
        "descent_steps": 2,  # adversarial, mixed, on_trajectory (a level): >= 1
        "mixed_share": 0.7,  # mixed: share of nce_noise rows, in (0, 1)
        "level_low": 0.0,  # levels int(low (T-1)) to int(high (T-1)) have
        "level_high": 1.0,  # a negative phase, 0 <= low <= high <= 1
        "rows": "in_range",  # N: in_range (B times the range's share), all (B)
        "curriculum": 0.0,  # share of the run over which moving steps grow to K
    },
    "replay": {
        "share": 0.0,  # probability of a replayed start; 0: no buffer
        "capacity": 10_000,  # rows a bucket, >= 1
        "num_buckets": 10,  # 1 to T (more than T only with conditional = False)
        "conditional": True,  # a row brings its own x, y0, t; False: y alone (earlier)
        "coin": "row",  # row, batch (earlier): one coin for each row or for all
        "curriculum": 0.0,  # share of the run over which `share` grows from 0
    },
    # Residual filter: drops negatives that are right answers.
    "filter": {
        "mode": "none",  # none, fixed, batch_quantile, running_quantile
        "quantile": 0.3,  # of a level's residuals, in (0, 1)
        "momentum": 0.9,  # running_quantile: of the mean, in [0, 1)
        "thresholds": (),  # fixed: T residuals, from experiments.calibrate
        "per_level": True,  # False: one quantile over all levels (earlier)
        "denoised": True,  # False: residual of y- / a_t (earlier)
    },
    "loss": {
        "contrastive": "none",  # none, cd, logistic, hinge
        "weight": 0.0,  # at its maximum, >= 0
        "warmup": 0,  # steps over which the phase's weight grows from 0; 0: at once
        "tau": 1.0,  # logistic: temperature, > 0
        "margin": 1.0,  # hinge: margin, >= 0
        "per_element": True,  # gap, tau, margin by element; False: whole (earlier)
        "level_power": 0.0,  # pair weight of a level in proportion to s_t^power
        "clamp": 0.0,  # cd: pairs whose gap exceeds it (nats/element) rest; 0: no
        "penalty": 0.0,  # r of r mean((U+/D)^2 + (U-/D)^2); energy: w r (E+^2 + E-^2)
    },
    # Operands of the energy's products: float32, tf32, bfloat16. Sums and all the rest
    # are float32, as are filter, evaluation and solve. A CPU rounds and gains no time.
    "precision": {
        "chains": "float32",  # of the energy that negatives move on
        "loss": "float32",  # of the energy in the losses, and of their gradients
    },
    "train": {
        "num_seeds": 1,  # seeds seed, seed + 1, .. trained in one program, >= 1
        "batch_size": 2048,  # B, >= 1
        "block_rows": 0,  # rows at once of losses and chains; 0: a CPU's cache, or all
        "num_steps": 100_000,  # length of the run, >= 1
        "denoise_share": 0.0,  # of the run without negatives, before them, in [0, 1)
        "learning_rate": 3e-3,  # Adam, at its maximum, > 0
        "lr_schedule": "cosine",  # constant, cosine (to 0 at the end of the run)
        "lr_warmup": 100,  # steps over which the rate grows from 0, >= 0
        "beta1": 0.9,  # Adam; 0 for Langevin runs, in [0, 1)
        "beta2": 0.99,  # Adam; .999 for Langevin runs, in [0, 1)
        "grad_clip": 1.0,  # global norm, > 0
        "ema_decay": 0.995,  # at each application, in [0, 1]
        "ema_every": 10,  # steps between applications, >= 1
        "ema_warmup": 100,  # steps in which the average is a copy, >= 0
        "steps_per_dispatch": 10,  # scanned in one call; divides the three below
        "log_every": 500,  # steps between lines of metrics.jsonl
        "eval_every": 5_000,  # steps between evaluations, each saves a checkpoint
        "patience": 0,  # evaluations without a better val/task_mse to stop; 0: never
    },
    "eval": {
        "num_examples": 20_000,  # held-out draws of the final figures, >= 2
        "num_examples_running": 2_048,  # of those, during training, >= 2
        "batch_size": 2_048,  # any; the result does not depend on it
        "num_steps": 5,  # accepted descent steps a level, >= 0
        "double_steps": False,  # double the step from the second on (released)
        "tolerance": 0.0,  # a level ends at rms(s_t grad E) below it; 0: all steps
        "bounds": 0.0,  # half-width of the answers' box; 0: the task's own
    },
}


def get_config() -> ConfigDict:
    return ConfigDict(DEFAULTS)


def apply(config: ConfigDict, presets: str) -> ConfigDict:
    """Applies comma-separated presets, in any order: see PRESETS.

    Raises:
      ValueError: an unknown preset.
    """
    names = list(filter(None, (presets or "").split(",")))
    for name in names:
        if name not in PRESETS:
            allowed = ", ".join(PRESETS)
            raise ValueError(f"preset {name!r} is unknown: allowed are {allowed}")
    for name, preset in PRESETS.items():
        if name in names:
            preset(config)
    return config


def mlp(config: ConfigDict) -> None:
    """The reference network, at the learning rate of record."""
    config.energy.name = "mlp"
    config.train.learning_rate = 1e-4
    config.train.lr_schedule = "constant"
    config.train.lr_warmup = 0


def cpu(config: ConfigDict) -> None:
    """n = 10 within 15 minutes on two cores."""
    config.task.n = 10
    _resize(config, batch_size=128, num_steps=5_000, capacity=2_000)
    config.train.log_every = 250
    config.train.eval_every = 1_000
    if config.energy.name == "mlp":
        config.train.batch_size = 512
        config.train.learning_rate = 3e-4


def smoke(config: ConfigDict) -> None:
    """The whole path within a minute: no result, only that everything runs."""
    config.task.n = 4
    _resize(config, batch_size=64, num_steps=40, capacity=64)
    config.train.steps_per_dispatch = 5
    config.train.log_every = 10
    config.train.eval_every = 20
    config.eval.num_examples = 128
    config.eval.num_examples_running = 64
    config.eval.batch_size = 64
    if config.energy.name == "mlp":
        config.energy.width = 32
    if config.energy.name == "matrix":
        config.energy.layers = 3


def classic(config: ConfigDict) -> None:
    """The earlier form: E for U, its steps, clips and bounds, its replay and filter."""
    if config.negatives.strategy != "none":
        config.negatives.units = "energy"
        config.loss.penalty = 0.1
    if config.negatives.strategy == "langevin":
        config.sampler.grad_clip = 0.01
        config.sampler.bounds = 2.0
    if config.loss.contrastive != "none":
        config.loss.per_element = False
    if config.replay.share > 0:
        config.replay.conditional = False
        config.replay.coin = "batch"
        config.replay.num_buckets = 16
    if config.filter.mode != "none":
        config.filter.per_level = False
        config.filter.denoised = False


# Applied in this order, whatever the order on the command line.
PRESETS = {"mlp": mlp, "cpu": cpu, "smoke": smoke, "classic": classic}


def _resize(config: ConfigDict, *, batch_size: int, num_steps: int, capacity: int):
    """A smaller run: each warm-up is at most a fifth of it, the average is shorter."""
    config.train.batch_size = batch_size
    config.train.num_steps = num_steps
    config.train.ema_decay = 0.95  # remembers 200 steps instead of 2,000
    limit = num_steps // 5
    config.loss.warmup = min(config.loss.warmup, limit)
    config.train.lr_warmup = min(config.train.lr_warmup, limit)
    config.train.ema_warmup = min(config.train.ema_warmup, limit)
    if config.replay.share > 0:
        config.replay.capacity = capacity
