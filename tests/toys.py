"""Small problems whose answers are known, shared by the tests of the train step."""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from ired_jax import diffusion, losses, negatives, training
from ired_jax.types import Energy

D = 4
T = 10
BATCH = 32
ROWS = 24
LEVELS = (1, 7)
# LLVM's passes are most of the time of a small compilation, and nothing is timed here.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=FAST)


def schedule():
    return diffusion.make_schedule("cosine", T)


def draw(key, *, size=D):
    """x is the answer itself, uniform in [-1, 1]."""
    y0 = jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0)
    return y0, y0


def distance(x, y):
    """The residual: root mean square distance to the answer."""
    return jnp.sqrt(jnp.mean((y - x) ** 2))


def ideal_energy():
    """E = theta_t |y - a_t x|^2 / (2 s_t): with theta = 1 the ideal landscape."""
    levels = schedule()

    def init(key):
        del key
        return {"theta": jnp.ones(T)}

    def apply(params, x, y, t):
        offset = y - levels.a[t] * x
        return params["theta"][t] * jnp.sum(offset**2) / (2 * levels.s[t])

    def bind(params, x, t):
        return lambda y: apply(params, x, y, t)

    return Energy(init, apply, bind)


def problem(*, size=D, **changes):
    fields = {
        "draw": partial(draw, size=size),
        "residual": distance,
        "energy": ideal_energy(),
        "schedule": schedule(),
    }
    return training.Problem(**fields | changes)


def langevin(**changes):
    levels = schedule()
    step_size = partial(diffusion.langevin_step_size, levels, multiple=0.25)
    fields = {"scale": (1.5, 1.5), "num_steps": 3, "step_size": step_size}
    return negatives.langevin_chain(levels, **fields | changes)


def contrast(**changes):
    """Contrastive divergence at a constant weight of .05."""
    fields = {
        "strategy": langevin(),
        "pair_loss": partial(losses.contrastive_divergence, num_elements=D),
        "weight": lambda step: jnp.float32(0.05),
        "levels": LEVELS,
        "num_rows": ROWS,
        "bounds": 2.0,
    }
    return training.Contrast(**fields | changes)


def sgd_step(contrast=None, learning_rate=0.1, **changes):
    """A train step and its first state."""
    optimizer = optax.sgd(learning_rate)
    step = training.make_train_step(
        problem(),
        optimizer=optimizer,
        batch_size=BATCH,
        num_steps=100,
        ema=training.Ema(decay=0.9, every=2, warmup=2),
        contrast=contrast,
        **changes,
    )
    return step, training.init_state(jax.random.key(0), problem(), optimizer, contrast)
