"""The least error that any answer to completion has: two bounds on it, by sampling.

    python -m experiments.data.completion --count=400 --sweeps=400

On the first held-out matrices of both sets, in NumPy float64. Of squared error the best
answer is the mean of y given x, and its error that of the noise plus the variance of
L = c U V^T given what is seen.

- **Below**: Gibbs sampling of U given V and V given U, begun at the true factors. They
  are a draw from the law given x, so the chain is at its stationary law from the start.
  Half the mean square distance of L and of the state after V has been drawn K times is
  var L - cov(g(V_0), g(V_K)), g(V) = E[L | V, x], and every such covariance is at least
  0: the chain of V is reversible and positive. At K = 0 it is the error of one who is
  told V, and it grows with K to the bound.
- **Above**: the error of the mean over a chain that was begun anywhere. No answer is
  better than the best one.

Source: this project; covariances of Gibbs chains as in Liu, Wong, Kong, Biometrika
81(1), 1994.
"""

import argparse
from typing import NamedTuple

import jax
import numpy as np

from experiments.run import logs
from experiments.score.scorer import held_out_key
from ired_jax.tasks import completion

SETS = {"val": completion.SCALE, "ood": completion.SCALE_HARDER}
RANK = 10


class Rows(NamedTuple):
    """N held-out matrices of one set, float64."""

    values: np.ndarray  # [N, n, m] what is seen, else 0
    seen: np.ndarray  # [N, n, m] 1 or 0
    truth: np.ndarray  # [N, n, m] y
    u: np.ndarray  # [N, n, k]
    v: np.ndarray  # [N, m, k]


class Bounds(NamedTuple):
    """Mean squared errors over all elements, [N] each."""

    copying: np.ndarray  # of 0 where unseen
    told: np.ndarray  # of the best answer of one who knows V
    below: np.ndarray
    above: np.ndarray


def draw_rows(split: str, count: int, n: int = 20) -> Rows:
    """The rows that models are scored on, and their factors."""
    key = held_out_key([*SETS].index(split))

    def one(index):
        row_key = jax.random.fold_in(key, index)
        options = {"shape": (n, n), "rank": RANK, "scale": SETS[split]}
        return completion.draw(row_key, **options)

    (x, y), factors = jax.jit(jax.vmap(one))(np.arange(count))
    x, y, u, v = (np.asarray(a, np.float64) for a in (x, y, *factors))
    return Rows(x[:, 0], x[:, 1], y, u, v)


def bounds(rows: Rows, scale: float, noise: float, sweeps: int, seed: int) -> Bounds:
    """Both bounds of each matrix, after `sweeps` sweeps of both chains."""
    rng, unseen = np.random.default_rng(seed), 1 - rows.seen
    share = unseen.mean(axis=(1, 2))
    signal = scale * rows.u @ _t(rows.v)

    def error(answer, truth):
        return np.mean((answer - truth) ** 2 * unseen, axis=(1, 2))

    def draw(v, values, seen):
        return regressed(rng, v, values, seen, scale, noise)

    def sweep(v):
        u, _ = draw(v, rows.values, rows.seen)
        return draw(u, _t(rows.values), _t(rows.seen))[0]

    from_truth, anywhere = rows.v, rng.normal(size=rows.v.shape)
    distances, mean, kept = [], 0.0, 0
    for step in logs.track(range(sweeps + 1), f"{len(share)} matrices: sweeps"):
        u, _ = draw(from_truth, rows.values, rows.seen)
        distances.append(error(scale * u @ _t(from_truth), signal) / 2)
        _, u = draw(anywhere, rows.values, rows.seen)
        if step >= sweeps // 4:
            mean, kept = mean + scale * u @ _t(anywhere), kept + 1
        if step < sweeps:
            from_truth, anywhere = sweep(from_truth), sweep(anywhere)
    of_noise = noise**2 * share
    return Bounds(
        copying=error(0, rows.truth),
        told=of_noise + distances[0],
        # Later distances are bounds too, each with noise of its own: their mean.
        below=of_noise + np.mean(distances[sweeps // 2 :], axis=0),
        above=of_noise + error(mean / kept, signal),
    )


def regressed(
    rng, v: np.ndarray, values: np.ndarray, seen: np.ndarray, scale: float, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """U given V and what is seen, [N, n, k]: a draw, and the mean.

    The rows of U are independent normals with precision I + (c / s)^2 sum_j v_j v_j^T
    over the seen j, and mean that times (c / s^2) sum_j x_j v_j.
    """
    count, m, k = v.shape
    pairs = (v[..., :, None] * v[..., None, :]).reshape(count, m, k * k)
    precision = (scale / noise) ** 2 * (seen @ pairs).reshape(*seen.shape[:2], k, k)
    root = np.linalg.inv(np.linalg.cholesky(precision + np.eye(k)))
    whitened = root @ (scale / noise**2 * (seen * values) @ v)[..., None]
    noises = rng.normal(size=whitened.shape)
    mean, move = _t(root) @ whitened, _t(root) @ noises
    return (mean + move)[..., 0], mean[..., 0]


def _t(stack: np.ndarray) -> np.ndarray:
    return np.swapaxes(stack, -1, -2)


def with_error(values: np.ndarray, copying: np.ndarray) -> str:
    """Mean, and its ratio to copying on the same matrices with a standard error."""
    ratio = values.mean() / copying.mean()
    deviation = (values - ratio * copying).std(ddof=1) / copying.mean()
    error = deviation / len(values) ** 0.5
    return f"{values.mean():.5f}, {ratio:.4f} +- {error:.4f} of copying"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=400, help="matrices of each set")
    parser.add_argument("--sweeps", type=int, default=400, help="of each chain")
    parser.add_argument("--seed", type=int, default=0, help="of the chains")
    parser.add_argument(
        "--splits", nargs="+", choices=SETS, default=tuple(SETS), help="which sets"
    )
    given = parser.parse_args()
    for split in given.splits:
        scale = SETS[split]
        rows = draw_rows(split, given.count)
        found = bounds(rows, scale, completion.NOISE, given.sweeps, given.seed)
        for name, values in found._asdict().items():
            print(f"{split:4} {name:8} {with_error(values, found.copying)}", flush=True)


if __name__ == "__main__":
    main()
