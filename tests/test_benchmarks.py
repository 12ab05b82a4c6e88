"""The harness counts rightly, and the peers do the work that they are compared on."""

import functools
import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import (
    harness,
    memory,
    precision,
    sampler,
    systems,
    torch_baseline,
    train_step,
)
from benchmarks.harness import Peer, Result
from ired_jax import diffusion
from ired_jax.samplers import descent
from ired_jax.types import gradient

TINY = ["--n=2", "--batch_size=8", "--repeats=2"]


def make_flags(tmp_path=None, *extra):
    argv = [*TINY, *extra] + ([f"--out={tmp_path}"] if tmp_path else [])
    return harness.start(harness.parser("").parse_args(argv))


@pytest.mark.parametrize(
    "name, told", [("float32", "highest"), ("tf32", "tensorfloat32")]
)
def test_a_precision_is_what_jax_is_told(name, told):
    make_flags(None, f"--precision={name}")
    assert jax.config.jax_default_matmul_precision == told


def test_on_a_cpu_every_precision_is_float32():
    ends = {name: precision.chain_ends(name, 4) for name in ("float32", "bfloat16")}
    np.testing.assert_array_equal(ends["bfloat16"], ends["float32"])


def test_peers_take_turns_after_one_warm_up_each():
    calls = []

    def peer(name):
        return Peer(name, "work", lambda: calls.append(name))

    flags = make_flags(None, "--repeats=3")
    results = harness.measure([peer("ired_jax"), peer("earlier")], flags)
    assert calls == ["ired_jax", "earlier"] * 4  # warm-up and three rounds
    assert [len(result.seconds) for result in results] == [3, 3, 3]


def test_ratio_is_the_median_of_the_rounds_ratios():
    peer = Peer("earlier", "work", lambda: None)
    # A machine twice as slow in the last two rounds slows both peers: 3, 3, 4 times.
    result = Result(peer, (3.0, 6.0, 8.0), (1.0, 2.0, 2.0), (1.0, 2.0, 2.0))
    assert result.ratio == 3.0
    assert result.median == 6.0
    # Quartiles 4.5 and 7 by linear interpolation.
    assert result.spread == pytest.approx(2.5 / 6.0)


def test_work_at_the_speed_of_bare_products_has_share_one():
    flags = make_flags()
    flops = 3 * harness.PRODUCTS * 2.0 * flags.batch_size * harness.WIDTH**2
    peer = Peer("ired_jax", "work", lambda: None, flops=flops)
    for factor in (1.0, 2.0):  # as fast; half as fast
        result = Result(peer, (3.0 * factor,), None, (1.0,))
        share = harness.share_of_matrix_rate(result, flags)
        assert share == pytest.approx(1 / factor)


def test_share_is_of_the_products_of_the_rows_own_batch():
    flags = make_flags()  # batch 8
    flops = harness.PRODUCTS * 2.0 * 32 * harness.WIDTH**2
    peer = Peer("ired_jax", "work", lambda: None, 0.0, flops, {"batch_size": 32})
    share = harness.share_of_matrix_rate(Result(peer, (1.0,), None, (1.0,)), flags)
    assert share == pytest.approx(1.0)


def test_rows_hold_what_a_reader_needs_and_accumulate(tmp_path):
    flags = make_flags(tmp_path)
    peer = Peer("ired_jax", "work", lambda: jnp.ones(3) + 1, 0.5, 1e6, {"K": 7})
    for _ in range(2):
        harness.report("question", harness.measure([peer], flags), flags)
    lines = (tmp_path / "question.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert Counter(row["system"] for row in rows) == {"matrix": 2, "ired_jax": 2}
    row = rows[1]
    assert row["params"] == {"n": 2, "batch_size": 8, "seed": 0, "K": 7}
    assert row["compile_s"] == 0.5
    assert 0 < row["min_s"] <= row["median_s"] <= row["max_s"]
    assert row["share_of_matrix_rate"] > 0
    assert row["versions"]["jax"] == jax.__version__
    for name in ("question", "work", "device", "device_name", "precision", "commit"):
        assert name in row
    assert (tmp_path / "question.png").stat().st_size > 0


def test_sizes_below_one_are_refused():
    with pytest.raises(SystemExit, match="at least 1"):
        make_flags(None, "--repeats=0")


@pytest.mark.parametrize(
    "question, name",
    [(sampler, "works"), (sampler, "systems"), (train_step, "strategies")],
)
def test_names_that_do_not_exist_are_refused_with_those_that_do(question, name, capsys):
    with pytest.raises(SystemExit):
        question.main([f"--{name}=foo"])
    assert f"--{name}: 'foo': allowed are " in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["energy and gradient", "gradient"])
def test_hand_count_of_products_is_the_compiled_count(asked):
    n, batch_size, width = 20, 1024, systems.WIDTH
    flags = make_flags(None, f"--n={n}", f"--batch_size={batch_size}")
    made = []  # by a trace alone: the count is of shapes

    def arguments():
        made.append(systems.make_inputs(flags))
        return made[0].params, made[0].x, made[0].y, made[0].t

    args = jax.eval_shape(arguments)

    def step(params, x, y, t):
        def one(x, y, t):
            energy_fn = made[0].energy.bind(params, x, t)
            of_y = gradient if asked == "gradient" else jax.value_and_grad
            return of_y(energy_fn)(y)

        return jax.vmap(one)(x, y, t)

    executable, _ = harness.compiled(step, *args)
    counted = executable.cost_analysis()["flops"] / batch_size
    by_hand = systems.step_flops(n) + systems.x_flops(n)
    if asked == "gradient":
        once = 2.0 * n**2 * width**2  # W W^T
        by_hand = systems.grad_flops(n) + systems.x_flops(n) + once / batch_size
    # Elementwise work: about 30 operations on each of the 5 width + 3 n^2 values.
    elementwise = 30 * (5 * width + 3 * n**2)
    assert by_hand <= counted <= by_hand + elementwise


def test_systems_that_differ_are_refused():
    assert systems.assert_close("same", [1.0, 2.0], [1.0, 2.0], 1e-6) == 0.0
    with pytest.raises(SystemExit, match="differs"):
        systems.assert_close("other", [1.0, 2.0], [1.0, 2.1], 1e-2)
    with pytest.raises(SystemExit, match="differs"):
        systems.assert_close("nan", [1.0, 2.0], [1.0, np.nan], 1e-2)


@functools.cache
def tiny_inputs():
    return systems.make_inputs(make_flags())


def test_inputs_have_a_gradient_of_unit_size():
    inputs = tiny_inputs()
    grad = jax.vmap(jax.grad(inputs.energy.apply, argnums=2), (None, 0, 0, 0))
    value = jax.jit(grad)(inputs.params, inputs.x, inputs.y, inputs.t)
    np.testing.assert_allclose(jnp.mean(value**2), 1.0, rtol=1e-4)


def test_released_descent_is_ours():
    inputs = tiny_inputs()
    model = torch_baseline.load(inputs.state_dict())
    h, bounds, num_steps = 0.3, 1.5, 4

    def one(x, y, t):
        energy_fn = inputs.energy.bind(inputs.params, x, t)
        options = {"step_size": h, "num_steps": num_steps, "bounds": bounds}
        return descent.minimize(energy_fn, y, **options)[0]

    mine = jax.jit(jax.vmap(one))(inputs.x, inputs.y, inputs.t)
    x, y, t = (torch.tensor(inputs.numpy()[name]) for name in ("x", "y", "t"))
    theirs = torch_baseline.descent(
        torch_baseline.Grad(model),
        model,
        x,
        y,
        t,
        step_size=torch.full((num_steps, len(x), 1), h),
        num_steps=num_steps,
        bounds=torch.full((len(x), 1), bounds),
    )
    np.testing.assert_allclose(mine, theirs.detach(), atol=1e-4)


def test_pytorch_schedule_is_ours():
    mine = diffusion.make_schedule("cosine", 10)
    theirs = torch_baseline.make_schedule(10)
    for name in ("beta", "a", "s"):
        np.testing.assert_allclose(
            getattr(mine, name), getattr(theirs, name).numpy(), rtol=1e-6
        )


def test_pytorch_langevin_has_the_law_of_its_discrete_steps():
    # U = y^2 / 2, step h: the variance after K steps from 0 is
    # 2 h (1 - r^(2K)) / (1 - r^2), r = 1 - h.
    torch.manual_seed(0)
    h, num_steps, shape = 0.4, 3, (400, 100)

    def grad_fn(x, y, t):
        return 0.5 * (y**2).sum(-1), y

    y = torch_baseline.langevin(
        grad_fn,
        None,
        torch.zeros(shape),
        None,
        step_size=torch.tensor(h),
        temperature=torch.tensor(1.0),
        num_steps=num_steps,
    )
    r = 1 - h
    expected = 2 * h * (1 - r ** (2 * num_steps)) / (1 - r**2)
    # Relative standard error of a variance of N values is sqrt(2 / N): .7 %.
    error = 4 * (2 / y.numel()) ** 0.5
    assert float(y.var()) == pytest.approx(expected, rel=error)


def test_deque_replay_keeps_the_newest_of_each_level():
    rings = torch_baseline.DequeReplay(num_buckets=10, capacity=3)
    assert rings.sample(torch.tensor([4])) is None
    rings.insert(torch.arange(5.0)[:, None], torch.full((5,), 4))
    drawn = rings.sample(torch.full((200,), 4))
    assert set(drawn[:, 0].tolist()) == {2.0, 3.0, 4.0}


@pytest.mark.parametrize("strategy", ["none", "adversarial", "cd_full"])
def test_the_earlier_train_step_moves_the_weights(strategy):
    torch.manual_seed(0)
    model = torch_baseline.Model(4, 4)
    settings = torch_baseline.TrainSettings(strategy, batch_size=16, n=2, num_steps=2)
    trainer = torch_baseline.Trainer(model, settings)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        assert torch.isfinite(trainer.step())
    assert all(p.requires_grad for p in model.parameters())
    moved = [
        bool((p != b).any()) for p, b in zip(model.parameters(), before, strict=True)
    ]
    assert all(moved)


def test_pytorch_data_are_matrices_and_their_inverses():
    torch.manual_seed(0)
    x, y = torch_baseline.draw(6, 3)
    product = x.view(6, 3, 3) @ y.view(6, 3, 3)
    np.testing.assert_allclose(
        product, np.broadcast_to(np.eye(3), (6, 3, 3)), atol=1e-4
    )


def test_the_sampler_question_runs_and_its_answers_agree(tmp_path, capsys):
    names = "ired_jax,torch_eager,torchebm,blackjax"
    argv = [*TINY, "--repeats=1", f"--systems={names}", "--works=langevin,descent"]
    sampler.main([*argv, f"--out={tmp_path}"])
    assert "descent, torch_eager" in capsys.readouterr().out
    lines = (tmp_path / "sampler.jsonl").read_text().splitlines()
    found = {(row["work"], row["system"]) for row in map(json.loads, lines)}
    langevin = {("langevin", name) for name in names.split(",")}
    both = {("descent", name) for name in ("ired_jax", "torch_eager")}
    assert found == langevin | both | {("matrix", "matrix")}


def test_memory_of_the_samplers_does_not_grow_with_their_steps(tmp_path):
    memory.main([*TINY, f"--out={tmp_path}"])
    rows = map(json.loads, (tmp_path / "memory.jsonl").read_text().splitlines())
    for row in rows:
        # At this size a step's own counter and step sizes (4 bytes each) show.
        grown = row["bytes"][str(memory.LONG)] - row["bytes"][str(memory.SHORT)]
        assert grown <= 64 * (memory.LONG - memory.SHORT) * 8, row["work"]
