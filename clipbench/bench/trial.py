"""What a fit will cost, tried out before it begins: a few steps of a copy of the method, and a look at a few images.

The copy is fitted by a trainer of its own with the same settings, so that whatever a step does is measured: its
forward and backward pass, optimiser, noise, masks, and callbacks that the method itself brings. Nothing of it reaches
the fit: the copy shares frozen tensors alone with the method, and its random numbers are of (seed, purpose, step) too.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from clipbench.bench.trainer import make_trainer
from clipbench.data.module import DataModule
from clipbench.methods.base import Method
from clipbench.methods.evaluation import evaluating

WARM, MEASURED = 2, 2  # steps
LONG = (3.0, 0.5)  # seconds: a first or a second step that takes longer says enough
HANDFUL = 10  # steps: a fit of fewer is not worth a trial
LOOKED_AT = 8  # images
WITHOUT: Mapping[str, Any] = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0, "limit_val_batches": 0, "profiler": None, "max_time": None, "min_epochs": None,
    "min_steps": None,
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """Seconds that were measured.

    Attributes:
        step: of a training batch; None where the method is not trained by steps.
        classes: to make the class features of a split.
        read: to read an image from its file and prepare it.
        image: to classify a prepared image.
    """

    step: float | None
    classes: float
    read: float
    image: float

    def split(self, images: int, kept: bool = False) -> float:
        """Seconds to measure the accuracy on so many images, which may lie decoded in memory."""
        return self.classes + images * (self.image + (0.0 if kept else self.read)) if images else 0.0


def try_out(method: Method, trainer: L.Trainer, settings: Mapping[str, Any]) -> Trial | None:
    """Try a fit out that is about to begin; None where it cannot be.

    Args:
        method: set up.
        trainer: of the fit; it has the data module.
        settings: what this trainer was made of.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if settings.get("plugins"):
        return None  # objects that belong to one trainer
    seconds = _Seconds(steps=method.has_optimizer)
    with isolate_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit itself gives them
        try:
            twin = copy.deepcopy(method)
            make_trainer({**settings, **WITHOUT, "callbacks": [seconds]}).fit(twin, datamodule=data)
        except torch.cuda.OutOfMemoryError:  # what is trained is there twice; the fit alone may have room
            return None
        finally:
            data.trainer = trainer
    return seconds.found


class _Seconds(L.Callback):
    """Ends a fit when enough of it was measured.

    Args:
        steps: whether it has steps; if not, none is done.
    """

    def __init__(self, steps: bool) -> None:
        self.steps = steps
        self.found: Trial | None = None
        self._seen, self._start = 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A fit begins."""
        self._start = now(trainer)
        if not self.steps:
            self._look(None, trainer, pl_module)

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: L.Trainer, *_: Any
    ) -> int | None:
        """-1 ends the epoch before the step."""
        trainer.should_stop |= not self.steps
        return None if self.steps else -1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """A step is over."""
        self._seen += 1
        if self._seen > WARM and self._seen < WARM + MEASURED:
            return
        took, self._start = now(trainer) - self._start, now(trainer)
        if self._seen > WARM or took > LONG[self._seen - 1]:
            self._look(took / MEASURED if self._seen > WARM else took, trainer, pl_module)
            trainer.should_stop = True

    def _look(self, step: float | None, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Measure what classifying images takes, on images to train on."""
        assert isinstance(module, Method)
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        images = data.draw_images()
        images.pixels = data.source.pixels(images.items, keep=False)
        begin = now(trainer)
        some = images.__getitems__(range(min(LOOKED_AT, len(images)))).image
        read = now(trainer)
        some = some.to(module.device)
        with evaluating(module), torch.no_grad(), trainer.precision_plugin.forward_context():
            times = [now(trainer)]
            for _ in range(2):  # the first makes the class features
                module(some)
                times.append(now(trainer))
        first, second = times[1] - times[0], times[2] - times[1]
        self.found = Trial(step, max(0.0, first - second), (read - begin) / len(some), second / len(some))


def now(trainer: L.Trainer) -> float:
    """The time when all that was asked of the device is done."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
