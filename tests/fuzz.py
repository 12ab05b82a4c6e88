"""Configs and input files that nobody would write: they run, or one sentence says why.

    python -m tests.fuzz --configs=2000 --files=500

Fields, types and limits are those that the makers declare, so that a new field is drawn
without a word here. `tests/test_fuzz.py` draws a few of each in the suite.
"""

import collections
import contextlib
import functools
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import hypothesis
import jax
import pytest
from absl import flags
from hypothesis import strategies as st

from experiments import cli, configuration, fields
from experiments.build import build, make_experiment
from experiments.data import sudoku as puzzles
from experiments.errors import UserError
from experiments.schema import schema
from tests import boards_of, files, tiny
from tests.answered import FIELDS, in_time, refuse_unless_sentence, try_file

SLOW = 20.0  # seconds, told
MOST_BYTES = 8 * 2**30  # what takes more is a failure, not the end of the machine
NUMBERS = (0, 1, -1, 2, 3, 7, 10, 64, 1000, 10**6, 10**13, 2**31, 2**63, 10**400)
REALS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-30, 1e-300, 1e30, 1e300, 2.5, 1e9)
REALS += (float("nan"), float("inf"), -float("inf"))
TEXTS = ("", "none", "none such", "a.b", ".", "..", "os", "a\nb", "\0", "é" * 300)
GARBAGE = (None, True, 3, -0.5, "x", "1", (), (1,), ("a", "a"), (None,), [1], {}, b"x")
GARBAGE += ({"a": 1}, 1j, float("nan"), object)


@contextlib.contextmanager
def few_puzzles():
    """Sudokus that are made once, however many are asked for; files are read."""
    sets = boards_of.sets()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puzzles, "_filled_up", lambda *_: sets["minimal"])
        patch.setattr(puzzles, "_made", lambda stream, *_: sets[stream.split()[1]])
        patch.setattr(puzzles, "_read", lambda path: None)
        patch.setattr(puzzles, "write_bytes", lambda *_: None)
        yield


# --- configs -------------------------------------------------------------------------


@functools.cache
def given_of(name: str, presets: str) -> dict[str, Any]:
    """The fields of a config, small."""
    return dict(fields.flatten(tiny.get_config(name, presets)))


def values_of(spec) -> st.SearchStrategy:
    """Of one field: allowed ones, its limits and beside them, and of other types."""
    field, near = spec.field, []
    for limit in (field.at_least, field.above, field.at_most, field.below):
        if limit is not None:
            near += [limit - 1, limit, limit + 1, limit / 2]
    makers = getattr(spec.part, "makers", ())
    names = tuple(makers) if isinstance(makers, collections.abc.Mapping) else ()
    good = (spec.default, field.other, *field.one_of, *names)
    known = st.sampled_from([value for value in good if value is not None])
    if spec.kind is int:
        near = [int(value) for value in near]
        usual = st.sampled_from([*near, *NUMBERS]) | st.integers(-3, 40)
    elif spec.kind is float:
        usual = st.sampled_from([*map(float, near), *REALS]) | st.floats(-2, 2)
    elif spec.kind is bool:
        usual = st.booleans()
    elif spec.kind is tuple:
        parts = st.sampled_from([*names, *REALS]) | st.integers(-2, 40)
        usual = st.lists(parts, max_size=12).map(tuple)
    else:
        usual = st.sampled_from(TEXTS) | st.text(max_size=8)
    often = st.one_of(usual, usual, known, known)
    return st.one_of(often, often, often, often, st.sampled_from(GARBAGE))


@st.composite
def configs(draw, names=tuple(tiny.NAMES)) -> tuple[str, str, dict[str, Any]]:
    """(config, presets, other values of some fields), a field that it has not at times.

    Each change is drawn among the fields that the changes before it leave.
    """
    name = draw(st.sampled_from(names))
    more = st.sampled_from(("", "", "", ",mlp", ",classic", ",net", ",cpu"))
    presets = "smoke" + draw(more)
    given, changes = given_of(name, presets) if takes(name, presets) else {}, {}
    for _ in range(draw(st.integers(1, 4))):
        try:
            there = schema(make_experiment, {**given, **changes})
        except Exception:  # what is raised here is raised where it is tried
            break
        if draw(st.integers(0, 19)) == 0:
            field = draw(st.sampled_from([*sorted(FIELDS), "task", "train.none", ""]))
            changes[field] = draw(st.sampled_from(GARBAGE))
        else:
            spec = draw(st.sampled_from(list(there.values())))
            changes[spec.name] = draw(values_of(spec))
    return name, presets, changes


def takes(name: str, presets: str) -> bool:
    try:
        given_of(name, presets)
    except UserError:
        return False
    return True


def try_config(name: str, presets: str, changes: dict, *, step: bool) -> str:
    """`runs`, or the sentence that refuses it.

    The changes are values, and where each can be written on a command line, texts too:
    both ways say the same. With `step` a train step of what is built is traced.
    """
    ways = [lambda given: fields.nest(fields.replace(make_experiment, given, changes))]
    if all(isinstance(value, int | float | str | tuple) for value in changes.values()):
        texts = {key: configuration.show(value) for key, value in changes.items()}
        ways.append(lambda given: configuration.overridden(given, texts))
    said = []
    for way in ways:
        try:
            with in_time():
                experiment = build(way(given_of(name, presets)))
                if step and way is ways[0]:
                    state = experiment.shapes
                    jax.eval_shape(
                        experiment.step_fns[-1], state, experiment.train_data
                    )
            said.append("runs")
        except UserError as error:
            refuse_unless_sentence(str(error), FIELDS | {*changes})
            said.append(str(error))
    return said[0]


# --- the command ---------------------------------------------------------------------


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("configs", 2_000, "to draw", 0, flag_values=values)
    flags.DEFINE_integer("files", 500, "to draw for each task", 0, flag_values=values)
    flags.DEFINE_integer("step_every", 20, "built: one traced", 1, flag_values=values)


def drawn(strategy: st.SearchStrategy, count: int, check, *, seed: int = 0) -> list:
    """[(case, what was raised)] of `count` draws, each once; nothing is shrunk."""
    bad = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def look(case):
        try:
            check(case)
        except Exception as error:
            bad.append((case, error))

    look()
    return bad


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    warnings.simplefilter("ignore")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    total, counts = 0, collections.Counter()

    def config(case):
        name, presets, changes = case
        if not takes(name, presets):
            counts["configs: no such preset"] += 1
            return
        step = counts["configs: run"] % values.step_every == 0
        begun = time.monotonic()
        said = try_config(name, presets, changes, step=step)
        if (seconds := time.monotonic() - begun) > SLOW:
            print(f"{seconds:.0f} s: {case}", flush=True)
        counts[f"configs: {'run' if said == 'runs' else 'refused'}"] += 1

    with few_puzzles():
        if values.configs:
            total += _told("configs", drawn(configs(), values.configs, config))
        with tempfile.TemporaryDirectory() as folder:
            for task in files.TASKS if values.files else ():

                def file(case, task=task):
                    said = try_file(task, *case, Path(folder))
                    how = "run" if said == "runs" else "refused"
                    counts[f"files of {task}: {how}"] += 1

                total += _told(task, drawn(files.of(task), values.files, file))
    print(json.dumps(counts, indent=2))
    print(f"{total} failures")
    sys.exit(bool(total))


def _told(what: str, bad: list) -> int:
    """Prints each kind of failure once, with its shortest case."""
    kinds: dict[str, list] = {}
    for case, error in bad:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
        text = str(error).split("\n")[0][:100]
        kinds.setdefault(f"{type(error).__name__} {place} {text}", []).append(case)
    for kind, cases in kinds.items():
        case = min(map(repr, cases), key=len)
        print(f"{what}: {len(cases)} x {kind}\n    {case[:600]}", flush=True)
    return len(bad)


if __name__ == "__main__":
    cli.run(main)
