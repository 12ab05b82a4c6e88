"""Trains a config, or resumes it.

python -m experiments.train --config=configs/cd_full.py:cpu
"""

from pathlib import Path

from absl import flags

from experiments import cli, devices
from experiments.run.loop import train_and_evaluate


def define(values: flags.FlagValues) -> None:
    cli.define_config(values)
    flags.DEFINE_string(
        "workdir", None, "default: runs/<config>-seed<seed>", flag_values=values
    )
    flags.DEFINE_string(
        "coordinator", None, "host:port of process 0, of several", flag_values=values
    )
    flags.DEFINE_integer("num_processes", 1, "of the run", flag_values=values)
    flags.DEFINE_integer("process_id", 0, "of this one", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    devices.start(values.coordinator, values.num_processes, values.process_id)
    config = cli.config_of(values)
    default = f"runs/{cli.config_name(argv)}-seed{config.seed}"
    train_and_evaluate(config, Path(values.workdir or default))


if __name__ == "__main__":
    cli.run(main)
