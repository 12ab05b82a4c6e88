"""Turns a PyTorch checkpoint of the published layout into a run directory.

python -m experiments.import_torch --checkpoint=model-50.pt --workdir=runs/published
python -m experiments.import_torch --checkpoint=model-50.pt --workdir=runs/published \
    --config=configs/none.py:mlp --config.task.n=10

The task is that of the config; the network's width and head are those of the file.
`evaluate`, `solve` and the others then read it like a run of ours. The file may be a
whole checkpoint (`model`, `ema`, `step`, ...) or a bare state dict. It is read with
`weights_only=True`: nothing in it is executed. Needs torch, of the `bench` extra.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from configs import none
from experiments import cli, fields
from experiments.build import build, make_experiment
from experiments.errors import UserError
from experiments.run import workdir
from experiments.run.checkpoint import Checkpoints
from experiments.run.logs import say
from ired_jax import convert
from ired_jax.convert import Converted

AVERAGE = "ema_model."  # the average's prefix beside `online_model.`


def define(values: flags.FlagValues) -> None:
    cli.define_config(values, required=False)
    flags.DEFINE_string("checkpoint", None, "file to read", flag_values=values)
    flags.DEFINE_string("workdir", None, "run directory to make", flag_values=values)
    flags.DEFINE_float(
        "input_grad_divisor",
        1.0,
        "what the input gradient was divided by in training (a batch size), if it was",
        flag_values=values,
    )
    flags.mark_flags_as_required(["checkpoint", "workdir"], flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    config = cli.config_of(values)
    import_checkpoint(
        Path(values.checkpoint),
        Path(values.workdir),
        config=config,
        input_grad_divisor=values.input_grad_divisor,
    )


def import_checkpoint(
    path: Path,
    directory: Path,
    *,
    config: ConfigDict | None = None,
    input_grad_divisor: float = 1.0,
) -> None:
    """Writes the run directory: raw and averaged parameters, and a fresh optimizer.

    Args:
      path: the checkpoint file.
      directory: a new run directory.
      config: of the run, around the reference network; None: configs/none.py:mlp. Its
        width and head become the file's.
      input_grad_divisor: see `convert.from_state_dict`.

    Raises:
      UserError: the file cannot be read, holds no such network, or does not fit, or the
        directory holds a run.
    """
    content = _read(path)
    options = {"input_grad_divisor": input_grad_divisor}
    try:
        raw = convert.from_state_dict(_arrays(content.get("model", content)), **options)
        average = raw
        if isinstance(content.get("ema"), Mapping):
            arrays = _arrays(content["ema"])
            prefix = _average_prefix(arrays)
            average = convert.from_state_dict(arrays, prefix=prefix, **options)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if average[1:] != raw[1:]:
        raise UserError(f"{path}: model and ema are networks of different sizes")
    given = fields.flatten(none.get_config("mlp") if config is None else config)
    sizes = {"energy.width": raw.width, "energy.head": raw.head}
    config = fields.nest(fields.replace(make_experiment, given, sizes))
    experiment = build(config)
    if len(experiment.seeds) > 1:
        raise UserError(
            f"train.num_seeds={len(experiment.seeds)}: must be 1, a file is of one"
        )
    state = experiment.init_state()
    _check_fits(path, state.params.energy, raw)
    state = state._replace(
        step=jnp.int32(_step(content)),
        params=state.params._replace(energy=raw.params),
        ema_params=state.ema_params._replace(energy=average.params),
    )
    with (
        workdir.held(directory, config, experiment.task),
        Checkpoints(directory, experiment.task) as checkpoints,
    ):
        if checkpoints.steps:
            raise UserError(f"--workdir={directory}: holds a run, must be a new folder")
        checkpoints.save(state, None)
        checkpoints.wait()
    say(f"{path}: step {int(state.step)}, {raw.head} head, written to {directory}")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise UserError("torch is missing: pip install 'ired_jax[bench]'") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: cannot be read as weights alone ({line})") from error
    model = content.get("model", content) if isinstance(content, Mapping) else content
    for state in (content, model):
        if not isinstance(state, Mapping):
            raise UserError(f"{path}: holds {type(state).__name__}, not a state dict")
    return content


def _arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a state dict as NumPy arrays, float32 where they are floating."""
    arrays = {}
    for name, value in state.items():
        if isinstance(name, str) and hasattr(value, "detach"):
            value = value.detach()
            arrays[name] = (
                value.float() if value.is_floating_point() else value
            ).numpy()
    return arrays


def _average_prefix(arrays: Mapping[str, np.ndarray]) -> str | None:
    averages = [p for p in convert.prefixes(arrays) if p.startswith(AVERAGE)]
    return averages[0] if averages else None


def _step(content: Mapping[str, Any]) -> int:
    step = content.get("step", 0)
    return int(step) if isinstance(step, int) and 0 <= step < 2**31 else 0


def _check_fits(path: Path, params: Any, converted: Converted) -> None:
    shapes = {name: _kernel(layer) for name, layer in params.items()}
    theirs = {name: _kernel(layer) for name, layer in converted.params.items()}
    if shapes != theirs:
        raise UserError(
            f"{path}: an mlp with x_size={converted.x_size} and"
            f" y_size={converted.y_size}, which is not the config's energy"
        )


def _kernel(layer: Mapping[str, Any]) -> tuple[int, ...] | None:
    return layer["kernel"].shape if "kernel" in layer else None


if __name__ == "__main__":
    cli.run(main)
