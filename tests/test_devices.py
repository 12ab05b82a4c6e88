"""One run over many devices and processes: the numbers of one, and few bytes moved."""

import contextlib
import socket
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.devices import collectives
from experiments import devices, figures
from experiments import train as command
from experiments.build import build
from experiments.errors import UserError
from experiments.run import loop, workdir
from experiments.run.logs import read_rows
from experiments.score.scorer import Scorer
from ired_jax import blocks
from tests import plain, simulated, tiny
from tests.mutants import Mutant, one
from tests.runs import EVERY_STEP, last_state, stop_at, train

# Together every task and every objective, with rings and filter, whole and in parts;
# and each of their networks, once.
ONE_ROUND = {"energy.rounds": 1}
CONFIGS = {
    "addition": {},
    "addition unrolled": plain.of(4) | {"objectives": ("unrolled",)},
    "completion": ONE_ROUND,
    "connectivity": ONE_ROUND,
    "path": ONE_ROUND,
    "sudoku": ONE_ROUND,
    "sudoku in parts": plain.PROPOSING | {"proposal.parts": 8},
    "cd_full": {},
    "density_pcd": {"train.num_seeds": 2},
    "density_pcd in parts": plain.of(4) | {"negatives.parts": 8},
}
STEPS = 2
SPREAD = 1e-4  # of a float32 sum in another order; some chains amplify it more


def experiment_of(name: str):
    fields = {k.replace(".", "__"): v for k, v in CONFIGS[name].items()}
    options = {"train__steps_per_dispatch": 1, "train__batch_size": 16, **fields}
    # Adam divides by the gradient: where that is 0, its last bits are a whole step.
    options |= {"train__learning_rate": 1e-5}
    return build(tiny.get_config(name.split()[0], **options))


# What runs on eight devices


def compare(*names):
    """{config: [largest difference between the states of 1 and of 8 devices, ...]}."""
    return {name: _difference(experiment_of(name)) for name in names}


def _difference(experiment):
    states = []
    for mesh in (None, experiment.mesh):
        of_mesh = experiment._replace(mesh=mesh)
        step, state = of_mesh.dispatch(), jax.jit(of_mesh.init_state)()
        for _ in range(STEPS):
            state, metrics = step(state, experiment.train_data)
        states.append((state._replace(key=()), metrics))
    assert experiment.mesh.size == 8
    return max(jax.tree.leaves(jax.tree.map(_far, *states)), default=0.0)


def _far(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    far = np.abs(a - b) / (1 + np.abs(a))
    return float(np.max(np.where(np.isnan(a) & np.isnan(b), 0, far), initial=0))


def moved(*names):
    """Bytes of each kind of collective of a step, and of the parameters."""
    found = []
    for experiment in map(experiment_of, names):
        state = experiment.abstract_state
        program = experiment.dispatch().lower(state, experiment.train_data).compile()
        size = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
        found.append((collectives(program.as_text()), size))
    return found


def toy(num_rows, block_rows):
    """Losses, gradients and rows of 1 and of 8 devices, and the bytes that move."""
    rng = np.random.default_rng(num_rows)
    rows = jnp.float32(rng.normal(size=(num_rows, 3)))
    params = jnp.float32(rng.normal(size=3))

    def loss(params, rows):
        return jnp.mean(jnp.tanh(rows @ params)), {"mean": jnp.mean(rows)}

    def both(params, rows):
        squares = blocks.vmap(lambda row: row**2, block_rows)(rows)
        return blocks.value_and_grad(loss, block_rows)(params, rows), squares

    mesh = devices.mesh_of(jax.devices())
    shared = devices.jit(lambda *a: (a[0], both(*a)), mesh, None)
    text = shared.lower(params, rows).compile().as_text()
    found = jax.tree.map(_far, both(params, rows), shared(params, rows)[1])
    return max(jax.tree.leaves(found)), collectives(text).get("all-reduce", 0)


def answers():
    """Figures of 16 answers, and how many of their 8 blocks each device solves."""
    config = tiny.get_config(
        "cd_full", **plain.of(4), eval__block=2, eval__batch_size=16
    )
    experiment, share_out, shares = build(config), devices.share_out, set()
    params = devices.everywhere(experiment.energy.init(jax.random.key(0)))

    def watched(fn):
        def counted(whole, rows):
            shares.add(len(jax.tree.leaves(rows)[0]))
            return fn(whole, rows)

        return share_out(counted)

    devices.share_out = watched  # in a process of its own
    return Scorer(experiment).score(params, 16), shares


def resume(directory, num_steps, stop=None):
    """Trains on; the step that it ends at, and how many devices there were."""
    config = config_of_run(num_steps)
    # A single process tells that it was interrupted, several end well.
    with contextlib.suppress(UserError if jax.process_count() == 1 else ()):
        train(stop_at(stop, config) if stop else config, Path(directory))
    return jax.device_count()


def pictures(directory):
    """The last pictures of a run, of an energy that knows nothing."""
    experiment = build(workdir.read_config(Path(directory)))
    params = devices.everywhere(experiment.energy.init(jax.random.key(0)))
    rows, scorer = [{"step": 1, "train/loss": 1.0}], Scorer(experiment)
    figures.write_all(experiment, scorer, params, rows, Path(directory))


# Claims


@pytest.mark.long
@pytest.mark.parametrize("names", [tuple(CONFIGS)], ids=["all"])
def test_a_config_gives_the_same_on_one_device_and_on_eight(names):
    """Parameters, moments, averages, rings and metrics, after two steps."""
    differences = simulated.result_of(simulated.start(compare, *names))
    assert set(differences) == set(names)
    assert {n: d for n, d in differences.items() if not d < SPREAD} == {}


@pytest.mark.parametrize("num_rows, block_rows", [(64, None), (64, 2), (61, 2), (5, 2)])
def test_rows_in_blocks_on_each_device_give_one_gradient(num_rows, block_rows):
    """Also rows that the devices do not divide; gradients move once, not by block."""
    difference, reduced = simulated.result_of(
        simulated.start(toy, num_rows, block_rows)
    )
    assert difference < 1e-6
    if num_rows % 8 == 0:
        assert reduced == 4 * (3 + 1 + 1)


def test_rings_in_parts_move_nothing_but_gradients():
    (whole, _), (parts, size) = simulated.result_of(
        simulated.start(moved, "density_pcd", "density_pcd in parts")
    )
    assert whole["all-gather"] > 0
    assert set(parts) == {"all-reduce"}
    assert size <= parts["all-reduce"] < size + 100  # and some scalars


def test_answers_are_shared_out_and_are_the_same():
    (one, all_rows), (eight, shares) = (
        simulated.result_of(simulated.start(answers, count=n)) for n in (1, 8)
    )
    assert (all_rows, shares) == ({8}, {1})
    chex.assert_trees_all_close(one, eight, rtol=1e-5)


def config_of_run(num_steps: int):
    options = EVERY_STEP | {"train__num_steps": num_steps, "train__eval_every": 2}
    options |= {"train__batch_size": 16, "negatives__parts": 8} | plain.of(4)
    return tiny.get_config("density_pcd", **options)


@pytest.mark.long
def test_two_processes_answer_for_the_pictures_that_one_writes(tmp_path):
    config = tiny.get_config("none", eval__block=2, eval__batch_size=4, **plain.of(4))
    workdir.claim(tmp_path, config)
    address = free_address()
    children = [
        simulated.start(pictures, str(tmp_path), count=1, hosts=(address, 2, index))
        for index in range(2)
    ]
    for child in children:
        simulated.result_of(child)
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert drawn == {
        *("learning_curves", "answers", "energy_by_level", "energy_along_chains")
    }


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.mark.long
def test_a_run_goes_from_one_device_to_eight_to_two_processes_and_back(tmp_path):
    """It ends like the undisturbed one. A signal to one process saves and ends both."""
    config, length = config_of_run(8), 8
    train(config, tmp_path / "one")
    moving = tmp_path / "moving"
    resume(moving, length, 1)
    assert simulated.result_of(simulated.start(resume, str(moving), length, 3)) == 8
    address = free_address()
    children = [
        simulated.start(
            *(resume, str(moving), length, 5 if index == 1 else None),
            count=1,
            hosts=(address, 2, index),
        )
        for index in range(2)
    ]
    assert [simulated.result_of(child) for child in children] == [2, 2]
    assert last_state(moving, config).step in (5, 6)
    assert not (moving / "result.json").exists()
    train(config, moving)
    states = [last_state(tmp_path / name, config) for name in ("one", "moving")]
    chex.assert_trees_all_close(
        *(state._replace(key=()) for state in states), rtol=0.01, atol=0.01
    )
    # One process writes: each step stands there once.
    assert [row["step"] for row in read_rows(moving)] == [*range(1, length + 1)]
    events = list((moving / "tensorboard").iterdir())
    assert len(events) == 4


def test_the_first_of_several_processes_writes(monkeypatch):
    assert devices.is_writer()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert not devices.is_writer()


def test_pre_emption_ends_several_processes_well_and_tells_a_single_one(monkeypatch):
    state = build(tiny.get_config("none", **plain.of(4))).init_state()
    with pytest.raises(UserError, match="interrupted at step 0, saved"):
        loop._interrupted(state)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert loop._interrupted(state) is state


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--num_processes=2"], "--coordinator: must be host:port"),
        (
            ["--coordinator=a:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2: must be at least 0 and below --num_processes=2",
        ),
    ],
)
def test_processes_that_cannot_meet_are_refused(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        command.main(["train", "--config=configs/none.py:smoke", *flags])


@pytest.mark.parametrize("rows, used", [(16, 8), (12, 6), (7, 7), (1, None)])
def test_as_many_devices_as_divide_the_rows_are_used(rows, used, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [f"device {i}" for i in range(8)])
    monkeypatch.setattr(devices, "mesh_of", len)
    assert devices.make_mesh(rows) == (used or 1)


def test_rows_that_the_devices_of_several_processes_do_not_divide_are_refused(
    monkeypatch,
):
    monkeypatch.setattr(jax, "devices", lambda: [*range(8)])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"train\.batch_size=12: must be a multiple"):
        devices.make_mesh(12)


def test_parts_that_do_not_divide_the_batch_are_refused():
    for config, field in (("cd_full", "negatives"), ("sudoku", "proposal")):
        with pytest.raises(UserError, match=rf"{field}\.parts=3: must divide train"):
            build(tiny.get_config(config, **{f"{field}__parts": 3}))
    with pytest.raises(UserError, match=r"negatives\.parts=8: .* replay\.capacity=20"):
        build(tiny.get_config("cd_full", negatives__parts=8, replay__capacity=20))


def test_collectives_are_counted_by_shape_and_turn():
    loop = "%w = while(%t), condition=%c, body={}, backend_config={}"
    turns = '{"known_trip_count":{"n":"N"}}'
    text = f"""
%sum (a: f32[]) -> f32[] {{
  ROOT %add = f32[] add(%a, %b)
}}
%inner (p: (s32[])) -> (s32[]) {{
  %x = bf16[8,4]{{1,0}} all-gather(%y), channel_id=1, dimensions={{0}}
}}
%outer (p: (s32[])) -> (s32[]) {{
  {loop.format("%inner", turns.replace("N", "3"))}
}}
ENTRY %main (p: f32[]) -> f32[] {{
  %r = (f32[2]{{0}}, f32[]) all-reduce(%a, %b), channel_id=2, to_apply=%sum
  {loop.format("%outer", turns.replace("N", "5"))}
}}
"""
    assert collectives(text) == {"all-gather": 15 * 64, "all-reduce": 12}


DEVICES, BLOCKS = "experiments.devices", "ired_jax.blocks"
MUTANTS = [
    Mutant(
        "devices",
        "each device keeps its own gradient",
        BLOCKS,
        one("jax.lax.pmean(over_rows(params, rows), AXIS)", "over_rows(params, rows)"),
        test_rows_in_blocks_on_each_device_give_one_gradient,
        {"num_rows": 64, "block_rows": 2},
    ),
    Mutant(
        "devices",
        "rows left over count twice",
        BLOCKS,
        one("(1 - share) * a + share * b", "a + share * b"),
        test_rows_in_blocks_on_each_device_give_one_gradient,
        {"num_rows": 61, "block_rows": 2},
    ),
    Mutant(
        "devices",
        "every device draws with the rows of the first",
        BLOCKS,
        one(
            "out = _on_each_device(over_rows, OF_DEVICE, OF_DEVICE)(*shared)",
            "out = _on_each_device(over_rows, OF_ALL, OF_DEVICE)"
            "(*first(shared, _size(shared) // num_devices()))",
        ),
        test_a_config_gives_the_same_on_one_device_and_on_eight,
        {"names": ("addition",)},
    ),
    Mutant(
        "devices",
        "rings in parts are on every device",
        DEVICES,
        one("if parts and parts[0] % mesh.size == 0:", "if False:"),
        test_rings_in_parts_move_nothing_but_gradients,
    ),
    Mutant(
        "devices",
        "every device answers everything",
        DEVICES,
        one(
            '(OF_ALL, OF_DEVICE), "out_specs": OF_DEVICE',
            '(OF_ALL,) * 2, "out_specs": OF_ALL',
        ),
        test_answers_are_shared_out_and_are_the_same,
    ),
    Mutant(
        "devices",
        "the solver shares out nothing",
        "experiments.score.solver",
        one("    @devices.share_out\n", ""),
        test_answers_are_shared_out_and_are_the_same,
    ),
    Mutant(
        "devices",
        "every process writes",
        DEVICES,
        one("return jax.process_index() == 0", "return True"),
        test_the_first_of_several_processes_writes,
    ),
    Mutant(
        "devices",
        "pre-emption of several processes is an error",
        "experiments.run.loop",
        one("if jax.process_count() == 1:", "if True:"),
        test_pre_emption_ends_several_processes_well_and_tells_a_single_one,
        error=UserError,
    ),
    Mutant(
        "devices",
        "rows that do not divide are refused by JAX alone",
        DEVICES,
        one("if batch_size % n == 0]", "]"),
        test_as_many_devices_as_divide_the_rows_are_used,
        {"rows": 12, "used": 6},
    ),
    Mutant(
        "devices",
        "what a loop moves is counted once",
        "benchmarks.devices",
        one("count * (_turns(caller, calls) if caller else 1)", "1"),
        test_collectives_are_counted_by_shape_and_turn,
    ),
]
