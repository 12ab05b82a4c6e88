"""Trains a config, or resumes it.

python -m experiments.train --config=configs/cd_full.py:cpu
"""

from pathlib import Path

from absl import flags

from experiments import cli, devices
from experiments.run import code
from experiments.run.loop import train_and_evaluate


def define(values: flags.FlagValues) -> None:
    cli.define_config(values)
    flags.DEFINE_string(
        "workdir", None, "default: runs/<config>-seed<seed>", flag_values=values
    )
    flags.DEFINE_string(
        "commit", None, "train with the code of this commit alone", flag_values=values
    )
    flags.DEFINE_float(
        "report_every", 0.0, "seconds between two writings of <workdir>/report.html;"
        " 0: none", 0.0, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "coordinator", None, "host:port of process 0, of several", flag_values=values
    )
    flags.DEFINE_integer("num_processes", 1, "of the run", flag_values=values)
    flags.DEFINE_integer("process_id", 0, "of this one", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define)
    if values.commit:
        code.require(values.commit)
    devices.start(values.coordinator, values.num_processes, values.process_id)
    config = cli.config_of(values)
    default = f"runs/{cli.config_name(argv)}-seed{config.seed}"
    directory = Path(values.workdir or default)
    train_and_evaluate(config, directory, values.report_every)


if __name__ == "__main__":
    cli.run(main)
