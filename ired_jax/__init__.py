"""Energy-based reasoning in JAX: E(x, y, t) is low where y answers x.

    import ired_jax as ij

    y, info = ij.sample(key, energy_fn, y, step_size=.1, temperature=1., num_steps=100)
    y_0, info = ij.solve(key, energy_fn, schedule, y_shape, num_steps=5, bounds=2.0)

Notation, used by the whole library:

| symbol | name here | meaning |
| --- | --- | --- |
| x, y | `x`, `y` | condition and answer of one example, pytrees of arrays |
| t | `t` | level, int32; 0 is the sharpest landscape, T-1 the smoothest |
| T | `num_levels` | number of levels |
| D | `num_elements` | elements of y; in means those that are not known beforehand |
| a_t, s_t | `Schedule.a`, `Schedule.s` | y_t = a_t y_0 + s_t eps |
| E | `energy` | energy; its temperature at level t is s_t |
| U = E / s_t | `u_pos`, `u_neg` | energy in nats; all that is probabilistic uses it |
| y+, y- | `y_pos`, `y` | positive (data) and negative (chain) of a pair |
| h | `step_size` | Langevin step on U, a multiple of s_t^2 |
| K | `num_steps` | steps of a chain |

Everything here is a pure function on arrays: the caller jits, vmaps and donates.
"""

from ired_jax import (
    blocks,
    boxes,
    diffusion,
    fields,
    losses,
    replay,
    trees,
)
from ired_jax.diffusion import Schedule, make_schedule
from ired_jax.energies.matrix import make_matrix
from ired_jax.energies.mlp import make_mlp
from ired_jax.energies.spectral import normalise
from ired_jax.fields import Choice, Choices, Field, Part
from ired_jax.losses import PairLoss
from ired_jax.negatives.base import ChainInfo, Strategy, make_units
from ired_jax.objectives.base import Context, Objective, Parameters
from ired_jax.objectives.contrast import Weight, make_contrast
from ired_jax.objectives.denoising import make_denoising
from ired_jax.objectives.pairs import Levels
from ired_jax.precision import in_precision
from ired_jax.samplers.descent import minimize
from ired_jax.samplers.inference import solve
from ired_jax.samplers.langevin import sample
from ired_jax.samplers.search import metropolis
from ired_jax.tasks.base import (
    Evaluator,
    Inference,
    Metric,
    Source,
    Task,
    mean_squared_error,
)
from ired_jax.training import Ema, TrainState, init_state, make_train_step, repeat
from ired_jax.types import (
    Box,
    Energy,
    Example,
    Landscape,
    PartError,
    Stream,
    WithGrad,
)

__version__ = "0.2.0"

__all__ = [
    "Box",
    "ChainInfo",
    "Choice",
    "Choices",
    "Context",
    "Ema",
    "Energy",
    "Evaluator",
    "Example",
    "Field",
    "Inference",
    "Landscape",
    "Levels",
    "Metric",
    "Objective",
    "PairLoss",
    "Parameters",
    "Part",
    "PartError",
    "Schedule",
    "Source",
    "Strategy",
    "Stream",
    "Task",
    "TrainState",
    "Weight",
    "WithGrad",
    "__version__",
    "blocks",
    "boxes",
    "diffusion",
    "fields",
    "in_precision",
    "init_state",
    "losses",
    "make_contrast",
    "make_denoising",
    "make_matrix",
    "make_mlp",
    "make_schedule",
    "make_train_step",
    "make_units",
    "mean_squared_error",
    "metropolis",
    "minimize",
    "normalise",
    "repeat",
    "replay",
    "sample",
    "solve",
    "trees",
]
