"""Launchers: take cells, return when each has a record or an error record.

`inline` runs them in this process, or in worker processes of one thread each that share nothing but the results folder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import typing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path

from clipbench.bench.plan import PlannedCell
from clipbench.bench.run import Outcome, Say, record_failure, run_cell

Done = Callable[[Outcome], None]
DIED = "the worker process died over this cell (out of memory?); try --jobs 1"


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
        """
        cells = list(cells)
        if self.jobs == 1 or len(cells) < 2:
            for planned in cells:
                done(run_cell(planned, folder, say))
            return
        # a server that has imported torch once forks the workers: they start in milliseconds, with no used thread pool
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            context.set_forkserver_preload(["clipbench.bench.run"])
        left = self._pool(context, cells, folder, done, self.jobs)
        while left:
            # a process died; the pool cannot say over which cell, so those that were being run go alone now
            suspects, rest = left[: self.jobs], left[self.jobs :]
            for planned in suspects:
                if self._pool(context, [planned], folder, done, 1):
                    done(record_failure(planned, folder, "WorkerDied", DIED))
            left = self._pool(context, rest, folder, done, self.jobs) if rest else []

    def _pool(
        self, context: BaseContext, cells: list[PlannedCell], folder: Path, done: Done, workers: int
    ) -> list[PlannedCell]:
        """Run cells in one pool; returns those without an outcome when a worker died, the ones being run first."""
        pool = ProcessPoolExecutor(workers, context, initializer=_set_up_worker, initargs=(os.getpid(),))
        pending = {pool.submit(run_cell, planned, folder): planned for planned in cells}
        try:
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del pending[future]
                    done(outcome)
        except BrokenProcessPool:
            return list(pending.values())
        except KeyboardInterrupt:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return []


def _set_up_worker(main: int) -> None:
    """One thread; Ctrl-C is the main process's to handle; and no life after it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(main,), daemon=True).start()


def _end_with(main: int) -> None:
    """End this worker soon after the main process is gone, however it went."""
    while True:
        time.sleep(2)
        try:
            os.kill(main, 0)
        except OSError:
            os._exit(1)


def default_jobs(cells: int, cuda: bool, backbone: str) -> int:
    """Two workers of one thread for many cells of a small backbone or on few cores; else one process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    small = backbone == "mini" or cores <= 4
    return 2 if not cuda and cells >= 4 and cores >= 2 and small else 1
