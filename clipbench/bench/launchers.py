"""Launchers: take cells, return when each has a record or an error record.

Cells come in running order: one that starts from another's learned weights stands behind it, and waits for it.
`inline` runs them in this process, or in worker processes of one thread each that share nothing but the results folder.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import tempfile
import threading
import typing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from clipbench.atomic import remove_left_over
from clipbench.bench.plan import PlannedCell
from clipbench.bench.progress import Say
from clipbench.bench.run import Outcome, record_failure, run_cell
from clipbench.bench.stop import signals_held
from clipbench.errors import ConfigError
from clipbench.printable import warn_in_one_line

Done = Callable[[Outcome], None]
DIED = "the worker process died over this cell (out of memory?); try --jobs 1"
UNGUARDED = 79  # exit status of a worker in which the program began anew
LONGEST = 70  # bytes of the temporary folder: the path of a socket in it has at most 107


class Launcher(typing.Protocol):
    """Hands cells out."""

    def run(self, cells: Iterable[PlannedCell], folder: Path, done: Done, say: Say) -> None:
        """Run all cells; call `done` with each outcome as it comes."""


class Inline:
    """One process, or several worker processes of one thread each.

    Args:
        jobs: number of processes; 1 is this process with all its threads.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs

    def run(self, cells: Iterable[PlannedCell], folder: Path, done: Done, say: Say) -> None:
        """Run all cells; call `done` with each outcome as it comes.

        Raises:
            KeyboardInterrupt: Ctrl-C; the records of finished cells are kept.
            RecordError: records cannot be written.
            ConfigError: the program would begin anew in each worker.
        """
        leave_worker_that_begins_anew()
        cells = list(cells)
        if self.jobs == 1 or len(cells) < 2:
            gc.freeze()  # what is there by now stays; looking through it after each cell would take a third of a second
            try:
                self._one_by_one(cells, folder, done, say)
            finally:
                gc.unfreeze()
            return
        # a server that has imported torch once forks the workers: they start in milliseconds, with no used thread pool
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            context.set_forkserver_preload(["clipbench.bench.run"])
            _start_server(context)
        left = self._pool(context, cells, folder, done, self.jobs)
        while left:
            # a process died; the pool cannot say over which cell, so those that were being run go alone now
            suspects, rest = left[: self.jobs], left[self.jobs :]
            say("a worker process died; the cells that were being run go on one at a time")
            for planned in suspects:
                if self._pool(context, [planned], folder, done, 1):
                    done(record_failure(planned, folder, "WorkerDied", DIED))
            left = self._pool(context, rest, folder, done, self.jobs) if rest else []

    def _one_by_one(self, cells: list[PlannedCell], folder: Path, done: Done, say: Say) -> None:
        """Run cells in this process."""
        elsewhere: set[str] = set()
        for planned in cells:
            waits = planned.start is not None and planned.start.key in elsewhere
            outcome = Outcome(planned, None) if waits else run_cell(planned, folder, say)
            if outcome.record is None:
                elsewhere.add(planned.key)
            done(outcome)

    def _pool(
        self, context: BaseContext, cells: list[PlannedCell], folder: Path, done: Done, workers: int
    ) -> list[PlannedCell]:
        """Run cells in one pool; returns those without an outcome when a worker died, the ones being run first."""
        pool = ProcessPoolExecutor(workers, context, initializer=_set_up_worker)
        keys = {planned.key for planned in cells}
        ready: list[PlannedCell] = []
        blocked: dict[str, list[PlannedCell]] = {}  # by the key of what they start from
        for planned in cells:
            start = planned.start.key if planned.start else ""
            (blocked.setdefault(start, []) if start in keys else ready).append(planned)
        pending: dict[Future[Outcome], PlannedCell] = {}
        processes: dict[int, BaseProcess] = {}
        try:
            while ready or pending:
                with signals_held():
                    while ready:
                        future = pool.submit(run_cell, ready[0], folder)
                        pending[future] = ready.pop(0)
                    processes |= getattr(pool, "_processes", None) or {}
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del pending[future]
                    done(outcome)
                    if outcome.record is None:
                        _hold_back(outcome.planned, blocked, done)
                    ready += blocked.pop(outcome.planned.key, [])
        except BrokenProcessPool:
            return [*pending.values(), *ready, *(planned for some in blocked.values() for planned in some)]
        except KeyboardInterrupt:
            for process in processes.values():  # Lightning would let a fit go on after a SIGTERM
                process.kill()
            for process in processes.values():
                process.join(5)
            remove_left_over(folder)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return []


def leave_worker_that_begins_anew() -> None:
    """End a worker that runs the main program instead of cells: a script without a guard, imported by each worker."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


def _start_server(context: BaseContext) -> None:
    """Start the server that forks the workers and wait until it has imported torch; Ctrl-C is heard meanwhile.

    Raises:
        ConfigError: the program would begin anew in each worker, the server died, or there is no place for its socket.
        KeyboardInterrupt: Ctrl-C; the server is gone.
    """
    probe, failed = context.Process(target=_nothing), list[Exception]()  # type: ignore[attr-defined]

    def start() -> None:
        try:
            # first, since it lets signals through at its end; what this thread starts after it does not hear Ctrl-C
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            probe.start()
            probe.join()
        except (OSError, EOFError) as error:
            failed.append(error)

    thread = threading.Thread(target=start, daemon=True)
    with _short_temporary_folder():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.1)
        except KeyboardInterrupt:
            server = getattr(forkserver._forkserver, "_forkserver_pid", None)
            if server:
                os.kill(server, signal.SIGKILL)
            raise
    if failed and isinstance(failed[0], EOFError | ConnectionError):
        raise ConfigError("the process that starts the workers died (out of memory?); try --jobs 1") from failed[0]
    if failed:
        raise failed[0]
    if probe.exitcode == UNGUARDED:
        raise ConfigError(
            'each worker begins the script anew: put the call below `if __name__ == "__main__":`, or ask for --jobs 1'
        )


def _nothing() -> None:
    """What the first process does."""


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Let multiprocessing put its socket where the path is short enough for one, whatever TMPDIR says.

    Raises:
        ConfigError: there is no such place.
    """
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST:
        yield
        return
    places = [place for place in ("/tmp", "/var/tmp", "/dev/shm") if os.access(place, os.W_OK | os.X_OK)]  # noqa: S108
    if not places:
        raise ConfigError(f"TMPDIR '{usual}' is too long for the sockets of workers: name a shorter one, or --jobs 1")
    tempfile.tempdir = places[0]
    try:
        yield
    finally:
        tempfile.tempdir = usual


def _hold_back(planned: PlannedCell, blocked: dict[str, list[PlannedCell]], done: Done) -> None:
    """Another bench runs this cell: those that start from it wait with it."""
    for child in blocked.pop(planned.key, []):
        done(Outcome(child, None))
        _hold_back(child, blocked, done)


def _set_up_worker() -> None:
    """One thread; Ctrl-C is the main process's to handle; and no life after it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warn_in_one_line()
    torch.set_num_threads(1)
    gc.freeze()  # see Inline.run
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    """End this worker with the main process, however it went, and whether or not anybody has asked how it went."""
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()  # its end of a pipe is closed; its number may still be taken, by a process that nobody waits for
    os._exit(1)


def default_jobs(cells: int, cuda: bool, backbone: str) -> int:
    """Two workers of one thread for many cells of a small backbone or on few cores; else one process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    small = backbone == "mini" or cores <= 4
    return 2 if not cuda and cells >= 4 and cores >= 2 and small else 1
