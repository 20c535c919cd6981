"""The optimiser and the learning rate of a fit: SGD, Adam or AdamW, each with its own settings only.

Weight decay is the optimiser's own kind: decoupled in AdamW alone. The rates are those of `schedule.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import lightning as L
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from clipbench.errors import ConfigError, MethodError, UnknownName
from clipbench.tuning.choices import refuse_unread
from clipbench.tuning.schedule import ScheduleName, learning_rate, learning_rate_of_step

__all__ = ["Optimisation", "OptimizerName", "ScheduleName", "step_of", "total_epochs", "total_steps"]

OptimizerName = Literal["sgd", "adam", "adamw"]
OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
OF_EPOCHS = {"warmup_epochs": 1, "warmup_lr": 1e-5}
OF_STEPS = {"warmup_steps": 0, "final_lr": 0.0}
SCHEDULES: dict[str, dict[str, float]] = {"cosine": OF_EPOCHS, "constant": OF_EPOCHS, "cosine_per_step": OF_STEPS}


class Optimisation:
    """How what is trained moves.

    Args:
        optimizer: "sgd", "adam" or "adamw".
        lr: learning rate after the warm-up, above 0; None: 0.002.
        momentum: of sgd; None: 0.9.
        weight_decay: on every trained tensor.
        schedule: "cosine" (per epoch), "constant", or "cosine_per_step".
        warmup_epochs: of the schedules per epoch: epochs at the constant rate `warmup_lr`; None: 1.
        warmup_lr: that rate; None: 1e-5.
        warmup_steps: of cosine_per_step: steps of a linear warm-up; None: 0.
        final_lr: of cosine_per_step: the rate that it ends at; None: 0.
        eps: of adam and adamw: what is added to the root of the second moment, above 0; None: torch's 1e-8.

    Raises:
        UnknownName: an optimiser or schedule that there is not.
        ConfigError: an impossible value, or a setting that the choice does not read.
    """

    def __init__(
        self,
        optimizer: OptimizerName = "sgd",
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float = 5e-4,
        schedule: ScheduleName = "cosine",
        warmup_epochs: int | None = None,
        warmup_lr: float | None = None,
        warmup_steps: int | None = None,
        final_lr: float | None = None,
        eps: float | None = None,
    ) -> None:
        for kind, name, known in (("optimizer", optimizer, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
            if name not in known:
                raise UnknownName(kind, str(name), known)
        if optimizer != "sgd":
            refuse_unread(f"optimizer {optimizer} has none", momentum=momentum)
        else:
            refuse_unread("optimizer sgd has none", eps=eps)
        given = {
            "warmup_epochs": warmup_epochs, "warmup_lr": warmup_lr, "warmup_steps": warmup_steps, "final_lr": final_lr,
        }  # fmt: skip
        read = SCHEDULES[schedule]
        refuse_unread(f"schedule {schedule} has none", **{name: v for name, v in given.items() if name not in read})
        self.rates: dict[str, float] = dict(read)
        self.rates |= {name: value for name, value in given.items() if value is not None}
        self.optimizer, self.schedule = optimizer, schedule
        self.lr = 0.002 if lr is None else lr
        self.weight_decay = weight_decay
        self.momentum = 0.9 if momentum is None else momentum
        self.eps = 1e-8 if eps is None else eps
        if self.lr <= 0 or min(*self.rates.values(), weight_decay, self.momentum) < 0:
            shown = ", ".join(f"{name}={value}" for name, value in {"lr": self.lr, **self.rates}.items())
            raise ConfigError(f"lr must be above 0, warm-up, final rate, momentum and weight decay not below: {shown}")
        if self.eps <= 0:
            raise ConfigError(f"eps of {optimizer} must be above 0, it is {eps}")

    def configure(self, trainer: L.Trainer, tensors: Iterable[nn.Parameter]) -> dict[str, Any]:
        """What `configure_optimizers` of a LightningModule returns, over one parameter group.

        Raises:
            ConfigError: the fit has no end that the schedule could span.
        """
        settings: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        settings |= {"momentum": self.momentum} if self.optimizer == "sgd" else {"eps": self.eps}
        optimizer = OPTIMIZERS[self.optimizer](list(tensors), **settings)
        rate, lr = self._rate(trainer), self.lr
        interval = "step" if self.schedule == "cosine_per_step" else "epoch"
        scheduler = LambdaLR(optimizer, lambda now: rate(now) / lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def planned_rates(self, trainer: L.Trainer) -> Sequence[float]:
        """The learning rate of every planned step."""
        steps, rate, span = total_steps(trainer), self._rate(trainer), 1
        if self.schedule != "cosine_per_step":
            span = steps_of_epoch(trainer)
        return [rate(step // span) for step in range(steps)]

    def span(self, trainer: L.Trainer) -> dict[str, Any]:
        """What of a trainer the schedule spans: a resumed fit must have the same."""
        if self.schedule == "constant":
            return {}
        return {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}

    def refuse_other_span(self, trainer: L.Trainer, span: dict[str, Any]) -> None:
        """Raise MethodError where a resumed fit would give the schedule another span than the one that it had."""
        now = self.span(trainer)
        if now != span:
            shown = ", ".join(f"{name}={span.get(name)}, here {value}" for name, value in now.items())
            raise MethodError(f"the learning rates of the checkpoint span other epochs ({shown}): resume with the same")

    def _rate(self, trainer: L.Trainer) -> Callable[[int], float]:
        """The learning rate by epoch or by step, both from 0."""
        if self.schedule == "cosine_per_step":
            steps = total_steps(trainer)
            return lambda step: learning_rate_of_step(step, steps, self.lr, **self.rates)  # type: ignore[arg-type]
        epochs = total_epochs(trainer)
        return lambda epoch: learning_rate(epoch, epochs, self.lr, **self.rates, schedule=self.schedule)  # type: ignore[arg-type]


def total_steps(trainer: L.Trainer) -> int:
    """Optimiser steps of the whole fit, as the trainer plans them.

    Raises:
        ConfigError: the trainer has no end.
    """
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps) or steps < 1:
        raise ConfigError("the schedule needs an end: give trainer.max_epochs or trainer.max_steps")
    return int(steps)


def total_epochs(trainer: L.Trainer) -> int:
    """Epochs of the whole fit: the trainer's max_epochs, or where it has none those that its max_steps fill.

    Raises:
        ConfigError: the trainer has no end.
    """
    epochs = trainer.max_epochs
    if epochs is not None and epochs >= 1:
        return epochs
    if trainer.max_steps < 1:
        raise ConfigError(f"trainer.max_epochs must be 1 or more, the schedule spans it; it is {epochs}")
    return math.ceil(total_steps(trainer) / steps_of_epoch(trainer))


def steps_of_epoch(trainer: L.Trainer) -> int:
    """Optimiser steps of one epoch.

    Raises:
        ConfigError: nothing says how many batches an epoch has.
    """
    if math.isinf(trainer.num_training_batches):
        trainer.fit_loop.setup_data()  # with max_steps alone Lightning has not counted them yet
    if math.isinf(trainer.num_training_batches):
        raise ConfigError("the schedule goes by epochs, and the loader of the training images has no length")
    return max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))


def step_of(trainer: L.Trainer, batch_idx: int) -> tuple[int, ...]:
    """What the noise of a batch depends on: steps done, and which batch of the step it is, beyond the first."""
    batch = batch_idx % trainer.accumulate_grad_batches
    return (trainer.global_step, batch) if batch else (trainer.global_step,)
