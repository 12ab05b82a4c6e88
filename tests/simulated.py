"""Functions of tests in processes of their own, with simulated devices, or several.

Children come from a server that has imported everything and run nothing. They plant
what is planted here, so that mutants are noticed through them.
"""

import contextlib
import gc
import importlib
import multiprocessing
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from tests import mutants


class Child(NamedTuple):
    """A process, and where its result comes from."""

    process: multiprocessing.Process
    result: Any


def start(check: Callable, *arguments, count: int = 8, hosts: tuple = ()) -> Child:
    """Calls a function of a test file on `count` simulated devices.

    With `hosts`, the arguments of `devices.start`, it is one of several processes.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_devices"])
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    environment = {
        "XLA_FLAGS": flags,
        "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
    }
    call = check.__module__, check.__name__, arguments, list(mutants.NOW), hosts
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(environment, sender, *call))
    process.start()
    sender.close()
    return Child(process, receiver)


def result_of(child: Child) -> Any:
    """What the function returned.

    Raises:
      AssertionError: it failed.
    """
    try:
        result = child.result.recv()
    except EOFError:
        child.process.join()
        raise AssertionError(f"exit code {child.process.exitcode}") from None
    child.process.join()
    assert child.process.exitcode == 0
    return result


def _main(environment, sender, module, name, arguments, planted, hosts) -> None:
    """In the child."""
    from experiments import cli, devices

    gc.disable()  # what is traced in so short a life is no garbage
    os.environ.update(environment)
    cli.enable_compilation_cache()
    with contextlib.ExitStack() as stack:
        for where, edits in planted:
            edited = importlib.import_module(where)
            stack.enter_context(mutants.planted(edited, *edits))
        if hosts:
            devices.start(*hosts)
        sender.send(getattr(importlib.import_module(module), name)(*arguments))
