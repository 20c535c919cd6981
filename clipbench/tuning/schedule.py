"""The learning rate over the epochs or the steps of a fit.

Per epoch the schedule is the field's: a warm-up at a constant rate, then a cosine that starts anew after it (Dassl
0.6.3, `ConstantWarmupScheduler` around `CosineAnnealingLR`). Per step it is torch's `CosineAnnealingLR`, after a linear
warm-up where one is asked for.
"""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["cosine", "cosine_per_step", "constant"]


def learning_rate(
    epoch: int,
    epochs: int,
    lr: float,
    warmup_epochs: int = 1,
    warmup_lr: float = 1e-5,
    schedule: ScheduleName = "cosine",
) -> float:
    """The learning rate of an epoch (0-based).

    `warmup_lr` in the first `warmup_epochs`, then `lr (1 + cos(pi (epoch - warmup_epochs) / epochs)) / 2`. The cosine
    spans all `epochs` although it starts after the warm-up, so the last epoch is not at zero; with
    `epochs <= warmup_epochs` the whole run stays at the warm-up rate, as in the reference code.
    """
    if epoch < warmup_epochs:
        return warmup_lr
    if schedule == "constant":
        return lr
    return 0.5 * lr * (1 + math.cos(math.pi * (epoch - warmup_epochs) / epochs))


def learning_rate_of_step(step: int, steps: int, lr: float, warmup_steps: int = 0, final_lr: float = 0.0) -> float:
    """The learning rate of a step (0-based) of `steps`.

    Linear to `lr` over the `warmup_steps`, then `final_lr + (lr - final_lr) (1 + cos(pi t / T)) / 2` over the T steps
    that are left; without warm-up this is torch's `CosineAnnealingLR` with `eta_min`.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    left = max(1, steps - warmup_steps)
    return final_lr + 0.5 * (lr - final_lr) * (1 + math.cos(math.pi * min(step - warmup_steps, left) / left))
