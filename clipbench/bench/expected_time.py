"""How long a fit will take, said after its first steps; with no progress bar, how long it goes on, now and then."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from clipbench.bench.run import EpochLines, Say

STEPS, SECONDS = 10, 1.0  # measured until there are so many steps, or two of them in so long a time


class ExpectedTime(L.Callback):
    """Measures the steps after the first, which warms everything up, and says what that makes for the whole fit."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._seen, self._start = 0, 0.0

    def on_train_start(self, *_: Any) -> None:
        """A fit begins."""
        self._seen = 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Two of these wait for the device: the first and the last that is measured."""
        self._seen += 1
        measured = self._seen - 1
        if measured == 0:
            self._start = _now(trainer)
        elif 0 < measured <= STEPS and (measured == STEPS or (measured > 1 and self._waited())):
            seconds = (_now(trainer) - self._start) / measured
            self._seen = STEPS + 2  # said once
            left = batches(trainer) - trainer.fit_loop.epoch_loop.total_batch_idx - 1
            if 0 < left < math.inf:
                self.say(f"the fit takes about {duration(left * seconds)} more: {left:,} steps of {seconds:.2g} s")

    def _waited(self) -> bool:
        return time.perf_counter() - self._start > SECONDS


def _now(trainer: L.Trainer) -> float:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def batches(trainer: L.Trainer) -> float:
    """Train batches of the whole fit; infinite where it goes on until it is stopped."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    whole = math.inf if epochs in (None, -1) else epochs * trainer.num_training_batches
    return whole if steps in (None, -1) else min(whole, steps * trainer.accumulate_grad_batches)


def length_line(trainer: L.Trainer, epochs: int | None) -> str:
    """What to say of a fit whose length nobody chose; "" where somebody did.

    Args:
        trainer: of the fit.
        epochs: as the config says.
    """
    if trainer.max_steps != -1 or any(isinstance(one, Timer) for one in trainer.callbacks):  # type: ignore[attr-defined]
        return ""
    if trainer.max_epochs == -1:
        return "trainer.max_epochs -1: the fit has no end, it goes on until a callback or Ctrl-C stops it"
    return "" if epochs is not None else "trainer.max_epochs is not given: the fit takes Lightning's 1,000 epochs"


def duration(seconds: float) -> str:
    """A time as one says it.

    Example:
        >>> duration(0.4), duration(50), duration(200), duration(9000)
        ('1 s', '50 s', '3 min', '2.5 h')
    """
    if seconds < 99:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_lines(trainer: L.Trainer) -> list[L.Callback]:
    """The callbacks that say how long a fit takes, beside the progress bar or in its place."""
    bar: Any = trainer.progress_bar_callback

    def say(line: str) -> None:
        if bar is None:
            print(f"clipbench: {line}", file=sys.stderr, flush=True)
        else:
            bar.print(line)

    return [ExpectedTime(say), *([] if bar else [EpochLines(say)])]
