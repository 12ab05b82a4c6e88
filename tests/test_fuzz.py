"""A few of what `python -m tests.fuzz` draws by the thousand, and what it has found."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from experiments.build import build, make_experiment
from experiments.errors import UserError
from experiments.schema import everything
from experiments.views import arrays, inverse
from tests import answered, files, fuzz, tiny
from tests.mutants import Mutant, one

FEW = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "phases": [hypothesis.Phase.generate],
    "suppress_health_check": list(hypothesis.HealthCheck),
}
# Their smoke configs build in a tenth of a second.
QUICK = ("none", "cd_full", "density_pcd", "nce_random")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@hypothesis.settings(max_examples=40, **FEW)
@hypothesis.given(fuzz.configs(QUICK))
def test_a_config_that_nobody_would_write_runs_or_is_refused(case):
    name, presets, changes = case
    if fuzz.takes(name, presets):
        fuzz.try_config(name, presets, changes, step=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("task", ["connectivity", "inverse", "path", "sudoku"])
def test_a_file_that_nobody_would_write_runs_or_is_refused(task, tmp_path):
    @hypothesis.settings(max_examples=30, **FEW)
    @hypothesis.given(files.of(task))
    def look(case):
        with fuzz.few_puzzles():
            answered.try_file(task, *case, tmp_path)

    look()


FOUND = [
    ("none", "objectives", (1,), "objectives=1: allowed are"),
    ("none", "diffusion.num_levels", 10**9, "diffusion.num_levels=1000000000: must be"),
    ("density", "diffusion.num_levels", 2, "diffusion.num_levels=2: a clean schedule"),
    ("none", "train.num_seeds", 10**9, "train.num_seeds=1000000000: must be"),
    ("none", "energy.layers", 10**9, "energy.layers=1000000000: must be"),
    ("sudoku", "energy.layers", 999, "energy.layers=999: must be"),
    ("none", "energy.channels", 2**31, "energy.channels=2147483648: must be"),
    ("cd_full", "negatives.level_high", 0.0, "negatives.level_low=0.2: must be at"),
    ("density_pcd", "energy.layers", 10**9, "energy.layers=1000000000: must be"),
    ("sudoku", "data.val_file", "1", "data.val_file=1: "),
    ("sudoku", "data.train_file", "a\0b", "data.train_file="),
]


@pytest.mark.parametrize("name, field, value, says", FOUND)
def test_a_config_that_the_fuzzer_found_is_refused(name, field, value, says):
    with fuzz.few_puzzles(), pytest.raises(UserError) as caught:
        build(tiny.get_config(name, **{field.replace(".", "__"): value}))
    assert str(caught.value).startswith(says)


BROKEN = {
    "a header that does not end": files.header("(3, 3"),
    "a header of more than there is": files.header("(1000000, 1000000)"),
    "an archive that is none": b"PK\x03\x04" * 9,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_an_array_that_the_fuzzer_found_is_refused(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npy: is not a readable \.npy file$"):
        arrays.read_npy(str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    "scale, says", [(1e300, "beyond what float32 holds"), (1e-300, "is singular")]
)
def test_a_matrix_beyond_float32_is_refused(scale, says):
    (said,) = inverse.check(scale * np.eye(3)[None])
    assert says in said


@hypothesis.settings(max_examples=5, **FEW)
@hypothesis.given(st.data())
def test_every_field_has_values_to_draw(data):
    for spec in everything(make_experiment):
        data.draw(fuzz.values_of(spec))


ARRAYS = "experiments.views.arrays"
MUTANTS = [
    Mutant(
        "fuzz",
        "a header that does not end is a traceback",
        ARRAYS,
        one("SyntaxError, tokenize.TokenError, ", "SyntaxError, "),
        test_an_array_that_the_fuzzer_found_is_refused,
        {"content": BROKEN["a header that does not end"]},
        error=Exception,
    ),
    Mutant(
        "fuzz",
        "a matrix is checked in float64 alone",
        "experiments.views.inverse",
        one("matrix.astype(np.float32).astype", "matrix.astype"),
        test_a_matrix_beyond_float32_is_refused,
        {"scale": 1e300, "says": "beyond what float32 holds"},
        error=TypeError,
    ),
    Mutant(
        "fuzz",
        "an objective that is no name is a traceback",
        "ired_jax.fields",
        one("if not isinstance(name, str):", "if False:"),
        test_a_config_that_the_fuzzer_found_is_refused,
        dict(zip(("name", "field", "value", "says"), FOUND[0], strict=True)),
    ),
]
