"""Points as jobs: here, several at a time, or as an array of a cluster's scheduler."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from experiments.errors import UserError
from experiments.run.interrupt import Interrupt
from experiments.sweeps.copies import copy_whole, last_save, remove, settle

BEGUN = "== begun"  # the line of a log with which a try begins
UNLIMITED = 10**6  # times that a job is queued again, minutes that a local one has
SLURM_MINUTES = 240  # submitit's own, five, are over soon after the first compilation
TRIES = 20  # a tenth of a second each: a look at a log holds its lock for a moment
# An older and a newer name of it: JAX refuses both together.
FRACTIONS = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
DEVICE_SHARE = 0.9  # of a GPU's memory, what several points on it have together


class Job:
    """One point, trained or resumed in a process of its own.

    What it prints goes to `<directory>.log`, after a line BEGUN; the last line is then
    its exit code, or the error that kept it from one. The process holds the log's lock,
    as long as it lives, whatever becomes of its parent.

    With `scratch`, a folder of the machine that it runs on, it trains there, and the
    run directory is copied there before and back whenever the process ends. What is
    back is removed there, so that the next try finds what is not.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        scratch: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self._made_of = tuple(command), directory, scratch, dict(environment or {})
        self.directory, self.log = directory, log_of(directory)
        self._workdir = scratch / _own_name(directory) if scratch else directory
        self._child: subprocess.Popen | None = None
        self._is_stopped = False

    def __call__(self) -> int:
        """Runs to the end; returns the exit code.

        Raises:
          UserError: another process trains this point.
          OSError: it cannot be copied to scratch or back, or not be started.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            _lock(log, self.directory)
            if not log.tell() and self._workdir != self.directory:
                remove(self._workdir)  # of a sweep that was removed since
            log.write(f"{BEGUN}\n".encode())
            log.flush()
            try:
                code = self._run(log)
            except OSError as error:
                log.write(f"error: {' '.join(str(error).split())}\n".encode())
                raise
            end = "stopped" if self._is_stopped else f"exit code {code}"
            log.write(f"{end}\n".encode())
        return code

    def _run(self, log: IO[bytes]) -> int:
        command, _, _, environment = self._made_of
        settle(self.directory)
        self._bring_here()
        if self._is_stopped:
            return -1
        with subprocess.Popen(
            [*command, f"--workdir={self._workdir}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        ) as self._child:
            code = self._child.wait()
        self._bring_back()
        return code

    def stop(self) -> None:
        """Asks the process to save and to end."""
        self._is_stopped = True
        if self._child is not None:
            self._child.terminate()

    def checkpoint(self) -> Any:
        """What submitit submits again when the scheduler's time is over.

        It calls this in a signal handler, in the midst of `wait`: `waitid` leaves that
        its lock and its child.
        """
        import submitit

        self.stop()
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):  # `wait` was before it
                os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
            self._bring_back()
        return submitit.helpers.DelayedSubmission(Job(*self._made_of))

    def _bring_here(self) -> None:
        """Makes scratch what the run directory is, or nothing.

        What was left there comes back first if it is further: of a job that was killed
        before its process ended, or that found no room on the other disk.
        """
        if self._workdir == self.directory:
            return
        settle(self._workdir)
        if last_save(self._workdir) > last_save(self.directory):
            self._bring_back()
        remove(self._workdir)
        if self.directory.exists():
            copy_whole(self.directory, self._workdir)

    def _bring_back(self) -> None:
        if self._workdir != self.directory and self._workdir.exists():
            copy_whole(self._workdir, self.directory)
            remove(self._workdir)


def log_of(directory: Path) -> Path:
    """Where a point's process prints; beside its directory, which the run claims."""
    return directory.with_name(directory.name + ".log")


def is_running(directory: Path) -> bool:
    """Whether a process holds the log of a point."""
    try:
        with log_of(directory).open("rb") as log:
            return not _takes(log, fcntl.LOCK_SH, directory)
    except FileNotFoundError:
        return False


def run_here(
    jobs: Sequence[Job], parallel: int, tell: Callable[[Job, str], None]
) -> None:
    """All jobs, `parallel` at a time; one that fails stops no other.

    Args:
      jobs: in order.
      parallel: how many at a time.
      tell: called with each job when it has ended, and with how.

    Raises:
      UserError: a signal asked to end; the points have saved.
    """
    with (
        Interrupt() as interrupt,
        concurrent.futures.ThreadPoolExecutor(parallel) as pool,
    ):
        waiting = {pool.submit(job): job for job in jobs}
        while waiting:
            ended, _ = concurrent.futures.wait(
                waiting, 0.2, concurrent.futures.FIRST_COMPLETED
            )
            told = {future: waiting.pop(future) for future in ended}
            if interrupt.is_set:  # first: there may be no terminal to tell it any more
                for future, job in waiting.items():
                    future.cancel()
                    job.stop()
            for future, job in told.items():
                if not future.cancelled():
                    tell(job, _how(future, interrupt.is_set))
    if interrupt.is_set:
        raise UserError("interrupted, all points saved; the same command resumes")


def shared_device(parallel: int) -> dict[str, str]:
    """What lets several processes live on one GPU: each takes its share at once."""
    if parallel == 1 or any(name in os.environ for name in FRACTIONS):
        return {}
    return {FRACTIONS[0]: f"{DEVICE_SHARE / parallel:.3f}"}


def submit(
    jobs: Sequence[Job],
    folder: Path,
    *,
    cluster: str,
    parallel: int,
    exclude: Sequence[str] = (),
    options: Mapping[str, Any],
) -> list[Any]:
    """Hands jobs to submitit: one array, of which `parallel` run at a time.

    Args:
      jobs: in order.
      folder: shared by all machines; the scheduler's script and its logs go there.
      cluster: slurm, or local for processes of this machine.
      parallel: how many at a time (slurm).
      exclude: nodes to avoid (slurm).
      options: others of submitit's, such as gpus_per_node, or timeout_min (slurm: 240,
        after which a job saves and is queued again).

    Raises:
      UserError: no submitit, no such cluster here, or an option that it does not know.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            f"--executor={cluster}: needs submitit, pip install -e '.[run,slurm]'"
        ) from error
    more = {"slurm_exclude": ",".join(exclude)} if exclude else {}
    more["timeout_min"] = SLURM_MINUTES if cluster == "slurm" else UNLIMITED
    try:
        limit = {f"{cluster}_max_num_timeout": UNLIMITED}
        executor = submitit.AutoExecutor(folder, cluster=cluster, **limit)
        executor.update_parameters(
            name="sweep", slurm_array_parallelism=parallel, **{**more, **options}
        )
        with executor.batch():
            return [executor.submit(job) for job in jobs]
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(f"--executor={cluster}: {text}") from error


def _own_name(directory: Path) -> str:
    """Of a directory in scratch, where points of other sweeps have the same name."""
    whole = str(directory.resolve())
    return f"{directory.name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _takes(log: IO[bytes], kind: int, directory: Path) -> bool:
    """Whether a point's log could be locked: no other process holds it."""
    try:
        fcntl.flock(log, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{log_of(directory)}: cannot be locked, as a sweep needs it"
            f" ({error.strerror})"
        ) from error
    return True


def _lock(log: IO[bytes], directory: Path) -> None:
    for _ in range(TRIES):
        if _takes(log, fcntl.LOCK_EX, directory):
            return
        time.sleep(0.1)
    raise UserError(f"{directory}: another process trains it")


def _how(future: concurrent.futures.Future, is_interrupted: bool) -> str:
    """`done`, `stopped`, or what went wrong."""
    if error := future.exception():
        return f"failed, {error}"
    if future.result() == 0:
        return "done"
    return "stopped" if is_interrupted else f"failed, exit code {future.result()}"
