"""`coop` against KaiyangZhou/CoOp `trainers/coop.py`: `CustomCLIP` with its prompt learner.

Runs: four vectors from words, and sixteen from noise, shared and of each class's own, at the end, in the middle and in
front. Where each class has vectors of its own, the official code has no answer for novel classes.
"""

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

WORDS = "a photo of a"


def config(words: str, length: int, position: str, class_specific: bool) -> Any:
    """What the official classes read of their config."""
    coop = SimpleNamespace(N_CTX=length, CTX_INIT=words, CSC=class_specific, CLASS_TOKEN_POSITION=position, PREC="fp32")
    return SimpleNamespace(TRAINER=SimpleNamespace(COOP=coop), INPUT=SimpleNamespace(SIZE=(SIZE, SIZE)))


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny"), Bounds()
    with official(checkout, "trainers.coop", "clip.model") as (coop, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        for position in ("end", "middle", "front"):
            for words, class_specific in ((WORDS, False), ("", False), ("", True)):
                found.join(one_run(coop, tower, backbone, words, position, class_specific))
    return found


def one_run(coop: Any, tower: nn.Module, backbone: str, words: str, position: str, class_specific: bool) -> Bounds:
    """One setting."""
    settings = config(words, 16, position, class_specific)
    torch.manual_seed(3)
    theirs = coop.CustomCLIP(settings, list(BASE), tower)
    context: nn.Parameter = theirs.prompt_learner.ctx

    def step(images: Tensor, labels: Tensor) -> Step:
        logits = theirs(images)
        return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

    def answers(images: Tensor, names: Sequence[str]) -> Tensor | None:
        if class_specific and len(names) != len(context):
            return None
        other = coop.CustomCLIP(settings, list(names), tower)
        other.prompt_learner.ctx.data.copy_(context.detach())
        logits: Tensor = other(images)
        return logits

    ours: dict[str, Any] = {"context_words": words, "position": position, "class_specific": class_specific}
    return compare(
        our_method("coop", backbone, **ours),
        Official({"context.vectors": context}, step, answers),
        lambda tensors: torch.optim.SGD(tensors, lr=0.002, momentum=0.9, weight_decay=5e-4),
    )


if __name__ == "__main__":
    differences = (
        "float32 instead of half; with vectors of each class's own zero-shot CLIP answers for novel classes, where the "
        "official code has no answer"
    )
    run("coop", "KaiyangZhou/CoOp", differences, bounds)
