"""Ctrl-C, and a scheduler's SIGTERM: never lost."""

from __future__ import annotations

import signal
from typing import Any

import lightning as L


class StopSignal:
    """The signals as KeyboardInterrupt; remembered, since one that is raised inside a destructor or a callback of C is
    swallowed."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignal:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self.asked = True
        raise KeyboardInterrupt


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
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *_: Any) -> None:
        """As in training."""
        self.on_train_batch_end()

    def on_test_batch_end(self, *_: Any) -> None:
        """As in training."""
        self.on_train_batch_end()
