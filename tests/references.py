"""NumPy float64 oracles: the same mathematics by another way.

Nothing here imports the library. Gradients come from complex steps, laws from closed
forms or from moments that follow the chain, probabilities from quadrature.
"""

from collections import deque
from fractions import Fraction
from functools import partial
from math import floor

import numpy as np
from scipy import special, stats

# --- schedule ---------------------------------------------------------------------


def schedule(kind, num_levels):
    """beta, alpha_bar, a, s of every level, level by level."""
    if kind == "cosine":

        def f(i):
            return np.cos((i / num_levels + 0.008) / 1.008 * np.pi / 2) ** 2

        beta = [min(1 - f(i + 1) / f(i), 0.999) for i in range(num_levels)]
    else:
        first, last = 0.1 / num_levels, 20 / num_levels
        beta = [
            first + (last - first) * i / (num_levels - 1) for i in range(num_levels)
        ]
    alpha_bar = [np.prod([1 - b for b in beta[: i + 1]]) for i in range(num_levels)]
    beta, alpha_bar = np.array(beta), np.array(alpha_bar)
    return beta, alpha_bar, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)


# --- formats ----------------------------------------------------------------------


def rounded(z, bits):
    """z to nearest, ties to even, with `bits` stored bits of mantissa."""
    mantissa, exponent = np.frexp(np.float64(z))
    return np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)


def rounded_quadratic(weight, x, y, bits):
    """E = |y W - x|^2 / 2, g = dE/dy and d(|g|^2 / 2)/dW, operands R-rounded."""
    cut = partial(rounded, bits=bits)
    out = cut(y) @ cut(weight) - x
    grad = cut(out) @ cut(weight).T
    # g = out W^T and out = y W - x:  dL/dW = g (x) out + y (x) dL/dout, dL/dout = g W
    of_out = cut(grad) @ cut(weight)
    of_weight = np.outer(cut(grad), cut(out)) + np.outer(cut(y), cut(of_out))
    return np.sum(out**2) / 2, grad, of_weight


# --- energies ---------------------------------------------------------------------


def swish(z):
    return z / (1 + np.exp(-z))


def gelu(z):
    return z * (1 + special.erf(z / np.sqrt(2))) / 2


def affine(layer, z):
    return z @ layer["kernel"] + layer.get("bias", 0)


def mlp_energy(params, x, y, t, *, is_scalar):
    """E of a batch y [N, D] at one x and t, with the formulas of the method.

    Everything is analytic, so complex y or complex parameters give derivatives.
    """
    frequency = np.exp(-np.log(1e4) / 63 * np.arange(64))
    time = np.concatenate([np.sin(t * frequency), np.cos(t * frequency)])
    embedding = params["time"]
    time = affine(embedding["Dense_1"], gelu(affine(embedding["Dense_0"], time)))
    first = {  # one layer on [x, y]
        "kernel": np.concatenate(
            [params["fc1_x"]["kernel"], params["fc1_y"]["kernel"]]
        ),
        "bias": params["fc1_x"]["bias"],
    }
    x = np.broadcast_to(x, (len(y), len(x)))
    h = swish(affine(first, np.concatenate([x, y], axis=1)))
    for layer, modulation in (("fc2", "modulate2"), ("fc3", "modulate3")):
        both = affine(params[modulation], time)
        gain, bias = both[: len(both) // 2], both[len(both) // 2 :]
        h = swish(affine(params[layer], h) * (1 + gain) + bias)
    out = affine(params["fc4"], h)
    return out[:, 0] if is_scalar else np.sum(out**2, axis=1)


def matrix_energy(params, x, y, t, *, is_direct):
    """E of a batch y [N, D] at one x and t: loops over maps, no stacked product."""
    n = round(len(x) ** 0.5)
    a = np.reshape(x, (n, n))
    scale = np.linalg.norm(a.T @ a) ** 0.5
    base = [a / scale, a.T / scale, np.eye(n)]
    maps = _mix(params["input"], base)
    for layer in range(sum(name.startswith("product_") for name in params)):
        weights, both = params[f"product_{layer}"], maps + base
        pairs = zip(
            _mix(weights["left"], both), _mix(weights["right"], both), strict=False
        )
        added = _mix(weights["out"], [left @ right for left, right in pairs])
        maps = [old + new for old, new in zip(maps, added, strict=True)]
    left, right, offset = (
        _mix(params[name], maps + base) for name in ("left", "right", "offset")
    )
    if not is_direct:
        left = [
            u @ b for u, b in zip(left, _mix(params["left_a"], base[:2]), strict=True)
        ]
        right = [
            d @ v for d, v in zip(_mix(params["right_a"], base[:2]), right, strict=True)
        ]
    frequency = np.exp(-np.log(1e4) / 15 * np.arange(16))
    time = np.concatenate([np.sin(t * frequency), np.cos(t * frequency)])
    gains = params["gains"]
    gain = 1 + affine(gains["Dense_1"], swish(affine(gains["Dense_0"], time)))
    layers = [
        params[f"answer_{layer}"]
        | {"maps": _mix(params[f"answer_{layer}"]["maps"], maps + base)}
        for layer in range(sum(name.startswith("answer_") for name in params))
    ]
    values = []
    for m in np.reshape(y, (-1, n, n)):
        stack = [
            gain[d] * (left[d] @ m + m @ right[d])
            - gain[len(left) + d] * offset[d] / scale
            for d in range(len(left))
        ]
        for layer in layers:
            stack = _answer_layer(layer, stack)
        values.append(sum(np.sum(np.square(o)) for o in stack))
    return np.stack(values)


def _answer_layer(layer, stack):
    """O_d + sum_c M_dc Z_c Q_c + sum_c M_d,c+C Z_c G_c."""
    z = _mix({"weight": layer["left"]}, stack)
    q = _mix({"weight": layer["right"]}, stack)
    products = [zc @ qc for zc, qc in zip(z, q, strict=True)]
    products += [zc @ gc for zc, gc in zip(z, layer["maps"], strict=True)]
    added = _mix({"weight": layer["out"]}, products)
    return [old + new for old, new in zip(stack, added, strict=True)]


def _mix(layer, maps):
    return [
        sum(w * m for w, m in zip(row, maps, strict=True)) for row in layer["weight"]
    ]


def spectrally_normalised(params):
    """Every matrix over its largest singular value, by a full decomposition.

    The singular vectors are those of the real part, so complex steps go through
    sigma = u' W v: the theorem of first-order perturbation.
    """
    if isinstance(params, dict):
        return {name: spectrally_normalised(leaf) for name, leaf in params.items()}
    if params.ndim != 2:
        return params
    u, _, vt = np.linalg.svd(np.real(params))
    return params / (u[:, 0] @ params @ vt[0])


def input_gradient(value, y, step=1e-30):
    """dE/dy by complex steps: exact to rounding. `value` maps [N, D] to [N]."""
    return np.imag(value(y + 1j * step * np.eye(len(y)))) / step


def float64(tree):
    """A dict of arrays, nested, in float64."""
    if isinstance(tree, dict):
        return {name: float64(branch) for name, branch in tree.items()}
    return np.asarray(tree, np.float64)


# --- Langevin chains --------------------------------------------------------------


def plain_law(mean, variance, *, step_sizes, precision, temperature=1.0):
    """Mean and variance after plain steps on U = precision y^2 / 2, step by step."""
    for h in step_sizes:
        r = 1 - h * precision
        mean, variance = r * mean, r**2 * variance + 2 * h * temperature
    return mean, variance


def plain_law_vector(mean, covariance, *, step, num_steps, precision, centre):
    """The same on U = (y - centre)' precision (y - centre) / 2."""
    r = np.eye(len(mean)) - step * precision
    for _ in range(num_steps):
        mean = centre + r @ (mean - centre)
        covariance = r @ covariance @ r.T + 2 * step * np.eye(len(mean))
    return mean, covariance


def stationary_acceptance(step, dim, points=400):
    """Mean acceptance of an adjusted chain at rest on U = |y|^2 / 2.

    log alpha = (|y|^2 - |y'|^2) step / 4 with y' = (1 - step) y + sqrt(2 step) xi: a
    quadratic form of each pair (y_i, xi_i), so two independent chi squares, integrated
    at their quantiles.
    """
    r, noise = 1 - step, np.sqrt(2 * step)
    form = np.array([[1 - r**2, -r * noise], [-r * noise, -(noise**2)]])
    low, high = np.linalg.eigvalsh(form)
    chi2 = stats.chi2.ppf((np.arange(points) + 0.5) / points, dim)
    log_alpha = step / 4 * (low * chi2[:, None] + high * chi2)
    return np.mean(np.exp(np.minimum(log_alpha, 0)))


def acceptance(energy, gradient, y, new, *, step, temperature):
    """min(1, pi(y') q(y | y') / pi(y) q(y' | y)), densities written out.

    `gradient` is the drift's, so a clip belongs in it.
    """

    def log_pi(point):
        return -energy(point) / temperature

    def log_q(to, start):
        mean = start - step * gradient(start)
        return np.sum(stats.norm.logpdf(to, mean, np.sqrt(2 * step * temperature)))

    log_alpha = log_pi(new) + log_q(y, new) - log_pi(y) - log_q(new, y)
    return np.exp(min(log_alpha, 0))


def truncated_normal_variance(bound):
    """Of N(0, 1) held to +-bound."""
    inside = 2 * stats.norm.cdf(bound) - 1
    return 1 - 2 * bound * stats.norm.pdf(bound) / inside


# --- descent and inference --------------------------------------------------------


def descend(energy, gradient, y, *, step_sizes, bounds=np.inf):
    """The released form: the energy is evaluated again at each step's two ends."""
    accepted = []
    for step in step_sizes:
        new = np.clip(y - step * gradient(y), -bounds, bounds)
        accepted.append(energy(new) < energy(y))
        y = new if accepted[-1] else y
    return y, accepted


def solve(energy, gradient, levels, y, *, num_steps, bounds, is_doubled):
    """All levels from the smoothest: y_0 after each, from the start noise y."""
    beta, _, a, s = levels
    answers, shares = [], []
    for t in reversed(range(len(beta))):
        y0 = np.clip((y - s[t] * gradient(y, t)) / a[t], -bounds, bounds)
        steps = [
            beta[t] / s[t] * (2 if is_doubled and k else 1) for k in range(num_steps)
        ]
        y, accepted = descend(
            lambda z, t=t: energy(z, t),
            lambda z, t=t: gradient(z, t),
            a[t] * y0,
            step_sizes=steps,
            bounds=bounds * a[t],
        )
        answers.append(y / a[t])
        shares.append(sum(accepted) / max(num_steps, 1))
        y = a[t - 1] * answers[-1] if t else y
    return answers, shares, energy(y, 0)


# --- replay -----------------------------------------------------------------------


class Deques:
    """The buffer on the host: one deque a bucket, one row at a time."""

    def __init__(self, num_buckets, capacity):
        self.rows = [deque(maxlen=capacity) for _ in range(num_buckets)]

    def insert(self, rows, bucket):
        for i, b in enumerate(bucket):
            self.rows[b].append({name: array[i] for name, array in rows.items()})


def bucket_of(t, num_levels, num_buckets):
    """floor(t / (T - 1) (buckets - 1)), in exact fractions."""
    return floor(Fraction(int(t), max(num_levels - 1, 1)) * (num_buckets - 1))


# --- losses -----------------------------------------------------------------------


def two_way_cross_entropy(u_pos, u_neg):
    """-log softmax of the logits (-U+, -U-) at the positive."""
    logits = np.stack([-u_pos, -u_neg])
    return special.logsumexp(logits, axis=0) - logits[0]


# --- matrices ---------------------------------------------------------------------


def newton_schulz(a, num_steps):
    """Y <- 2 Y - Y A Y from A' / (|A|_1 |A|_inf)."""
    y = a.T / (np.linalg.norm(a, 1) * np.linalg.norm(a, np.inf))
    for _ in range(num_steps):
        y = 2 * y - y @ a @ y
    return y


# --- statistics -------------------------------------------------------------------


def chi_square_limit(num_cells, probability=1 - 1e-6):
    """Above it a chi-square statistic of equal cells is no accident."""
    return stats.chi2.ppf(probability, num_cells - 1)
