"""`taskres` against geekyutao/TaskRes `trainers/taskres.py`: `CustomCLIP` with the regular base.

Runs: one sentence a class, and the eight of ImageNet. Its list of these grows with each model that is built, so there
it is built once, for the trained classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.methods.base import Method
from tools.agreement.checkout import config, official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import Official, cross_entropy, logits_of
from tools.agreement.tiny import BASE, official_model, write_tiny


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in both runs."""
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    residual = {"RESIDUAL_SCALE": 0.5, "ENHANCED_BASE": "none"}
    with official(checkout, "trainers.taskres", "clip.model") as (taskres, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        for theirs_of, dataset in (("SUN397", "sun397"), ("ImageNet", "imagenet")):
            settings = config(TRAINER={"TaskRes": residual}, DATASET={"NAME": theirs_of})
            found.join(one_run(our_method("taskres", backbone, dataset), partial(taskres.CustomCLIP, settings), tower))
    return found


def one_run(method: Method, model_of: Any, tower: nn.Module) -> Measured:
    """One dataset."""
    theirs, eight = model_of(list(BASE), tower), len(method.templates) > 1

    def answers(images: Tensor, names: Sequence[str]) -> Tensor | None:
        if names == BASE:
            return logits_of(theirs, images)
        return None if eight else logits_of(model_of(list(names), tower), images)  # residuals of zero

    residuals = {"residuals": theirs.prompt_learner.text_feature_residuals}
    return compare(
        method,
        Official(residuals, partial(cross_entropy, theirs), answers),
        lambda tensors: torch.optim.Adam(tensors, lr=0.002, weight_decay=5e-4),
    )


if __name__ == "__main__":
    run(
        "taskres",
        "geekyutao/TaskRes",
        "float32 instead of half; the regular base alone; its list of ImageNet sentences does not grow from model to "
        "model; zero-shot for novel classes",
        measure,
    )
