"""The devices of a run: one mesh of rows over all of them, on one host or on many.

Every process runs the same program on the same config; process 0 alone writes. The
state is on every device, but for rings in parts. Answers are shared out like rows.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
import rich
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding

from experiments.errors import UserError
from ired_jax.blocks import AXIS, OF_ALL, OF_DEVICE
from ired_jax.replay import ReplayState
from ired_jax.training import TrainState
from ired_jax.types import Tree


def start(coordinator: str | None, num_processes: int, process_id: int) -> None:
    """Joins the other processes of a run: those named, or those of a SLURM step.

    To be called before anything else asks JAX for a device.

    Raises:
      UserError: flags that do not fit each other, or nobody to join.
    """
    if coordinator is None and (num_processes, process_id) != (1, 0):
        raise UserError(
            f"--coordinator: must be host:port with --num_processes={num_processes}"
            f" and --process_id={process_id}"
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: must be at least 0 and below"
            f" --num_processes={num_processes}"
        )
    named = (coordinator, num_processes, process_id) if coordinator else ()
    if not named and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return
    try:
        jax.distributed.initialize(*named)
    except (ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"--coordinator={coordinator}: cannot be joined ({line})"
        ) from error
    rich.get_console().quiet = not is_writer()


def is_writer() -> bool:
    """Whether this process writes files and lines: process 0 does."""
    return jax.process_index() == 0


@contextlib.contextmanager
def writer_first() -> Iterator[None]:
    """What process 0 does before all others do it."""
    if not is_writer():
        multihost_utils.sync_global_devices("writer_first")
    yield
    if is_writer() and jax.process_count() > 1:
        multihost_utils.sync_global_devices("writer_first")


def agreed(flag: bool) -> bool:
    """Whether any process says so: the same answer on all, which all must ask for."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def make_mesh(batch_size: int) -> Mesh | None:
    """As many devices as divide the rows of a step; None for a single one.

    Raises:
      UserError: several processes whose devices do not divide the rows.
    """
    devices = jax.devices()
    counts = [n for n in range(1, len(devices) + 1) if batch_size % n == 0]
    if jax.process_count() > 1 and counts[-1] < len(devices):
        raise UserError(
            f"train.batch_size={batch_size}: must be a multiple of the {len(devices)}"
            " devices of all processes"
        )
    return mesh_of(devices[: counts[-1]])


def mesh_of(devices: list[jax.Device]) -> Mesh | None:
    """Those devices in a row; None for a single one."""
    if len(devices) == 1:
        return None
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def placement(state: TrainState, mesh: Mesh, *, num_seeds: int) -> TrainState:
    """Where each leaf of a state is; several seeds have a leading axis."""
    seeds = (None,) if num_seeds > 1 else ()

    def of(node: Tree) -> Tree:
        spec = OF_ALL
        if isinstance(node, ReplayState):
            parts = node.head.shape[len(seeds) : -1]  # () where rings are in one part
            if parts and parts[0] % mesh.size == 0:
                spec = type(OF_DEVICE)(*seeds, *OF_DEVICE)
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), node)

    return jax.tree.map(of, state, is_leaf=lambda node: isinstance(node, ReplayState))


def jit(steps: Callable, mesh: Mesh, placed: TrainState) -> Callable:
    """(state, data) -> (state, metrics) over the devices, the state donated."""

    def over_rows(state: TrainState, data: Tree):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return steps(state, data)

    every = NamedSharding(mesh, OF_ALL)
    return jax.jit(
        over_rows,
        donate_argnums=0,
        in_shardings=(placed, every),
        out_shardings=(placed, every),
    )


def share_out(fn: Callable) -> Callable:
    """`fn` of which each of all devices computes an equal share of the rows.

    Args:
      fn: (whole, rows) -> what it computes of rows, leaves [N, ...] as those of rows.

    Returns:
      The same function, to be traced. `whole` has to be on every device, N a multiple
      of their number; the result is whole on every device.
    """
    mesh = mesh_of(jax.devices())
    if mesh is None:
        return fn
    specs = {"in_specs": (OF_ALL, OF_DEVICE), "out_specs": OF_DEVICE}
    on_each = jax.shard_map(fn, mesh=mesh, check_vma=False, **specs)
    every = NamedSharding(mesh, OF_ALL)
    return lambda *args: jax.lax.with_sharding_constraint(on_each(*args), every)


def put(data: Tree, mesh: Mesh | None) -> Tree:
    """Data that every step gets, on every device of a mesh."""
    return jax.device_put(data, mesh and NamedSharding(mesh, OF_ALL))


def everywhere(tree: Tree) -> Tree:
    """Parameters that answer, on all devices of all processes."""
    return put(tree, mesh_of(jax.devices()))
