"""What the network inside an energy proposes, trained by itself.

    mean over rows and rounds r of error(F_r(x, y_t, t), y_0)

for an energy E = |y - a F|^2 / (2 s) whose `propose` shows the answers F_1 .. F_R after
each round. No derivative of E in y is needed, so a step costs a fifth of one that
trains the gradient, and where F is right so is E. Rows are what inference meets: noised
truths, noise alone, and, against trusting y, the model's own answers, noised again.

Source: this project; every round has its loss as in Palm et al., arXiv 1711.08028.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from ired_jax import boxes, trees
from ired_jax.diffusion import Schedule
from ired_jax.fields import Field
from ired_jax.negatives.base import BoxFn, box_of
from ired_jax.objectives import paths
from ired_jax.objectives.base import Context, Objective
from ired_jax.types import Array, Energy, Example, Params, PartError, Tree, told

SMALLEST = 1e-6  # of a probability: below it a wrong answer is wrong enough
METRICS = {
    "proposal/error": ("per element", "of the answer after the last round"),
    "proposal/first": ("per element", "of the answer after the first round"),
}


def squared(bounds, answer: Tree, truth: Tree) -> Array:
    """mean (F - y_0)^2 over free elements: ()."""
    return boxes.mean_free(bounds, trees.squares(trees.subtract(answer, truth)))


def binary(bounds, answer: Tree, truth: Tree) -> Array:
    """mean -log((1 + y_0 F) / 2) over free elements, y_0 in +-1: nats, ()."""
    return boxes.mean_free(bounds, jax.tree.map(_surprise, answer, truth))


def categorical(bounds, answer: Tree, truth: Tree) -> Array:
    """The same over the free elements with y_0 = 1, of a one-hot y_0 in +-1: nats."""
    is_one = boxes.still(bounds, jax.tree.map(lambda y: jnp.float32(y > 0), truth))
    surprise = jax.tree.map(lambda m, *ys: m * _surprise(*ys), is_one, answer, truth)
    return trees.total(surprise) / jnp.maximum(trees.total(is_one), 1)


def _surprise(answer: Array, truth: Array) -> Array:
    return -jnp.log((1 + (1 - 2 * SMALLEST) * truth * answer) / 2)


ERRORS: dict[str, Callable] = {
    "squared": squared,
    "binary": binary,
    "categorical": categorical,
}


def make_proposal(
    schedule: Schedule,
    loss_energy: Energy,
    box: BoxFn,
    batch_size: int,
    block_rows: int | None = None,
    *,
    error: Annotated[
        str,
        Field(
            "of F: squared; for y in +-1 binary, or categorical (one-hot)",
            one_of=(*ERRORS,),
        ),
    ] = "squared",
    noise_share: Annotated[
        float,
        Field("rows of noise alone, at the smoothest level", at_least=0, at_most=1),
    ] = 0.25,
    own_share: Annotated[
        float, Field("rows on the model's own path", at_least=0, at_most=1)
    ] = 0.25,
    weight: Annotated[float, Field("of the term", above=0)] = 1.0,
    parts: Annotated[
        int,
        Field(
            "of the batch, each with its rows of each kind: one a device", at_least=1
        ),
    ] = 1,
) -> Objective:
    """Makes the objective.

    Raises:
      ValueError: shares of more than 1 together, an energy without a proposal, own rows
        on a schedule without noise, or parts that do not divide the batch; in the loss
        PartError: a proposal that does not give the answers of all rounds.
    """
    if batch_size % parts:
        raise ValueError(
            f"proposal.parts={parts}: must divide train.batch_size={batch_size}"
        )
    if noise_share + own_share > 1:
        raise ValueError(
            f"proposal.noise_share={noise_share}, proposal.own_share={own_share}: must"
            " be at most 1 together"
        )
    paths.refuse_without_noise(schedule, "proposal", own_share)
    if loss_energy.propose is None:
        raise ValueError("objectives: 'proposal' needs an energy with a network inside")

    def prepare(context: Context, memory: Tree, batch: Example):
        """{x, y0, y, t}: the first rows on the own path, the last ones of noise alone.

        The first and the last of each part of the batch.
        """
        denoise = partial(paths.by_proposal, loss_energy, context.params.energy)
        own = schedule, denoise, box, block_rows, own_share
        t, eps, y = paths.draw(*own, context, batch, parts)
        count, last = len(t), schedule.num_levels - 1
        of_part = count // parts
        noise = round(noise_share * of_part)
        if noise:
            place = jnp.arange(count)
            place = place if parts == 1 else place % of_part  # of one: the same bits
            is_noise = place >= of_part - noise
            t = jnp.where(is_noise, last, t)
            pure = jax.vmap(partial(_noise_alone, schedule, box))(batch.x, batch.y, eps)
            y = trees.where(is_noise, pure, y)
        return {"x": batch.x, "y0": batch.y, "y": y, "t": t}, memory, {}

    def loss(params: Params, own: Params, rows: Tree, context: Context):
        """The mean over rows and rounds, and that of the last and of the first one."""
        del own, context
        one = partial(_errors, loss_energy, box, ERRORS[error], params)
        row = [rows[name] for name in ("x", "y0", "y", "t")]
        value, *figures = map(jnp.mean, jax.vmap(one)(*row))
        return weight * value, dict(zip(METRICS, figures, strict=True))

    return Objective(prepare, loss, metrics=METRICS)


def _errors(
    energy: Energy,
    box: BoxFn,
    error: Callable,
    params: Params,
    x: Tree,
    y0: Tree,
    y: Tree,
    t: Array,
) -> tuple[Array, Array, Array]:
    """Of one row: the mean over rounds, and the last and the first of them."""
    answers = energy.propose(params, x, y, t)  # type: ignore[misc]
    of_round = jax.tree.map(lambda leaf: jnp.shape(leaf)[1:], answers)
    if of_round != jax.tree.map(jnp.shape, y0):
        raise PartError(
            f"energy: propose gives {told(answers)} for one example, must give the"
            f" answers of all rounds, [rounds, ..] of y, {told(y0)}"
        )
    bounds = box_of(box, x)
    errors = jax.vmap(lambda answer: error(bounds, answer, y0))(answers)
    return jnp.mean(errors), errors[-1], errors[0]


def _noise_alone(schedule: Schedule, box: BoxFn, x: Tree, y0: Tree, eps: Tree) -> Tree:
    """Where inference starts: noise, known elements at a_(T-1) times y_0."""
    bounds, a = box_of(box, x), schedule.a[-1]
    known = boxes.hold(bounds, jax.tree.map(jnp.zeros_like, y0))
    return jax.tree.map(lambda known, eps: a * known + eps, known, eps)
