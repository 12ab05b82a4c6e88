"""Which system samples fastest? Same weights, same inputs, answers compared first.

python -m benchmarks.sampler
python -m benchmarks.sampler --device=gpu --repeats=20
python -m benchmarks.sampler --works=langevin --systems=ired_jax,torch_eager
"""

from functools import partial

import jax
import numpy as np

from benchmarks import harness, systems
from benchmarks.harness import Peer, compiled
from ired_jax import diffusion
from ired_jax.samplers import descent, inference, langevin
from ired_jax.types import Landscape, bind, gradient, scaled

WORKS = ("langevin", "adjusted", "descent", "inference")
STEPS = 10
LEVEL_STEPS = 5
BOUNDS = 2.0  # of the answers, as in the released code
# Of the descent: holds the noised rows. In a box of +-2 a_t the smoothest level's rows
# (a_t = .005) sit in corners, where the last bit decides what is accepted.
BOX = 6.0
STEP_MULTIPLE = 0.25  # of s_t^2
# Inference is timed over all levels and compared without the smoothest: its box of
# +-2 a_t = .01 is so small against its step that rounding decides what is accepted.
COMPARED_LEVELS = systems.NUM_LEVELS - 1


class Ours:
    """This library."""

    system = "ired_jax"

    def __init__(self, inputs):
        self.inputs = inputs
        self.keys = jax.random.split(jax.random.key(1), len(inputs.x))

    def energy_and_grad(self):
        """As the chains take them."""
        inputs = self.inputs

        @jax.jit
        @jax.vmap
        def call(x, y, t):
            energy_fn = bind(inputs.energy, inputs.params, x, t)
            return energy_fn(y), gradient(energy_fn)(y)

        return call(inputs.x, inputs.y, inputs.t)

    def landscape(self, params, x, t):
        """U = E / s_t at one row's condition, its x and t parts done once."""
        inputs = self.inputs
        return scaled(bind(inputs.energy, params, x, t), inputs.schedule.s[t])

    def _langevin(self, adjusted):
        inputs = self.inputs

        def one(params, key, x, y, t):
            return langevin.sample(
                key,
                self.landscape(params, x, t),
                y,
                step_size=diffusion.langevin_step_size(
                    inputs.schedule, t, STEP_MULTIPLE
                ),
                temperature=1.0,
                num_steps=STEPS,
                adjusted=adjusted,
            )[0]

        args = inputs.params, self.keys, inputs.x, inputs.y, inputs.t
        return *compiled(systems.of_all_rows(inputs, one), *args), args

    def langevin(self):
        return self._langevin(adjusted=False)

    def adjusted(self):
        return self._langevin(adjusted=True)

    def descent(self):
        inputs = self.inputs

        def one(params, x, y, t):
            return descent.minimize(
                bind(inputs.energy, params, x, t),
                y,
                step_size=diffusion.descent_step_size(inputs.schedule, t),
                num_steps=STEPS,
                bounds=BOX,
            )[0]

        args = inputs.params, inputs.x, inputs.y, inputs.t
        return *compiled(systems.of_all_rows(inputs, one), *args), args

    def inference(self, num_levels=systems.NUM_LEVELS):
        inputs = self.inputs
        schedule = jax.tree.map(lambda leaf: leaf[:num_levels], inputs.schedule)

        def one(params, key, x):
            return inference.solve(
                key,
                Landscape(inputs.energy, params, x),
                schedule,
                x.shape,
                num_steps=LEVEL_STEPS,
                bounds=BOUNDS,
                double_steps=True,
            )[0]

        args = inputs.params, self.keys, inputs.x
        return *compiled(systems.of_all_rows(inputs, one), *args), args

    def start_noise(self):
        """What `solve` starts from, row by row."""
        return jax.vmap(partial(jax.random.normal, shape=self.inputs.x.shape[1:]))(
            self.keys
        )


class BlackJAX(Ours):
    """BlackJAX's Langevin kernels as released, on the same energy.

    The energy is given with its x and t parts done once, as ours is.
    """

    system = "blackjax"

    def _chain(self, step):
        inputs = self.inputs

        def one(key, params, x, y, t):
            h = STEP_MULTIPLE * inputs.schedule.s[t] ** 2
            init, move, end = step(self.landscape(params, x, t), h)
            keys = jax.random.split(key, STEPS)
            state, _ = jax.lax.scan(lambda s, k: (move(k, s), None), init(y), keys)
            return end(state)

        args = self.keys, inputs.params, inputs.x, inputs.y, inputs.t
        return *compiled(jax.vmap(one, (0, None, 0, 0, 0)), *args), args

    def langevin(self):
        import blackjax

        def step(energy_fn, h):
            grad = jax.grad(lambda y: -energy_fn(y))
            sgld = blackjax.sgld(lambda y, minibatch: grad(y))
            return sgld.init, lambda k, y: sgld.step(k, y, (), h), lambda y: y

        return self._chain(step)

    def adjusted(self):
        import blackjax

        def step(energy_fn, h):
            mala = blackjax.mala(lambda y: -energy_fn(y), h)
            return mala.init, lambda k, s: mala.step(k, s)[0], lambda s: s.position

        return self._chain(step)


class Torch:
    """The earlier system's samplers; `kind` says how the gradient is taken."""

    def __init__(self, inputs, kind, device):
        import torch

        from benchmarks import torch_baseline

        self.torch, self.baseline, self.system = torch, torch_baseline, kind
        self.inputs = inputs
        self.model = torch_baseline.load(inputs.state_dict(), device=device)
        if kind != "earlier":
            torch_baseline.freeze(self.model)
        self.energy_fn = self.model
        if kind == "torch_compile":
            self.grad_fn = torch_baseline.CompiledGrad(self.model)
            self.energy_fn = torch.compile(self.model, fullgraph=True)
        else:
            # The released code builds a graph through every input gradient.
            released = kind == "earlier"
            self.grad_fn = torch_baseline.Grad(self.model, create_graph=released)
        rows = {k: torch.tensor(v).to(device) for k, v in inputs.numpy().items()}
        self.x, self.y, self.t = rows["x"], rows["y"], rows["t"].long()
        self.schedule = torch_baseline.make_schedule(device=device)
        self.s = self.schedule.s[self.t][:, None]

    def energy_and_grad(self):
        energy, grad = self.grad_fn(self.x, self.y, self.t)
        return energy.detach().cpu(), grad.detach().cpu()

    def start_from(self, y):
        self.noise = self.torch.tensor(np.asarray(y)).to(self.x.device)

    def langevin(self):
        # On E: step h / s_t at temperature s_t.
        return partial(
            self.baseline.langevin,
            self.grad_fn,
            self.x,
            self.y,
            self.t,
            step_size=STEP_MULTIPLE * self.s,
            temperature=self.s,
            num_steps=STEPS,
        )

    def adjusted(self):
        return partial(
            self.baseline.adjusted_langevin,
            self.grad_fn,
            self.x,
            self.y,
            self.t,
            step_size=STEP_MULTIPLE * self.s,
            temperature=self.s,
            num_steps=STEPS,
        )

    def descent(self):
        beta = self.schedule.beta[self.t]
        return partial(
            self.baseline.descent,
            self.grad_fn,
            self.energy_fn,
            self.x,
            self.y,
            self.t,
            step_size=(beta[:, None] / self.s).expand(STEPS, -1, -1),
            num_steps=STEPS,
            bounds=BOX * self.torch.ones_like(self.s),
        )

    def inference(self, num_levels=systems.NUM_LEVELS):
        return partial(
            self.baseline.solve,
            self.grad_fn,
            self.energy_fn,
            self.baseline.Schedule(*(v[:num_levels] for v in self.schedule)),
            self.x,
            self.noise,
            num_steps=LEVEL_STEPS,
            bounds=BOUNDS,
        )


class TorchEBM(Torch):
    """TorchEBM's LangevinDynamics as released, on the same PyTorch energy.

    It has one step size for all rows, so it gets the energy in units in which the
    rows' steps are the same: the work of a step is that of the others.
    """

    def __init__(self, inputs, device):
        super().__init__(inputs, "torchebm", device)
        from torchebm.core import BaseModel

        model, s = self.model, self.s[:, 0]

        class Nats(BaseModel):
            def __init__(self):
                super().__init__(device=device)
                self.inner = model

            def forward(self, y, x, t):
                return self.inner(x, y, t) / s

        self.nats = Nats()

    def langevin(self):
        from torchebm.samplers import LangevinDynamics

        sampler = LangevinDynamics(
            self.nats, step_size=STEP_MULTIPLE * float(self.s.min()) ** 2
        )
        given = {"x": self.x, "t": self.t}
        return lambda: sampler.sample(x=self.y, n_steps=STEPS, model_kwargs=given)


HAVE = {
    "ired_jax": WORKS,
    "earlier": ("descent", "inference"),
    "torch_eager": WORKS,
    "torch_compile": WORKS,
    "torchebm": ("langevin",),
    "blackjax": ("langevin", "adjusted"),
}


def flops(work: str, flags) -> float:
    """Products of the whole work by hand."""
    step, energy = systems.step_flops(flags.n), systems.energy_flops(flags.n)
    once = systems.x_flops(flags.n)
    rows = {
        "langevin": STEPS * systems.grad_flops(flags.n) + once,
        "adjusted": (STEPS + 1) * step + once,
        # The last proposal needs its energy only.
        "descent": STEPS * step + energy + once,
        "inference": systems.inference_flops(flags.n, systems.NUM_LEVELS, LEVEL_STEPS),
    }
    return flags.batch_size * rows[work]


def make_systems(inputs, names, device) -> dict:
    made = {}
    for name in names:
        if name == "ired_jax":
            made[name] = Ours(inputs)
        elif name == "blackjax":
            made[name] = BlackJAX(inputs)
        elif name == "torchebm":
            made[name] = TorchEBM(inputs, device)
        else:
            made[name] = Torch(inputs, name, device)
    return made


def compare(made: dict, calls: dict) -> None:
    """Energies and gradients agree to 1e-4, trajectories to 1e-3, or all stops."""
    ours = made["ired_jax"]
    energy, grad = ours.energy_and_grad()
    run, _, args = ours.inference(COMPARED_LEVELS)
    answer = run(*args)
    for name, system in made.items():
        if not isinstance(system, Torch):
            continue
        other, other_grad = system.energy_and_grad()
        systems.assert_close(f"energy, {name}", energy, other, 1e-4)
        systems.assert_close(f"gradient, {name}", grad, other_grad, 1e-4)
        if (name, "descent") in calls:
            end, other = calls["ired_jax", "descent"](), calls[name, "descent"]()
            systems.assert_close(f"descent, {name}", end, other.cpu(), 1e-3)
        if (name, "inference") in calls:
            other = system.inference(COMPARED_LEVELS)().cpu()
            systems.assert_close(f"inference, {name}", answer, other, 1e-3)


def main(argv: list[str] | None = None) -> None:
    flags = harness.parser(__doc__.splitlines()[0])
    flags.add_argument("--works", type=harness.some_of(WORKS), default=WORKS)
    flags.add_argument("--systems", type=harness.some_of(HAVE), default=tuple(HAVE))
    flags = harness.start(flags.parse_args(argv))
    inputs = systems.make_inputs(flags)
    uses_torch = any(name not in ("ired_jax", "blackjax") for name in flags.systems)
    device = harness.torch_device(flags) if uses_torch else None
    # Ours in any case: the others are compared with it.
    names = ("ired_jax", *(name for name in flags.systems if name != "ired_jax"))
    made = make_systems(inputs, names, device)
    calls, peers = {}, []
    for work in flags.works:
        for name, system in made.items():
            if work not in HAVE[name]:
                continue
            calls[name, work], seconds = _prepare(system, work)
            peers.append(
                Peer(name, work, calls[name, work], seconds, flops(work, flags))
            )
    compare(made, calls)
    harness.report("sampler", harness.measure(peers, flags), flags)


def _prepare(system, work: str):
    """A call without arguments, and the seconds that compiling took."""
    if not isinstance(system, Torch):
        executable, seconds, args = getattr(system, work)()
        return partial(executable, *args), seconds
    if work == "inference":
        system.start_from(Ours(system.inputs).start_noise())
    run = getattr(system, work)()
    compiles = system.system == "torch_compile"
    return run, harness.first_call_extra(run) if compiles else 0.0


if __name__ == "__main__":
    main()
