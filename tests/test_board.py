"""The board energy has the symmetries of the game, and holds what is given."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.build import build
from ired_jax import diffusion
from ired_jax.energies import aimed, board
from ired_jax.energies.aimed import Answering
from ired_jax.tasks import sudoku
from tests import boards_of, tiny, toys
from tests.mutants import Mutant, one


@functools.cache
def _energy():
    schedule = diffusion.make_schedule("cosine", 4)
    how = Answering(rounds=3)
    energy = board.make_board(
        schedule, sudoku.box_of, channels=6, layers=2, rounds=2, answering=how
    )
    params = toys.drawn_params(energy)
    # A sharp answer: what it follows from is then seen in the energy.
    params["head"]["kernel"] *= 20
    return schedule, energy, params


@functools.cache
def _apply_and_propose():
    return toys.value_and_proposal(_energy()[1])


def _point(seed=0):
    x, y = boards_of.examples()
    y_t = y[0] + np.random.default_rng(seed).normal(size=y[0].shape)
    return x[0], np.float32(y_t)


def _game(kind):
    """(move of x, move of y): one kind of symmetry alone."""
    draws = np.random.default_rng(5)
    lines = np.arange(9)
    if kind == "digits":
        order = draws.permutation(9)
        new = np.append(0, 1 + np.argsort(order))
        return lambda x: new[x], lambda y: y[..., order]
    if kind == "transposed":
        return lambda x: x.T, lambda y: y.swapaxes(0, 1)
    if kind == "bands":
        lines = lines.reshape(3, 3)[[2, 0, 1]].ravel()
    if kind in ("rows in a band", "columns in a stack"):
        lines = lines[[0, 1, 2, 5, 3, 4, 7, 6, 8]]
    if kind in ("columns in a stack", "stacks"):
        if kind == "stacks":
            lines = np.arange(9).reshape(3, 3)[[1, 0, 2]].ravel()
        return lambda x: x[:, lines], lambda y: y[:, lines]
    return lambda x: x[lines], lambda y: y[lines]


KINDS = ("digits", "transposed", "bands", "stacks", "rows in a band")
KINDS += ("columns in a stack",)


@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_is_the_same_in_every_symmetry_and_its_proposal_moves_along(kind):
    both, (_, _, params) = _apply_and_propose(), _energy()
    (x, y), t = _point(), np.int32(2)
    of_x, of_y = _game(kind)
    moved = of_x(x), of_y(y)
    assert np.any(moved[0] != x)
    value, answers = both(params, x, y, t)
    same, found = both(params, *moved, t)
    np.testing.assert_allclose(same, value, rtol=1e-5)
    # The condition alone: it is not an energy that is blind to x.
    assert abs(both(params, moved[0], y, t)[0] - value) > 1e-4 * value
    assert np.any(np.abs(answers[1] - answers[0]) > 0.01)  # a second round does more
    for one_round, moved_round in zip(answers, found, strict=True):
        np.testing.assert_allclose(moved_round, of_y(one_round), atol=1e-3)


def test_what_is_no_symmetry_of_the_game_is_none_of_the_energy():
    both, (_, _, params) = _apply_and_propose(), _energy()
    (x, y), t = _point(), np.int32(2)
    order = np.array([3, 1, 2, 0, 4, 5, 6, 7, 8])  # rows of two bands
    value, _ = both(params, x, y, t)
    assert abs(both(params, x[order], y[order], t)[0] - value) > 1e-4 * value


def test_givens_are_put_in_for_y_and_have_no_gradient():
    _, energy, params = _energy()
    (x, y), t = _point(), np.int32(1)
    grad = np.asarray(toys.jit(jax.grad(energy, 2))(params, x, y, t))
    given = x > 0
    np.testing.assert_array_equal(grad[given], 0)
    assert np.all(np.any(grad[~given] != 0, axis=-1))
    other = np.where(given[..., None], np.float32(7), y)
    value, proposed = _apply_and_propose()(params, x, other, t)
    np.testing.assert_array_equal(value, _apply_and_propose()(params, x, y, t)[0])
    # The proposal holds them as they are.
    proposed = proposed[-1]
    truth = np.asarray(sudoku.encode(x))
    np.testing.assert_array_equal(proposed[given], truth[given])
    np.testing.assert_allclose(proposed.sum(-1), -7, atol=1e-4)


def test_the_energy_is_the_distance_of_the_free_elements_to_the_proposal():
    schedule, _, params = _energy()
    x, y = _point()
    for t in range(4):
        value, answers = _apply_and_propose()(params, x, y, np.int32(t))
        gap = np.float64(y - np.asarray(schedule.a)[t] * answers[-1])[x == 0]
        expected = np.sum(gap**2) / (2 * np.float64(schedule.s[t]))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_inference_has_rounds_of_its_own_and_denoises_by_the_proposal():
    _, energy, params = _energy()
    (x, y), t = _point(), np.int32(1)
    deeper = energy.answering

    @toys.jit
    def of_deeper(*point):
        return deeper(*point), deeper.propose(*point), deeper.denoise(*point)

    deep, answers, denoised = map(np.asarray, of_deeper(params, x, y, t))
    value, shallow = _apply_and_propose()(params, x, y, t)
    assert answers.shape == (3, 9, 9, 9)
    np.testing.assert_array_equal(answers[:2], shallow)
    np.testing.assert_array_equal(denoised, answers[-1])
    assert abs(deep - value) > 1e-3


@pytest.mark.parametrize("name", ["sudoku", "connectivity", "path"])
def test_rounds_in_a_loop_are_those_written_out(monkeypatch, name):
    experiment = build(tiny.get_config(name, energy__rounds=3))
    energy = experiment.energy
    # Nothing is known: all is proposed.
    x = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), experiment.example.x)
    rng = np.random.default_rng(1)
    y = np.float32(rng.normal(size=experiment.example.y.shape))
    params = jax.tree.map(
        lambda leaf: np.float32(rng.normal(size=leaf.shape) * leaf.size**-0.3),
        jax.eval_shape(energy.init, jax.random.key(0)),
    )
    written, looped = [], []
    for found, unrolled in ((written, 3), (looped, 2)):
        monkeypatch.setattr(aimed, "UNROLLED", unrolled)
        traced_anew = toys.jit(lambda *given: energy.propose(*given))
        found[:] = traced_anew(params, x, y, np.int32(0))
    np.testing.assert_allclose(looped, written, rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(written, axis=0)).max() > 1e-3


def test_a_steady_state_has_one_size_in_every_round_and_another_one_grows(monkeypatch):
    def sizes_of(network, step, carry, rounds):
        sizes = []
        for _ in range(rounds):
            carry = step(network, *carry)
            sizes.append(jnp.sqrt(jnp.mean(carry[0] ** 2, -1)))
        return jnp.stack(sizes)

    monkeypatch.setattr(board, "in_rounds", sizes_of)
    _, _, params = _energy()
    x, y = _point()
    known, y, is_free = (
        np.float32(part).reshape(3, 3, 3, 3, 9)
        for part in (sudoku.encode(x), y, np.repeat(x == 0, 9))
    )
    sizes = {}
    for steady in (False, True):
        network = board.Board(6, 2, 4, steady=steady)
        run = toys.jit(lambda *point, n=network: n.apply(*point, 3))
        point = {"params": params}, known, y, is_free, jnp.int32(1)
        sizes[steady] = np.asarray(run(*point))
    np.testing.assert_allclose(sizes[True], 1, rtol=1e-3)
    assert np.all(np.diff(sizes[False].mean(axis=(1, 2, 3, 4, 5))) > 0.3)


def test_the_first_state_is_noise_where_y_is_and_no_gradient_flows_through_it():
    y = np.float32(np.random.default_rng(1).normal(size=(9, 9, 9)))
    first = toys.jit(aimed.first_state, static_argnums=1)
    state = np.float64(first(y, 32)).reshape(-1, 32)
    # 23,328 draws: a mean has standard error .0065, a variance .0066.
    assert abs(state.mean()) < 0.03
    assert abs(state.var() - 1) < 0.03
    off = np.corrcoef(state.T)[np.triu_indices(32, 1)]
    assert np.sqrt(np.mean(off**2)) < 0.15
    grad = toys.jit(jax.grad(lambda y: aimed.first_state(y, 4).sum()))(y)
    np.testing.assert_array_equal(grad, 0)


def test_the_gradient_written_by_hand_is_that_of_the_layer_and_has_one_itself():
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(board.Weights(5).init, jax.random.key(0))["params"]

    def draw(shape):
        return np.float32(rng.normal(size=shape))

    weights = jax.tree.map(lambda leaf: draw(leaf.shape), shapes)
    args = weights, draw((3, 3, 3, 3, 9, 5)), draw((5,)), draw((5,))

    def total(layer, *args):
        return jnp.sum(jnp.sin(layer(*args)))

    def plain(*args):
        return board._forward(None, *args)[0]

    def slope(layer, *args):  # the norm of dE/dh, to be differentiated again
        return jnp.sum(jax.grad(total, 2)(layer, *args) ** 2)

    for of in (total, slope):
        grad = jax.jit(jax.grad(of, (1, 2, 3, 4)), static_argnums=0)
        found, expected = grad(board.layer, *args), grad(plain, *args)
        chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_energy_of_record_has_fewer_than_a_hundred_thousand_parameters():
    schedule = diffusion.make_schedule("cosine", 4)
    energy = board.make_board(schedule, sudoku.box_of)
    shapes = jax.eval_shape(energy.init, jax.random.key(0))
    assert 10_000 < sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 100_000
    with pytest.raises(ValueError, match="rounds=0"):
        board.make_board(schedule, sudoku.box_of, rounds=0)


MUTANTS = [
    Mutant(
        "rounds",
        "a loop of rounds begins anew in each",
        "ired_jax.energies.aimed",
        one("carry = step(network, *carry)", "carry = step(network, *first)"),
        test_rounds_in_a_loop_are_those_written_out,
        {"name": "sudoku"},
    ),
    Mutant(
        "sudoku",
        "the energy knows its rows from its columns",
        "ired_jax.energies.board",
        one(
            "z.mean(axes, keepdims=True) @",
            "z.mean(axes, keepdims=True) * (1 + (axes == (2, 3))) @",
        ),
        test_the_energy_is_the_same_in_every_symmetry_and_its_proposal_moves_along,
        {"kind": "transposed"},
    ),
    Mutant(
        "sudoku",
        "the layer's gradient forgets that z has the size of h",
        "ired_jax.energies.board",
        one("(to_z - z * along)", "to_z"),
        test_the_gradient_written_by_hand_is_that_of_the_layer_and_has_one_itself,
    ),
    Mutant(
        "sudoku",
        "a steady state grows",
        "ired_jax.energies.board",
        one("return unit if steady else h", "return h"),
        test_a_steady_state_has_one_size_in_every_round_and_another_one_grows,
    ),
    Mutant(
        "sudoku",
        "the energy moves givens",
        "ired_jax.energies.aimed",
        one("gap = boxes.still(box(x) if box else None, gap)", "gap = gap"),
        test_givens_are_put_in_for_y_and_have_no_gradient,
    ),
]
