"""The loss of a step: the sum of its terms, and when one looks whether it is finite."""

from __future__ import annotations

from collections.abc import Mapping

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
