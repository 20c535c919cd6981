"""`taskres` against geekyutao/TaskRes `trainers/taskres.py`: `CustomCLIP` with the regular base.

Runs: one sentence a class, and the eight of ImageNet. Its list of these grows with each model that is built, so there
it is built once, for the trained classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.agreement.checkout import official
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.tiny import BASE, official_model, write_tiny


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, in both runs."""
    backbone, found = write_tiny(scratch / "tiny"), Bounds()
    settings = SimpleNamespace(RESIDUAL_SCALE=0.5, ENHANCED_BASE="none")
    with official(checkout, "trainers.taskres", "clip.model") as (taskres, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        for theirs_of, dataset in (("SUN397", "sun397"), ("ImageNet", "imagenet")):
            config = SimpleNamespace(TRAINER=SimpleNamespace(TaskRes=settings), DATASET=SimpleNamespace(NAME=theirs_of))
            theirs = taskres.CustomCLIP(config, list(BASE), tower)

            def step(images: Tensor, labels: Tensor, theirs: torch.nn.Module = theirs) -> Step:
                logits = theirs(images)
                return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

            def answers(
                images: Tensor, names: Sequence[str], theirs: torch.nn.Module = theirs, config: object = config,
                eight: bool = dataset == "imagenet",
            ) -> Tensor | None:  # fmt: skip
                if names == BASE:
                    logits: Tensor = theirs(images)
                    return logits
                return None if eight else taskres.CustomCLIP(config, list(names), tower)(images)  # residuals of zero

            found.join(
                compare(
                    our_method("taskres", backbone, dataset),
                    Official({"residuals": theirs.prompt_learner.text_feature_residuals}, step, answers),
                    lambda tensors: torch.optim.Adam(tensors, lr=0.002, weight_decay=5e-4),
                )
            )
    return found


if __name__ == "__main__":
    run(
        "taskres",
        "geekyutao/TaskRes",
        "float32 instead of half; the regular base alone; its list of ImageNet sentences does not grow from model to "
        "model; zero-shot for novel classes",
        bounds,
    )
