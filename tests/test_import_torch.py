"""A published checkpoint file becomes a run directory that the commands read."""

import json
import pickle

import jax
import numpy as np
import pytest
import torch

from benchmarks import torch_baseline
from configs import none
from experiments import import_torch
from experiments.errors import UserError
from experiments.score import trained
from ired_jax import convert
from tests.mutants import Mutant, one

N = 2

CONFIG = none.get_config("mlp")
CONFIG.task.n, CONFIG.energy.width = N, 8  # the width is the file's


def published(tmp_path, **changes):
    """A file laid out as the released trainer saves it; the average differs."""
    torch.manual_seed(0)
    model = torch_baseline.Model(N * N, N * N)
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {"betas": torch.zeros(10), "loss_weight": torch.ones(10)}
    average = {f"online_model.{k}": v for k, v in state.items()}
    average |= {f"ema_model.{k}": v * 0.5 for k, v in state.items()}
    average |= {"initted": torch.tensor([True]), "step": torch.tensor([70])}
    content = {"step": 700, "model": state, "ema": average, "opt": {}, "scaler": None}
    path = tmp_path / "model-1.pt"
    torch.save(content | changes, path)
    return path, state


def imported(path, folder, config=CONFIG):
    import_torch.import_checkpoint(path, folder / "run", config=config)


def test_the_average_of_a_published_file_is_what_commands_read(tmp_path):
    path, state = published(tmp_path)
    imported(path, tmp_path)
    model = trained.load(tmp_path / "run")
    arrays = {name: 0.5 * value.numpy() for name, value in state.items()}
    expected = convert.from_state_dict(arrays).params
    jax.tree.map(np.testing.assert_array_equal, model.params, expected)
    assert model.step == 700
    assert model.config.task.n == N
    assert model.config.energy.name == "mlp"
    assert model.config.energy.width == convert.from_state_dict(arrays).width
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["primary"] in record["metrics"]


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    path, _ = published(tmp_path)
    imported(path, tmp_path)
    with pytest.raises(UserError, match="run: holds a run, must be a new folder"):
        imported(path, tmp_path)


def test_a_bare_state_dict_is_a_checkpoint_too(tmp_path):
    _, state = published(tmp_path)
    path = tmp_path / "bare.pt"
    torch.save(state, path)
    imported(path, tmp_path)
    model = trained.load(tmp_path / "run")
    arrays = {name: value.numpy() for name, value in state.items()}
    expected = convert.from_state_dict(arrays).params
    jax.tree.map(np.testing.assert_array_equal, model.params, expected)


class Malicious:
    """Unpickled as objects, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_the_file_is_executed(tmp_path):
    path, marker = tmp_path / "bad.pt", tmp_path / "executed"
    path.write_bytes(pickle.dumps({"model": Malicious(marker)}))
    with pytest.raises(UserError, match="cannot be read as weights alone"):
        imported(path, tmp_path)
    assert not marker.exists()
    assert not (tmp_path / "run").exists()


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: cannot be read"):
        imported(tmp_path / "none.pt", tmp_path)
    path, _ = published(tmp_path, model={"weight": torch.ones(2)})
    with pytest.raises(UserError, match="no name of the state dict ends in"):
        imported(path, tmp_path)
    path, _ = published(tmp_path)
    for config in (None, none.get_config(), none.get_config("mlp,smoke")):
        with pytest.raises(UserError, match=r"not the config's|only with energy.name"):
            imported(path, tmp_path, config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content, said",
    [
        ({"model": [1, 2]}, "holds list, not a state dict"),
        ({"model": "weights"}, "holds str, not a state dict"),
        ({"model": {3: torch.ones(2)}}, "no name of the state dict ends in"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_sentence(content, said, tmp_path):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=rf"other\.pt: {said}"):
        imported(path, tmp_path)


def test_a_step_beyond_all_runs_is_none():
    assert import_torch._step({"step": 2**31 - 1}) == 2**31 - 1
    assert import_torch._step({"step": 2**31}) == 0


def test_one_file_makes_no_run_of_several_seeds(tmp_path):
    path, config = published(tmp_path)[0], CONFIG.copy_and_resolve_references()
    config.train.num_seeds = 2
    with pytest.raises(UserError, match=r"train\.num_seeds=2: must be 1"):
        imported(path, tmp_path, config)
    assert not (tmp_path / "run").exists()


MUTANTS = [
    Mutant(
        "convert",
        "what an imported run is scored by is not said",
        "experiments.import_torch",
        one("config, experiment.task)", "config)"),
        test_the_average_of_a_published_file_is_what_commands_read,
        error=KeyError,
    ),
    Mutant(
        "convert",
        "the width and the head of a file are those of the config",
        "experiments.import_torch",
        one("given, sizes)", "given, {})"),
        test_the_average_of_a_published_file_is_what_commands_read,
        error=UserError,
    ),
    Mutant(
        "convert",
        "an import into a run is dropped without a word",
        "experiments.import_torch",
        one("if checkpoints.steps:", "if False:"),
        test_a_folder_that_holds_a_run_is_refused,
        error=pytest.fail.Exception,
    ),
]
