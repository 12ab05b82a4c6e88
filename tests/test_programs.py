"""Compiled phases: the first is not kept waiting, the later ones fail early."""

import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from experiments.run.programs import Programs
from tests.mutants import Mutant, one

STEPS, LATE = 4, 2  # of the run, and where its second phase begins


class Lowered:
    """Of a phase: waits for `when`, then compiles or fails."""

    def __init__(self, phase: int, when: threading.Event):
        self.phase, self.when, self.fails = phase, when, False

    def lower(self, state, data):
        assert not isinstance(state, jax.Array)  # whose memory a step takes
        assert self.when.wait(5), "the first step waits for a phase that is not its own"
        return self

    def compile(self):
        if self.fails:
            raise MemoryError("too large")
        sizes = {"argument": 1, "output": 1, "alias": 1, "temp": self.phase}
        sizes = {f"{name}_size_in_bytes": n * 2**30 for name, n in sizes.items()}
        return Compiled(self.phase, SimpleNamespace(**sizes))


class Compiled:
    """Adds the phase to the state, beside what it was given as data."""

    def __init__(self, phase: int, sizes: SimpleNamespace):
        self.phase, self.sizes = phase, sizes

    def __call__(self, state, data):
        return state + self.phase, data

    def memory_analysis(self):
        return self.sizes


def run_of(begun: threading.Event) -> tuple[SimpleNamespace, dict[int, Lowered]]:
    """An experiment of two phases, the later compiled when the run has begun."""
    at_once = threading.Event()
    at_once.set()
    phases = {0: Lowered(0, at_once), 1: Lowered(1, begun)}
    experiment = SimpleNamespace(
        phases=((0, ("denoising",)), (LATE, ("denoising", "contrast"))),
        phase_at=lambda step: int(step >= LATE),
        periods=SimpleNamespace(num_steps=STEPS),
        train_data=jnp.arange(3),
        mesh=None,
        dispatch=phases.get,
    )
    return experiment, phases


def test_the_first_step_waits_for_its_own_phase_alone():
    begun = threading.Event()
    experiment, _ = run_of(begun)
    with Programs(experiment, jnp.zeros(()), 0) as programs:
        (text,) = programs.news(0)
        assert "1 GiB with activations" in text
        assert "from step" not in text
        state, data = programs(jnp.zeros(()), 0)
        assert (state, data.shape) == (0, (3,))
        assert not programs.are_ready()
        begun.set()
        (text,) = programs.news(LATE)
        assert "from step 2 on: 2 GiB with activations" in text
        assert programs(state, LATE)[0] == 1
        assert programs.are_ready()
        assert not [*programs.news(LATE)]  # told once


def test_a_run_that_ends_early_says_what_it_waits_for(capsys):
    begun = threading.Event()
    experiment, _ = run_of(begun)
    with Programs(experiment, jnp.zeros(()), 0) as programs:
        [*programs.news(0)]
        threading.Timer(0.2, begun.set).start()
    assert "waiting for a later phase" in capsys.readouterr().out


def test_a_run_that_resumes_compiles_what_is_left():
    experiment, phases = run_of(threading.Event())
    phases[1].when.set()
    with Programs(experiment, jnp.zeros(()), LATE + 1) as programs:
        (text,) = programs.news(LATE + 1)
        assert "from step" not in text
        assert programs.are_ready()
    phases[0].fails = phases[1].fails = True
    with Programs(experiment, jnp.zeros(()), STEPS) as programs:
        assert programs.are_ready()  # nothing is left


def test_a_phase_that_does_not_fit_fails_before_it_is_reached():
    begun = threading.Event()
    experiment, phases = run_of(begun)
    phases[1].fails = True
    with Programs(experiment, jnp.zeros(()), 0) as programs:
        [*programs.news(0)]
        begun.set()
        programs._pool.shutdown()  # the thread has come to its end
        with pytest.raises(MemoryError, match="too large"):
            [*programs.news(1)]


PROGRAMS = "experiments.run.programs"
MUTANTS = [
    Mutant(
        "run",
        "all phases are compiled before the first step",
        PROGRAMS,
        one(
            "self._programs[self._phase_at(step)].result()\n        for",
            "[each.result() for each in self._programs.values()]\n        for",
        ),
        test_the_first_step_waits_for_its_own_phase_alone,
    ),
    Mutant(
        "run",
        "a phase that does not fit fails when it is reached",
        PROGRAMS,
        one("if self._programs[phase].done():", "if phase <= self._phase_at(step):"),
        test_a_phase_that_does_not_fit_fails_before_it_is_reached,
        error=pytest.fail.Exception,
    ),
    Mutant(
        "run",
        "a run that resumes compiles the phases behind it, too",
        PROGRAMS,
        one("range(experiment.phase_at(step), len", "range(0, len"),
        test_a_run_that_resumes_compiles_what_is_left,
        error=ValueError,
    ),
]
