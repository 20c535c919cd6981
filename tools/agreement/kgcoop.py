"""`kgcoop` against htyao89/KgCoOp `KgCoOp/trainers/kgcoop.py`: `CustomCLIP` with its prompt learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.learner import context, coop_config
from tools.agreement.side import Step, of_model, sgd
from tools.agreement.tiny import official_model, write_tiny

WEIGHT = 8.0  # of the run scripts


def step(model: Any, images: Tensor, labels: Tensor) -> Step:
    """The cross-entropy, and the distance from the template's class features."""
    logits, score = model(images)
    return logits, {"cross_entropy": F.cross_entropy(logits, labels), "distillation": WEIGHT * score}


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    backbone = write_tiny(scratch / "tiny")
    with official(checkout, "trainers.kgcoop", "clip.model") as (kgcoop, model):
        kgcoop.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        theirs = of_model(lambda names: kgcoop.CustomCLIP(coop_config(), list(names), tower), context, step)
        return compare(our_method("kgcoop", backbone), theirs, sgd(0.002))


if __name__ == "__main__":
    differences = "float32 instead of half, also for the teacher; what is made and never trained is not made"
    run("kgcoop", "htyao89/KgCoOp", differences, measure, "KgCoOp")
