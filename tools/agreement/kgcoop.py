"""`kgcoop` against htyao89/KgCoOp `KgCoOp/trainers/kgcoop.py`: `CustomCLIP` with its prompt learner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.checkout import official
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.tiny import BASE, SIZE, official_model, write_tiny

WEIGHT = 8.0  # of the run scripts


def config() -> Any:
    """What the official classes read of their config."""
    coop = SimpleNamespace(N_CTX=4, CTX_INIT="a photo of a", CSC=False, CLASS_TOKEN_POSITION="end", PREC="fp32")
    trainer = SimpleNamespace(COOP=coop, COCOOP=SimpleNamespace(PREC="fp32"))
    return SimpleNamespace(
        TRAINER=trainer, INPUT=SimpleNamespace(SIZE=(SIZE, SIZE)), DATASET=SimpleNamespace(NAME="SUN397")
    )


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP."""
    backbone = write_tiny(scratch / "tiny")
    with official(checkout, "trainers.kgcoop", "clip.model") as (kgcoop, model):
        kgcoop.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        theirs = kgcoop.CustomCLIP(config(), list(BASE), tower)
        context: nn.Parameter = theirs.prompt_learner.ctx

        def step(images: Tensor, labels: Tensor) -> Step:
            logits, score = theirs(images)
            return logits, {"cross_entropy": F.cross_entropy(logits, labels), "distillation": WEIGHT * score}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = kgcoop.CustomCLIP(config(), list(names), tower)
            other.prompt_learner.ctx.data.copy_(context.detach())
            return other(images)[0]

        method = our_method("kgcoop", backbone)
        return compare(
            method,
            Official({"context.vectors": context}, step, answers),
            lambda tensors: torch.optim.SGD(tensors, lr=0.002, momentum=0.9, weight_decay=5e-4),
        )


if __name__ == "__main__":
    differences = "float32 instead of half, also for the teacher; what is made and never trained is not made"
    run("kgcoop", "htyao89/KgCoOp", differences, bounds, "KgCoOp")
