"""Small problems whose answers are known, shared by the tests of the train step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ired_jax import boxes, diffusion, losses, training
from ired_jax.negatives.base import make_units
from ired_jax.negatives.langevin import Chain, make_langevin
from ired_jax.objectives.base import Context, Parameters
from ired_jax.objectives.contrast import Contrast, objective_of
from ired_jax.objectives.denoising import make_denoising
from ired_jax.tasks.base import Source
from ired_jax.types import Box, Energy, Example, streams

D = 4
T = 10
BATCH = 32
ROWS = 24
LEVELS = (1, 7)
BOUNDS = 2.0
# LLVM's passes are most of the time of a small compilation, and nothing is timed here.
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=FAST)


def in_box(source, x, y):
    """NumPy: which elements of y [N, ...] are free, whether they are in the box [N],
    -y with what is known put back, and how many are free [N].
    """

    @jit
    @jax.vmap
    def of_row(x, y):
        box = source.box(x)
        held, count = boxes.hold(box, -y), boxes.count_free(box, y)
        return boxes.free(box, y), boxes.inside(box, y), held, count

    return map(np.asarray, of_row(x, y))


def as_tree(y):
    """[5] -> a grid of three and a pair."""
    return {"grid": y[:3].reshape(3, 1), "pair": y[3:]}


def as_vector(tree):
    """The inverse of `as_tree`."""
    return jnp.concatenate([tree["grid"].reshape(-1), tree["pair"]])


def schedule():
    return diffusion.make_schedule("cosine", T)


def box(x):
    """The same number on every side, no element known."""
    del x
    return Box(-BOUNDS, BOUNDS)


def draw(data, key, *, size=D):
    """x is the answer itself, uniform in [-1, 1]."""
    del data
    y0 = jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0)
    return Example(y0, y0)


def example_of(size):
    """Shapes of one example."""
    vector = jax.ShapeDtypeStruct((size,), jnp.float32)
    return Example(vector, vector)


def drawn_params(energy, seed=0):
    """Parameters that NumPy draws, standard normal."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), shapes)


def value_and_proposal(energy):
    """point -> (E, the answers of all rounds), compiled, in NumPy."""
    both = jit(lambda *point: (energy(*point), energy.propose(*point)))
    return lambda *point: jax.tree.map(np.asarray, both(*point))


def source():
    return Source(draw, box)


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


def units(name="nats"):
    return make_units(schedule(), units=name)


def langevin(*, in_nats=True, box=box, num_elements=D, block_rows=None, **changes):
    """Three steps from 1.5 s_t."""
    fields = {"num_steps": 3, "grad_clip": 0.0} | changes
    chain = Chain(**{k: fields.pop(k) for k in Chain._fields if k in fields})
    parts = schedule(), box, units("nats" if in_nats else "energy")
    return make_langevin(*parts, num_elements, block_rows, chain=chain, **fields)


def contrast(*, energy=None, in_nats=True, **changes):
    """Contrastive divergence at a constant weight of .05."""
    energy = energy or ideal_energy()
    fields = {
        "energy": energy,
        "loss_energy": energy,
        "chain_energy": energy,
        "schedule": schedule(),
        "strategy": langevin(in_nats=in_nats),
        "pair_loss": losses.make_cd(),
        "weight": lambda step: jnp.float32(0.05),
        "levels": LEVELS,
        "num_rows": ROWS,
        "units": units("nats" if in_nats else "energy"),
        "box": box,
        "residual": distance,
    }
    return Contrast(**fields | changes)


def denoising(energy=None):
    return make_denoising(schedule(), energy or ideal_energy(), box)


def objectives(spec=None, energy=None):
    """Denoising, and the negative phase beside it."""
    more = {} if spec is None else {"contrast": objective_of(spec)}
    return {"denoising": denoising(energy)} | more


def context(state, progress=0.0):
    """What objectives know of the step after a state."""
    key = streams(state.key, state.step)
    progress = jnp.float32(progress)
    return Context(state.step, progress, key, state.params, state.ema_params)


def batch_of(state, batch_size=BATCH):
    """The examples of the step after a state."""
    return training.draw_examples(source(), (), state.key, state.step, batch_size)


def parameters(energy, own=None):
    return Parameters(energy, own or {"denoising": (), "contrast": ()})


def sgd_step(spec=None, learning_rate=0.1, **changes):
    """A train step state -> (state, metrics), and its first state."""
    optimizer, terms = optax.sgd(learning_rate), objectives(spec)
    step = training.make_train_step(
        source(),
        terms,
        optimizer=optimizer,
        batch_size=BATCH,
        num_steps=100,
        ema=training.Ema(decay=0.9, every=2, warmup=2),
        **changes,
    )
    state = training.init_state(
        jax.random.key(0),
        energy=ideal_energy(),
        objectives=terms,
        optimizer=optimizer,
        example=jax.eval_shape(partial(draw, ()), jax.random.key(0)),
    )
    return (lambda state: step(state, ())), state
