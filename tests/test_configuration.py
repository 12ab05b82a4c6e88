"""What a person writes: config files, overrides; and the folder that a run gets."""

import json

import jax.numpy as jnp
import pytest
from absl import flags

from experiments import cli, configuration, evaluate, parts
from experiments.build import build, resolve
from experiments.errors import UserError
from experiments.run import workdir
from experiments.startup import startup_text
from experiments.sweeps import status
from ired_jax.tasks.base import Metric, Source, Task
from ired_jax.types import Example
from tests import tiny
from tests.mutants import Mutant, one

FULL = "--config=configs/cd_full.py:smoke"
NONE = "--config=configs/none.py:smoke"


def read(*arguments):
    values = cli.parse(["train", *arguments], cli.define_config)
    return cli.config_of(values)


def test_overrides_are_read_by_the_types_of_their_fields():
    config = read(
        "--config.train.beta1=0",
        FULL,
        "--config.sampler.adjusted=true",
        "--config.filter.thresholds=(1, 2.5)",
        "--config.filter.mode=fixed",
        "--config.task.n=3",
    )
    assert repr(config.train.beta1) == "0.0"
    assert config.sampler.adjusted is True
    assert config["filter"].thresholds == (1, 2.5)
    assert config.task.n == 3
    assert "quantile" not in config["filter"]  # it left with the mode that had it


def test_a_choice_is_read_before_what_depends_on_it():
    config = read(
        NONE,
        "--config.sampler.num_steps=5",
        "--config.negatives.strategy=langevin",
        "--config.objectives=denoising,contrast",
    )
    assert config.sampler.num_steps == 5


def test_without_a_config_there_is_none():
    values = cli.parse(["x"], lambda values: cli.define_config(values, required=False))
    assert cli.config_of(values) is None


REFUSED = [
    (("--config.train.num_steps=1.5", NONE), "num_steps=1.5: must be a whole number"),
    (("--config.train.beta1=x", NONE), "beta1=x: must be a number"),
    (("--config.eval.noise=2", NONE), "eval.noise=2: must be true or false"),
    (("--config.train.lr=1", NONE), "train.lr: there is no such field, nearest are"),
    (("--config.task.n", "3", NONE), "must be written --config.task.n=value"),
    (("task.n=3", NONE), "unexpected argument 'task.n=3'"),
    (("--seeds=3", NONE), "Unknown command line flag 'seeds'"),
    ((), "--config: is required"),
    (("--config=configs/no.py",), "is no config file, must be one of configs/"),
    (("--config=configs/base.py",), "has no get_config"),
    (("--config=configs/none.py:tpu",), "preset 'tpu' is unknown: allowed are mlp"),
    (
        ("--config.task.name=night.sorting", NONE),
        "sudoku, or a module on the path with a function make_sorting",
    ),
]


@pytest.mark.parametrize("arguments, sentence", REFUSED)
def test_bad_arguments_are_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_of_an_evaluation_without_a_config_is_refused():
    with pytest.raises(UserError, match=r"eval.num_steps: needs --config=.., such as"):
        evaluate.main(["evaluate", "--workdir=none", "--config.eval.num_steps=50"])


def _metric(better):
    return {"mse": Metric(lambda x, truth, answer: answer, better, "per element")}


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"metrics": _metric("lower")}, "better='lower' of mse, must be low or high"),
        ({"primary": "mse"}, "primary='mse', must be one of val/mse"),
        ({"splits": {}}, "splits is empty"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused_before_it_is_trained(change, sentence):
    source = Source(lambda data, key: Example((), jnp.float32(0)))
    task = Task(source, {"val": source}, _metric("high"), "val/mse")
    with pytest.raises(UserError, match=f"^task.name: {sentence}"):
        parts.known_of_task(task._replace(**change))


def test_the_folder_of_a_sweep_is_its_run_directories(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    (tmp_path / "b.log").touch()
    (tmp_path / status.FILE).touch()
    (tmp_path / "submitit").mkdir()
    (tmp_path / "b.part").mkdir()
    (tmp_path / "b.part" / "config.json").touch()
    points = {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert cli.run_directories([str(tmp_path)]) == points
    assert cli.run_directories(map(str, sorted(tmp_path.iterdir()))) == points
    alone = tmp_path / "b"
    assert cli.run_directories([str(alone)]) == {"b": alone}
    with pytest.raises(UserError, match=r"--runs=b\.log: are none, must be run dir"):
        cli.run_directories(["b.log"])


def test_help_follows_the_overrides_of_what_is_chosen(capsys):
    chosen = "--config.energy.name=mlp"
    for arguments, is_there in (((), False), ((chosen,), True)):
        with pytest.raises(SystemExit):
            read(FULL, *arguments, "--help")
        assert ("--config.energy.width=" in capsys.readouterr().out) == is_there


def test_help_shows_the_fields_of_the_config(capsys):
    with pytest.raises(SystemExit):
        read(FULL, "--help")
    shown = capsys.readouterr().out
    assert "--config.replay.capacity=64" in shown
    assert "rows a bucket (at least 1)" in shown
    assert "mixed_share" not in shown
    fields_shown = shown[shown.index("fields of this config") :]
    assert max(map(len, fields_shown.splitlines())) <= 80


NAMED = [
    ((FULL,), "cd_full-smoke"),
    ((FULL, "--config.seed=3", "--config.train.log_every=5"), "cd_full-smoke"),
    ((FULL, "--config.capacity=3"), None),
    ((FULL, "--config.replay.capacity=3"), "cd_full-smoke-capacity=3"),
    ((FULL, "--config.replay.capacity=64"), "cd_full-smoke"),
    (
        (FULL, "--config.sampler.num_steps=3", "--config.filter.mode=none"),
        "cd_full-smoke-mode=none-sampler.num_steps=3",
    ),
    (("--config", "configs/none.py"), "none"),
]


@pytest.mark.parametrize("arguments, name", NAMED)
def test_a_run_is_named_by_its_config_and_what_is_overridden(arguments, name):
    if name is None:
        with pytest.raises(UserError, match=r"nearest are replay.capacity"):
            cli.config_name(["train", *arguments])
    else:
        found = cli.config_name(["train", *arguments, "--workdir=elsewhere"])
        assert found == name


def test_long_names_do_not_meet():
    limits = [",".join([str(last)] * 40) for last in (1.5, 2.5)]
    names = {
        configuration.name_of(
            "configs/cd_full.py:smoke",
            {"filter.mode": "fixed", "filter.thresholds": text},
        )
        for text in limits
    }
    assert len(names) == 2
    assert all(len(name) <= configuration.LONGEST_NAME for name in names)


def test_a_folder_is_claimed_by_one_config(tmp_path):
    folder, config = tmp_path / "run", tiny.get_config("none")
    workdir.claim(folder, config)
    assert resolve(workdir.read_config(folder)) == resolve(config)
    workdir.claim(folder, tiny.get_config("none", train__log_every=20))
    with pytest.raises(UserError, match=r"task.n is 3 there and 2 here"):
        workdir.claim(folder, tiny.get_config("none", task__n=2))
    with pytest.raises(UserError, match=r"energy.width is None there and 8 here"):
        workdir.claim(folder, tiny.get_config("none", "smoke,mlp"))


def test_the_length_is_free_where_nothing_knows_it(tmp_path):
    longer = {"train__num_steps": 80}
    constant = {"train__lr_schedule": "constant"}
    workdir.claim(tmp_path / "a", tiny.get_config("none", **constant))
    workdir.claim(tmp_path / "a", tiny.get_config("none", **constant, **longer))
    workdir.claim(tmp_path / "b", tiny.get_config("none"))
    with pytest.raises(UserError, match=r"train.num_steps is 40 there and 80 here"):
        workdir.claim(tmp_path / "b", tiny.get_config("none", **longer))


def test_an_earlier_format_is_refused_in_a_sentence(tmp_path):
    content = {"config": {"task": {"n": 3}}, "commit": "abc"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is of format 1, must be 2") as caught:
        workdir.read_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_the_first_screen_fits(name):
    config = tiny.get_config(name)
    lines = startup_text(build(config), config).splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert "python/tuple" not in "".join(lines)


def test_the_first_screen_tells_that_adjusted_steps_depend_on_what_is_known():
    for changes, says in (
        ({}, False),
        ({"sampler__adjusted": True}, True),
        ({"sampler__adjusted": True, "sampler__step_size": 0.1}, False),
    ):
        config = tiny.get_config("cd_langevin", **changes)
        text = " ".join(startup_text(build(config), config).split())
        assert "chain step" in text
        assert ("more where elements are known" in text) == says


def test_flags_of_a_command_are_parsed_beside_the_config():
    def define(values):
        cli.define_config(values)
        flags.DEFINE_integer("count", 1, "of things", flag_values=values)

    values = cli.parse(["x", NONE, "--count=3", "--config.task.n=3"], define)
    assert (values.count, cli.config_of(values).task.n) == (3, 3)


MUTANTS = [
    Mutant(
        "cli",
        "what a sweep leaves beside its points is taken for a run",
        "experiments.cli",
        one("if is_beside(folder.name):", "if False:"),
        test_the_folder_of_a_sweep_is_its_run_directories,
    ),
    Mutant(
        "cli",
        "a copy on its way is one of a sweep's runs",
        "experiments.cli",
        one("for path in found if not is_beside(path.name)", "for path in found"),
        test_the_folder_of_a_sweep_is_its_run_directories,
    ),
]
