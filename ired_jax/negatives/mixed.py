"""Some rows by one strategy, the rest by another."""

from typing import Annotated

import jax

from ired_jax import blocks
from ired_jax.fields import Field, Part
from ired_jax.negatives.adversarial import make_adversarial
from ired_jax.negatives.base import Strategy
from ired_jax.negatives.noise import make_noise


def make_mixed(
    *,
    first: Annotated[Strategy, Part(make_noise)],
    second: Annotated[Strategy, Part(make_adversarial)],
    share: Annotated[
        float,
        Field("of the rows by `noise`", above=0, below=1, name="mixed_share"),
    ] = 0.7,
) -> Strategy:
    """The first round(share N) rows by `first`, the rest by `second`.

    Rows are independent draws, so a fixed split has the law of a coin for each row with
    less variance, and no row is refined in vain.
    """

    def split(rows):
        cut = round(share * rows["t"].shape[0])
        parts = slice(cut), slice(cut, None)
        return [jax.tree.map(lambda leaf, p=p: leaf[p], rows) for p in parts]

    def halves(key, rows):
        # One key for both would give their rows the same noise.
        return zip((first, second), jax.random.split(key), split(rows), strict=True)

    def start(key, rows, progress):
        parts = halves(key, dict(rows))
        return blocks.joined(*(s.start(key, part, progress) for s, key, part in parts))

    def refine(key, landscape, rows, y, progress):
        parts = halves(key, {**rows, "y": y})
        refined = (
            s.refine(key, landscape, part, part["y"], progress)
            for s, key, part in parts
        )
        return blocks.joined(*refined)

    return Strategy(start, refine, second.precision)
