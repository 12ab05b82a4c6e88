"""The compiled dispatch of each phase: a run begins as soon as it has the first."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from experiments import devices
from experiments.build import Experiment
from experiments.run.logs import say
from experiments.startup import memory_text
from ired_jax.training import TrainState
from ired_jax.types import Tree


class Programs:
    """Takes steps, and compiles the phases that are left one after the other.

    The later ones beside the steps: all before the first step would delay it, each when
    it is reached would find, hours later, that the last does not fit the device.
    """

    def __init__(self, experiment: Experiment, state: TrainState, step: int):
        self._phase_at = experiment.phase_at
        self._data = devices.put(experiment.train_data, experiment.mesh)  # once
        shapes = jax.tree.map(_shape, (state, self._data))  # the steps take the arrays

        def compiled(phase: int) -> jax.stages.Compiled:
            return experiment.dispatch(phase).lower(*shapes).compile()

        left = range(experiment.phase_at(step), len(experiment.phases))
        if step >= experiment.periods.num_steps:
            left = range(0)
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._programs = {phase: self._pool.submit(compiled, phase) for phase in left}
        self._untold = {phase: experiment.phases[phase][0] for phase in left}
        self._first = step

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *exception: object) -> None:
        if not all(program.done() for program in self._programs.values()):
            say("waiting for a later phase's compilation, which cannot be stopped")
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, state: TrainState, step: int) -> tuple[TrainState, Tree]:
        """(state, metrics) of the dispatch at `step`; the state's arrays are gone."""
        return self._programs[self._phase_at(step)].result()(state, self._data)

    def news(self, step: int) -> Iterator[str]:
        """What phases take of the device, each told once: that of `step`, waited for,
        and the later ones that are compiled by now.

        Raises:
          Exception: that a compilation raised.
        """
        self._programs[self._phase_at(step)].result()
        for phase, begins in [*self._untold.items()]:
            if self._programs[phase].done():
                del self._untold[phase]
                later = begins if begins > self._first else None
                yield memory_text(self._programs[phase].result(), later)

    def are_ready(self) -> bool:
        """Whether no compilation takes time from the steps any more."""
        return not self._untold


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=leaf.sharding, weak_type=leaf.aval.weak_type
    )
