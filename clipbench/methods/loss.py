"""The loss of a step: the sum of its terms, and when one looks whether it is finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from clipbench.errors import MethodError


def looked_at(trainer: L.Trainer, batch: int) -> bool:
    """Whether the loss of a train batch is read on the way: on a CPU each, elsewhere those that are logged.

    To read a number one waits for the device. What is spoilt stays so until the next look, or the one after the fit.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return trainer.strategy.root_device.type == "cpu" or batch % max(1, every) == 0


def summed(
    terms: Mapping[str, Tensor], step: str, tensors: Mapping[str, Tensor], trainer: L.Trainer, batch: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the terms of a loss in float32, and all of them detached, the sum as "total".

    Args:
        terms: by name.
        step: of what, for messages.
        tensors: where to look for the fault.
        trainer: of the fit.
        batch: number of the batch in its epoch.

    Raises:
        MethodError: one looks, and the sum is not finite: names the terms, and the first tensor that is not.
    """
    total = torch.stack([term.float() for term in terms.values()]).sum()
    if looked_at(trainer, batch) and not torch.isfinite(total):
        shown = ", ".join(f"{name} {term.item():g}" for name, term in terms.items())
        bad = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), "none but the loss")
        raise MethodError(f"the loss of {step} is not finite ({shown}); first tensor: {bad}")
    return total, {name: term.detach() for name, term in {**terms, "total": total}.items()}


def loss_of_step(method: Any, logits: Tensor, terms: Mapping[str, Tensor], batch: int) -> Tensor:
    """What a training step returns: the sum of the terms, which go to the log and are the method's `last_losses`.

    Args:
        method: whose step it is.
        logits: (B, C), where a loss that is not finite is looked into first.
        terms: by name.
        batch: number of the batch in its epoch.

    Raises:
        MethodError: as `summed`.
    """
    step, tensors = f"{type(method).__name__} at step {method.global_step}", {"logits": logits, **method.trainable}
    total, method.last_losses = summed(terms, step, tensors, method.trainer, batch)
    shown = {f"train/{name}": term for name, term in method.last_losses.items()}
    method.log_dict(shown, prog_bar=True, on_step=True, on_epoch=False, batch_size=len(logits))
    return total
