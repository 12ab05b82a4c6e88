"""One page of runs: what differs, figures with tests, curves, compute, diagnosis, cost.

python -m experiments.report runs/none-cpu-seed0 runs/cd_full-cpu-seed0

Runs that differ in their seeds alone are one config. Writes a page that needs no other
file, readable without script, and the same as Markdown beside it.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from experiments.errors import UserError
from experiments.reporting import content, page, runs, studies
from experiments.run.files import write_bytes
from experiments.run.logs import say


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        "runs", "", "run directories; as bare arguments, too", flag_values=values
    )
    flags.DEFINE_list(
        "studies", "", "files .json of compute and judge, beside those that lie with"
        " the runs", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string("output", "runs/report.html", "the page", flag_values=values)


def main(argv: list[str]) -> None:
    values = cli.parse(argv, define, rest="runs")
    output = Path(values.output)
    if output.suffix != ".html":
        raise UserError(f"--output={output}: must be a .html file, the .md is beside")
    found = [runs.read(path) for path in cli.run_directories(values.runs).values()]
    told = content.page(found, studies.sections(found, map(Path, values.studies)))
    output = cli.output_path(output)
    write_bytes(output, page.html(told).encode())
    write_bytes(output.with_suffix(".md"), page.markdown(told).encode())
    say(f"page: {output}, as Markdown: {output.with_suffix('.md')}")


if __name__ == "__main__":
    cli.run(main)
