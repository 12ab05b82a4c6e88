"""Graphs, paths and tables through `solve`, by energies that are not trained."""

import jax
import numpy as np
import pytest

from experiments import solve
from experiments.build import build
from experiments.errors import UserError
from experiments.score import trained
from experiments.score.thinking import picture
from experiments.views.base import view_of
from tests import plain, tiny
from tests.mutants import Mutant, one

CHAIN = np.eye(3, k=1)
WAY = {"adjacency": CHAIN.tolist(), "start": 0, "goal": 2}
HOLES = np.float32([[0.5, np.nan, -0.2], [np.nan, 0.1, 0.4], [0.3, 0.2, np.nan]])


def untrained(monkeypatch, name, **changes):
    """What `solve` finds in the run directory: an energy of small weights."""
    config = tiny.get_config(name, **changes)
    experiment = build(config)
    rng, shapes = np.random.default_rng(0), experiment.shapes.params.energy
    params = jax.tree.map(
        lambda leaf: np.float32(rng.normal(0, 0.3, leaf.shape)), shapes
    )
    model = trained.Trained(experiment, config, params, step=0, seed=0)
    monkeypatch.setattr(trained, "load", lambda *_: model)
    return model


@pytest.mark.parametrize(
    "name, bad, good, says",
    [
        ("connectivity", CHAIN, CHAIN + CHAIN.T, "is not symmetric"),
        ("path", WAY | {"start": 2, "goal": 0}, WAY, "has no path"),
        ("completion", np.full_like(HOLES, np.nan), HOLES, "has nothing seen"),
    ],
)
def test_one_of_the_training_s_size_is_solved_and_watched_and_a_bad_one_is_named(
    monkeypatch, name, bad, good, says
):
    """Answers lie in the box of the last split, whose size is another."""
    experiment = untrained(monkeypatch, name, **plain.PROPOSING).experiment
    inputs = [bad, good] if name == "path" else np.stack([bad, good])
    answers = solve.load_solver("run")(inputs, 1)
    assert list(answers.refused) == [0]
    assert says in answers.refused[0]
    assert np.isnan(answers.y[0]).all()
    assert answers.y[1].shape == experiment.example.y.shape
    last = answers.thought.answers[-1]
    np.testing.assert_allclose(last, answers.y[1], atol=1e-3)


def test_a_search_is_asked_for_and_what_it_found_is_drawn_last(monkeypatch):
    untrained(monkeypatch, "sudoku", energy__name="tests.proposing")
    puzzles = ["1" + "." * 79 + "2"]
    plain = solve.load_solver("run")(puzzles).energy[0]
    answers = solve.load_solver("run", moves=4, move="assumption")(puzzles, 0)
    searched = answers.energy[0]
    assert searched < plain
    thought = answers.thought
    assert len(thought.energies) == thought.levels + 1 == 5
    assert thought.energies[-1] == pytest.approx(searched, rel=1e-5)
    np.testing.assert_allclose(thought.answers[-1], answers.y[0], atol=1e-5)
    view = view_of("sudoku")
    titles = [axis.get_title() for axis in picture(view, thought).axes]
    assert "after a search" in titles[4]
    with pytest.raises(UserError, match=r"eval.moves=-1: must be at least 0"):
        solve.load_solver("run", moves=-1)(puzzles)


MUTANTS = [
    Mutant(
        "solve",
        "what is watched has the size of the last split",
        "experiments.score.thinking",
        one("like=like, trace", "trace"),
        test_one_of_the_training_s_size_is_solved_and_watched_and_a_bad_one_is_named,
        {"name": "connectivity", "bad": CHAIN, "good": CHAIN + CHAIN.T, "says": ""},
        error=ValueError,
    ),
]
