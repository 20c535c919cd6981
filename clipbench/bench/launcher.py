"""Launchers: take cells, return when each has a record or an error record.

`inline` runs them in this process, or in worker processes of one thread each that share nothing but the results folder.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Protocol

from clipbench.bench.plan import PlannedCell
from clipbench.bench.run import Outcome, Say, run_cell
from clipbench.errors import ClipbenchError

Done = Callable[[Outcome], None]


class Launcher(Protocol):
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
        pool = ProcessPoolExecutor(min(self.jobs, len(cells)), context, initializer=_one_thread)
        try:
            pending: set[Future[Outcome]] = {pool.submit(run_cell, planned, folder) for planned in cells}
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    done(future.result())
        except BrokenProcessPool as error:
            raise ClipbenchError(
                "a worker process died (out of memory?); run again with --jobs 1, finished cells are kept"
            ) from error
        except KeyboardInterrupt:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    """Set a worker up: one thread, and Ctrl-C is the parent's to handle."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def default_jobs(cells: int, cuda: bool) -> int:
    """Two workers for many small cells on a CPU with two cores or more, one process otherwise."""
    return 2 if not cuda and cells >= 4 and (os.cpu_count() or 1) >= 2 else 1
