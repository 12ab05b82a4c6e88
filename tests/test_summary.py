"""The steps since the last line: means, extremes, spikes, speed; and how a run ends."""

import json
import signal
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.run import summary
from experiments.run.interrupt import Interrupt
from experiments.run.meter import Meter, duration
from experiments.run.summary import JUMP, MOST_FILES, RING, Spikes
from tests.mutants import Mutant, one


def test_a_line_holds_mean_and_extremes_of_all_steps_and_seeds():
    pending = [
        {"train/loss": jnp.array([[1.0, 2.0]]), "norm/grad": jnp.ones((1, 2))},
        {
            "train/loss": jnp.array([[3.0, 6.0], [0.0, 0.0]]),
            "norm/grad": jnp.ones((2, 2)),
        },
    ]
    assert summary.length(pending) == 3
    row = summary.summarize(summary.fetch(pending), first_step=0)
    assert row["train/loss"] == 2.0
    assert (row["train/loss/min"], row["train/loss/max"]) == (0.0, 6.0)


def columns_of(**values) -> dict[str, np.ndarray]:
    """`train_loss` is `train/loss`: [steps], each of one seed."""
    arrays = {"train_loss": np.ones(len(next(iter(values.values()))))} | values
    return {
        name.replace("_", "/", 1): np.float32(value)[:, None]
        for name, value in arrays.items()
    }


def test_a_metric_that_nothing_was_measured_of_is_left_out():
    row = summary.summarize(
        columns_of(filter_q=[np.nan, 2.0, 4.0], filter_p=[np.nan] * 3), first_step=0
    )
    assert (row["filter/q"], row["filter/q/min"]) == (3.0, 2.0)
    assert "filter/p" not in row


@pytest.mark.parametrize(
    "metric, bad", [("train/loss", np.nan), ("norm/grad", np.inf), ("margin", np.inf)]
)
def test_what_is_not_finite_is_named_with_its_first_step(metric, bad):
    columns = columns_of(norm_grad=[1.0] * 4) | {"margin": np.ones((4, 1))}
    columns[metric][2:] = bad
    with pytest.raises(UserError, match=rf"^step 13: {metric} not finite"):
        summary.summarize(columns, first_step=10)


@pytest.mark.parametrize("cut, advice", [(0.9, "a larger sampler"), (0.0, "a lower")])
def test_chains_that_their_clip_held_back_are_named_as_the_reason(cut, advice):
    columns = columns_of(norm_grad=[1.0, 1.0, 1.0, np.inf, np.inf, np.inf, np.inf])
    share = np.float32([cut] * 3 + [1] * 4)  # of an energy that has run away, all
    with pytest.raises(UserError, match=rf"stays \(try {advice}"):
        summary.summarize(columns | {"chain/clipped": share[:, None]}, first_step=0)


def look(directory: Path, losses, lines: int = 1, **more) -> list[dict]:
    """The spike files of a run with those losses, fetched in so many lines."""
    spikes, first = Spikes(directory), 0
    for part in np.array_split(np.arange(len(losses)), lines):
        columns = columns_of(
            train_loss=np.array(losses)[part],
            **{name: np.array(values)[part] for name, values in more.items()},
        )
        spikes.look(columns, first_step=first)
        first += len(part)
    paths = (directory / "spikes").glob("step*.json")
    files = [json.loads(path.read_text()) for path in paths]
    return sorted(files, key=lambda file: file["step"])


@pytest.mark.parametrize("lines", [1, 7, 150])
def test_a_spike_is_written_with_the_steps_before_it(lines, tmp_path):
    grads = np.linspace(1, 2, 150)
    grads[129:] *= 2 * JUMP
    (file,) = look(tmp_path, np.ones(150), lines, norm_grad=grads)
    assert (file["step"], file["leaps"]) == (130, ["norm/grad"])
    assert file["steps"] == [*range(130 - RING + 1, 131)]
    np.testing.assert_array_equal(
        file["metrics"]["norm/grad"], np.float32(grads[130 - RING : 130])
    )


def test_no_spike_is_seen_in_a_quiet_run_or_before_there_is_a_usual(tmp_path):
    losses = np.concatenate([[1e6, 1e-3, 10.0], np.full(60, 1.0), [0.9 * JUMP], [0.0]])
    assert look(tmp_path, losses, 13) == []


def test_a_loss_that_is_not_finite_is_a_spike_at_once(tmp_path):
    (file,) = look(tmp_path, [1.0, np.nan, np.nan])
    assert file["step"] == 2
    assert np.isnan(file["metrics"]["train/loss"][-1])


def test_what_stops_a_run_is_written_also_soon_after_a_jump(tmp_path):
    losses, energies = np.ones(150), np.ones(150)
    losses[[100, 110]], energies[115] = 2 * JUMP, np.inf
    files = look(tmp_path, losses, energy_neg=energies)
    assert [file["step"] for file in files] == [101, 116]
    assert files[1]["leaps"] == ["energy/neg"]


def test_spikes_that_have_no_place_are_an_error_in_a_sentence(tmp_path):
    (tmp_path / "spikes").touch()
    with pytest.raises(UserError, match="spikes cannot be made: File exists"):
        look(tmp_path, [1.0, np.nan], 1)


def test_only_a_few_spikes_are_written_and_none_of_the_same_steps(tmp_path):
    losses = np.ones(10 * (RING + 1))
    losses[40::60] = -2 * JUMP
    steps = [file["step"] for file in look(tmp_path, losses, 101)]
    assert len(steps) == MOST_FILES
    assert np.min(np.diff(steps)) >= RING


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_the_rate_leaves_evaluation_out(monkeypatch):
    clock = Clock(monkeypatch)
    meter = Meter()
    clock.now += 2
    assert meter.rate(10) == 5.0
    clock.now += 50
    meter.restart()  # an evaluation has ended
    clock.now += 1
    assert meter.rate(3) == 3.0


def test_the_time_left_is_told_once_without_what_compiles(monkeypatch):
    clock = Clock(monkeypatch)
    meter = Meter()
    clock.now += 60  # compilation
    assert meter.forecast(10, 10_000, 30) is None
    clock.now += 1
    assert meter.forecast(20, 10_000, 30) is None  # too soon to be sure
    meter.rate(20)
    clock.now += 500
    meter.restart()  # an evaluation has ended
    clock.now += 4
    told = meter.forecast(30, 10_000, 30)
    assert told == "0.25 s a step, 42 min left, evaluations aside"
    assert meter.forecast(40, 10_000, 30) is None
    meter.rate(20)
    clock.now += 90
    meter.restart()
    told = meter.forecast(60, 10_000, 30)
    assert told == "2 min an evaluation, 8 h 18 min for 332 more"
    assert meter.forecast(70, 10_000, 30) is None


@pytest.mark.parametrize(
    "seconds, text",
    [(4.4, "4 s"), (65, "1 min"), (3600 * 3.5, "3 h 30 min"), (3600 * 49, "2 d 1 h")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_signal_is_a_flag_and_a_second_ctrl_c_does_not_wait():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not interrupt.is_set
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


SUMMARY = "experiments.run.summary"
METER, INTERRUPT = "experiments.run.meter", "experiments.run.interrupt"
MUTANTS = [
    Mutant(
        "summary",
        "what was clipped after the explosion counts",
        SUMMARY,
        one("[: first + 1]", "[:]"),
        test_chains_that_their_clip_held_back_are_named_as_the_reason,
        {"cut": 0.0, "advice": "a lower"},
    ),
    Mutant(
        "summary",
        "one dispatch of several in the mean",
        SUMMARY,
        one("np.concatenate([m[name] for m in fetched])", "fetched[-1][name]"),
        test_a_line_holds_mean_and_extremes_of_all_steps_and_seeds,
    ),
    Mutant(
        "summary",
        "the last step named instead of the first",
        SUMMARY,
        one("first = min(int(np.argmax(bad))", "first = max(len(bad) - 1"),
        test_what_is_not_finite_is_named_with_its_first_step,
        {"metric": "norm/grad", "bad": np.inf},
    ),
    Mutant(
        "summary",
        "what nothing was measured of stops a run",
        SUMMARY,
        one("else np.isinf(values)", "else np.isnan(values)"),
        test_a_metric_that_nothing_was_measured_of_is_left_out,
        error=UserError,
    ),
    Mutant(
        "spike",
        "the ring is forgotten at each line",
        SUMMARY,
        one("{name: values[-RING:] for name, values in joined.items()}", "{}"),
        test_a_spike_is_written_with_the_steps_before_it,
        {"lines": 7},
        error=ValueError,
    ),
    Mutant(
        "spike",
        "the steps after it",
        SUMMARY,
        one("v[max(end - RING, 0) : end]", "v[-RING:]"),
        test_a_spike_is_written_with_the_steps_before_it,
        {"lines": 1},
    ),
    Mutant(
        "spike",
        "a file for each step of it",
        SUMMARY,
        one("self._quiet_until = step + RING", "pass"),
        test_a_spike_is_written_with_the_steps_before_it,
        {"lines": 7},
        error=ValueError,
    ),
    Mutant(
        "summary",
        "the rate counts evaluations",
        METER,
        one(
            "self._pauses.append(time.monotonic() - self._since)\n        self.skip()",
            "self._pauses.append(time.monotonic() - self._since)",
        ),
        test_the_rate_leaves_evaluation_out,
    ),
    Mutant(
        "summary",
        "the first evaluation, which compiles, is that of all",
        METER,
        one("len(self._pauses) > 1", "self._pauses"),
        test_the_time_left_is_told_once_without_what_compiles,
    ),
    Mutant(
        "summary",
        "the time left counts evaluations",
        METER,
        one("self._stepping += now", "self._stepping += 500 + now"),
        test_the_time_left_is_told_once_without_what_compiles,
    ),
    Mutant(
        "summary",
        "the time left counts the compilation",
        METER,
        one("self._start = step, now", "self._start = step, 0.0"),
        test_the_time_left_is_told_once_without_what_compiles,
    ),
    Mutant(
        "interrupt",
        "handlers stay after the run",
        INTERRUPT,
        one("signal.signal(number, handler)", "pass"),
        test_a_signal_is_a_flag_and_a_second_ctrl_c_does_not_wait,
    ),
    Mutant(
        "interrupt",
        "a second Ctrl-C waits",
        INTERRUPT,
        one("raise KeyboardInterrupt", "pass"),
        test_a_signal_is_a_flag_and_a_second_ctrl_c_does_not_wait,
    ),
]
