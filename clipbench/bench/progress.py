"""A line now and then where no progress bar is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L

Say = Callable[[str], None]


class EpochLines(L.Callback):
    """A line now and then during a long fit: epoch, loss, time left."""

    def __init__(self, say: Say, every_seconds: float = 30.0) -> None:
        self.say, self.every = say, every_seconds
        self._start = self._last = time.perf_counter()

    def on_train_start(self, *_: Any) -> None:
        """The clock starts with the first epoch."""
        self._start = self._last = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, method: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Say where the fit is, if it is time."""
        now = time.perf_counter()
        if now - self._last < self.every or trainer.global_step == 0:
            return
        self._last = now
        step, steps = trainer.global_step, max(1, int(trainer.estimated_stepping_batches))
        left = (now - self._start) * (steps - step) / step
        epochs = trainer.max_epochs or -1
        where = f"epoch {trainer.current_epoch + 1}/{epochs}" if epochs > 0 else f"step {step}/{steps}"
        self.say(f"{where}, loss {float(method.last_losses['total']):.4f}, {left:.0f} s left in this fit")
