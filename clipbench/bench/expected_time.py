"""How long a fit will take, said before it begins and mended by its first steps; and, with no progress bar, how it goes
on, now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer

from clipbench.bench.outcome_lines import has_tests, test_images, val_images
from clipbench.bench.progress import EpochLines, Say
from clipbench.bench.trial import HANDFUL, Trial, now, try_out
from clipbench.data.module import DataModule
from clipbench.methods.base import Method

STEPS, SECONDS = 10, 1.0  # measured until there are so many steps, or two of them in so long a time
FACTOR, MATTERS = 1.5, 5.0  # a number is mended where it is wrong by more than this factor and by so many seconds
Try = Callable[[Method, L.Trainer], Trial | None]


class ExpectedTime(L.Callback):
    """Says what a trial makes for the whole fit, then measures the steps after the first, which warms everything up.

    Args:
        say: takes a line.
        trial: measures what a step takes before there was one.
    """

    def __init__(self, say: Say, trial: Try) -> None:
        self.say, self.trial = say, trial
        self._expected: float | None = None
        self._seen, self._start, self._paused = 0, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Everything is set up and no step is done."""
        self._seen, self._expected = 0, None
        left = batches(trainer) - batches_done(trainer)
        if trainer.fast_dev_run or not pl_module.trainable or pl_module.derived:  # type: ignore[attr-defined]
            return
        if left < HANDFUL and pl_module.has_optimizer:
            return  # it is over before it could be tried
        tried = self.trial(pl_module, trainer)
        if tried is not None:
            self._expected = tried.step
            self.say(line(tried, left, trainer))

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """The clock of the steps stands still."""
        self._paused -= time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """It goes on."""
        self._paused += time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Two of these wait for the device: the first and the last that is measured."""
        self._seen += 1
        measured = self._seen - 1
        if measured == 0:
            self._start, self._paused = now(trainer), 0.0
        elif 0 < measured <= STEPS and (measured == STEPS or (measured > 1 and self._waited())):
            seconds = (now(trainer) - self._start - self._paused) / measured
            self._seen = STEPS + 2  # said once
            left = batches(trainer) - batches_done(trainer)
            if 0 < left < math.inf and self._is_news(seconds, left):
                self.say(f"the fit takes about {duration(left * seconds)} more: {counted(left, trainer, seconds)}")

    def _waited(self) -> bool:
        return time.perf_counter() - self._start > SECONDS

    def _is_news(self, seconds: float, left: float) -> bool:
        said = self._expected
        if said is None:
            return True
        return max(said, seconds) > FACTOR * min(said, seconds) and abs(said - seconds) * left > MATTERS


def line(tried: Trial, left: float, trainer: L.Trainer) -> str:
    """What is said before a fit.

    Args:
        tried: what things take.
        left: batches of the fit, infinite where it goes on until it is stopped.
        trainer: of the fit, set up.
    """
    data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
    validated = val_images(data, trainer)
    last, kind = (test_images(data, trainer), "test") if has_tests(data) else (validated, "val")
    then = f"; then {last:,} {kind} images, about {duration(tried.split(last))}" if last else ""
    if tried.step is None:
        looked = len(data.draw_images()) + validated
        seconds = tried.split(looked)
        return (
            f"the fit takes about {duration(seconds)}: one look at {looked:,} images, and what it solves from it{then}"
        )
    seconds = left * tried.step
    parts = [counted(left, trainer, tried.step)]
    times, each = _validations(left, trainer), tried.split(validated, kept=True)
    if times and each:
        seconds += times * each
        parts.append(f"{times:,} validation{'s' * (times > 1)} of {each:.2g} s")
    limits = [one.time_remaining() for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
    limit = min((one for one in limits if one is not None), default=math.inf)
    if limit < seconds:
        return f"the fit ends after {duration(limit)} (max_time), at about {tried.step:.2g} s a step{then}"
    if not math.isfinite(seconds):
        return f"the fit goes on until it is stopped, at about {tried.step:.2g} s a step{then}"
    early = any(isinstance(one, EarlyStopping) for one in trainer.callbacks)  # type: ignore[attr-defined]
    return f"the fit takes {'at most ' * early}about {duration(seconds)}: {', '.join(parts)}{then}"


def counted(left: float, trainer: L.Trainer, seconds: float) -> str:
    """So many steps of so many seconds; batches, where several make a step."""
    word = "step" if trainer.accumulate_grad_batches == 1 else "batch"
    plural = {"step": "steps", "batch": "batches"}[word] if left != 1 else word
    return f"{left:,.0f} {plural} of {seconds:.2g} s" if math.isfinite(left) else f"{plural} of {seconds:.2g} s"


def _validations(left: float, trainer: L.Trainer) -> int:
    """How often the rest of the fit validates."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or not every or not math.isfinite(every) or not math.isfinite(left):
        return 0
    return int(left // (every * (trainer.check_val_every_n_epoch or 1)))


def batches(trainer: L.Trainer) -> float:
    """Train batches of the whole fit; infinite where it goes on until it is stopped."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    whole = math.inf if epochs in (None, -1) else epochs * trainer.num_training_batches
    return whole if steps in (None, -1) else min(whole, steps * trainer.accumulate_grad_batches)


def batches_done(trainer: L.Trainer) -> int:
    """Train batches behind us, those before a resume included."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


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


def time_lines(trainer: L.Trainer, settings: Mapping[str, Any]) -> list[L.Callback]:
    """The callbacks that say how long a fit takes, beside the progress bar or in its place.

    Args:
        trainer: of the fit.
        settings: what it was made of.
    """
    bar: Any = trainer.progress_bar_callback

    def say(line: str) -> None:
        (print if bar is None else bar.print)(f"clipbench: {line}", file=sys.stderr)

    expected = ExpectedTime(say, lambda method, of: try_out(method, of, settings))
    return [expected, *([] if bar else [EpochLines(say)])]
