"""What a callback monitors must be logged: told before the fit where that is known, else by its first step or epoch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, early_stopping

from clipbench.bench.outcome_lines import has_val
from clipbench.errors import ConfigError
from clipbench.recipes.recipe import Config

VAL = "val/accuracy"  # beside its losses, as train/NAME, all that a method of ours logs in a fit
ELSEWHERE = ("epoch", "step")  # what a checkpoint may go by as well
OURS = ("clipbench", "lightning")  # of which it is known what they log


class MonitorsAreLogged(Callback):
    """Refuses a fit one of whose callbacks monitors what is never logged, where that is known."""

    def on_fit_start(self, trainer: L.Trainer, method: Any) -> None:
        """ConfigError for all but losses, whose names the first step shows."""
        validates = trainer.limit_val_batches != 0 and has_val(trainer.datamodule)  # type: ignore[attr-defined]
        self._refuse(trainer, method, [*([VAL] if validates else []), "each of its losses as train/LOSS"], "train/")

    def on_train_batch_end(self, trainer: L.Trainer, method: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """ConfigError for a loss that there is not, at the first step."""
        if batch_idx == 0 and trainer.current_epoch == 0:
            self._refuse(trainer, method, [*trainer.callback_metrics, VAL], "val/")

    def _refuse(self, trainer: L.Trainer, method: Any, logged: list[str], later: str) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if any(type(one).__module__.partition(".")[0] not in OURS for one in (method, *callbacks)):
            return  # it may log what it likes, when it likes
        for callback, monitor in monitored(callbacks):
            if monitor not in (*logged, *ELSEWHERE) and not monitor.startswith((later, "lr-")):
                raise not_logged(callback, monitor, logged)


def refuse_unvalidated(trainer: Config) -> None:
    """Raise ConfigError where a callback monitors an accuracy on val images that are never looked at.

    Args:
        trainer: its section of a config, with every default.
    """
    for callback in trainer["callbacks"] or ():
        settings = callback.get("init_args") or {}
        monitor = str(settings.get("monitor"))
        if trainer["limit_val_batches"] == 0 and monitor.startswith("val/") and settings.get("strict", True):
            raise ConfigError(
                f"trainer.callbacks: {callback['class_path'].rpartition('.')[2]} monitors '{monitor}', but nothing is "
                "validated during this fit (trainer.limit_val_batches 0): name a loss, as train/total"
            )


def monitored(callbacks: Iterable[Callback]) -> Iterator[tuple[Callback, str]]:
    """The callbacks of Lightning that end in an error where what they monitor is not there, and what that is."""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor and (isinstance(callback, Checkpoint) or getattr(callback, "strict", False)):
            yield callback, monitor


def not_logged(callback: Callback, monitor: str, logged: Iterable[str]) -> ConfigError:
    """The sentence for a monitor that nobody logs."""
    names = " and ".join(dict.fromkeys(name for name in logged if name not in ELSEWHERE))
    return ConfigError(
        f"trainer.callbacks: {type(callback).__name__} monitors '{monitor}', which nothing logs; this fit logs {names}"
    )


@contextmanager
def naming_monitors(trainer: Callable[[], Any]) -> Iterator[None]:
    """What EarlyStopping raises where its monitor is not logged comes out as ConfigError.

    Args:
        trainer: gives the trainer, or None where there is none yet.
    """
    try:
        yield
    except RuntimeError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") != early_stopping.__name__:
            raise
        stopping: EarlyStopping = frame.f_locals["self"]
        raise not_logged(stopping, str(stopping.monitor), trainer().callback_metrics) from error
