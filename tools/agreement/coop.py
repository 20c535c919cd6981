"""`coop` against KaiyangZhou/CoOp `trainers/coop.py`: `CustomCLIP` with its prompt learner.

Runs: four vectors from words, and sixteen from noise, shared and of each class's own, at the end, in the middle and in
front. Where each class has vectors of its own, the official code has no answer for novel classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.learner import context, coop_config
from tools.agreement.side import of_model, sgd
from tools.agreement.tiny import official_model, write_tiny

WORDS = "a photo of a"


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    with official(checkout, "trainers.coop", "clip.model") as (coop, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        for position in ("end", "middle", "front"):
            for words, class_specific in ((WORDS, False), ("", False), ("", True)):
                found.join(one_run(coop, tower, backbone, words, position, class_specific))
    return found


def one_run(coop: Any, tower: nn.Module, backbone: str, words: str, position: str, class_specific: bool) -> Measured:
    """One setting."""
    settings = coop_config(N_CTX=16, CTX_INIT=words, CSC=class_specific, CLASS_TOKEN_POSITION=position)
    torch.manual_seed(3)
    theirs = of_model(
        lambda names: coop.CustomCLIP(settings, list(names), tower), context, answers_novel=not class_specific
    )
    ours: dict[str, Any] = {"context_words": words, "position": position, "class_specific": class_specific}
    return compare(our_method("coop", backbone, **ours), theirs, sgd(0.002))


if __name__ == "__main__":
    differences = (
        "float32 instead of half; with vectors of each class's own zero-shot CLIP answers for novel classes, where the "
        "official code has no answer"
    )
    run("coop", "KaiyangZhou/CoOp", differences, measure)
