"""Ctrl-C, and a scheduler's SIGTERM: never lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerStatus

from clipbench.errors import Terminated

STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """The signals as KeyboardInterrupt (SIGTERM as `Terminated`); remembered, since one that is raised inside a
    destructor or a callback of C is swallowed."""

    def __init__(self) -> None:
        self.asked = False
        self._number: int = signal.SIGINT

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._stop) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        self.asked, self._number = True, number
        raise self.exception()

    def exception(self) -> KeyboardInterrupt:
        """The exception of the signal that came."""
        return Terminated() if self._number == signal.SIGTERM else KeyboardInterrupt()


class StopWhenAsked(L.Callback):
    """Ends a trainer at the next batch where the exception of a signal got lost on its way.

    Args:
        stop: the signals.
    """

    def __init__(self, stop: StopSignal) -> None:
        self.stop = stop

    def on_train_batch_end(self, *_: Any) -> None:
        """Raise KeyboardInterrupt where the user asked to stop."""
        if self.stop.asked:
            raise self.stop.exception()

    def on_validation_batch_end(self, *_: Any) -> None:
        """As in training."""
        self.on_train_batch_end()

    def on_test_batch_end(self, *_: Any) -> None:
        """As in training."""
        self.on_train_batch_end()


def behind(exit_: SystemExit) -> KeyboardInterrupt:
    """The signal that made Lightning exit: it catches it and leaves with status 1."""
    return exit_.__context__ if isinstance(exit_.__context__, KeyboardInterrupt) else KeyboardInterrupt()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let a signal wait until the end of the block, and processes that are started inside never see Ctrl-C.

    Does nothing outside of the main thread, where no signal arrives.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in STOPPING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


def interruptible(trainer: L.Trainer, work: Callable[[], Any]) -> None:
    """Let a trainer work; Ctrl-C comes out as KeyboardInterrupt (Lightning turns it into an exit with status 1)."""
    before = signal.getsignal(signal.SIGINT)
    try:
        work()
    except SystemExit as error:
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            signal.signal(signal.SIGINT, before)
            raise behind(error) from error
        raise
