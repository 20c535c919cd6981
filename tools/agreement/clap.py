"""`clap` against jusiro/CLAP `trainers/adapters.py`: `CustomCLIP` with initial weights ZS and constraint l2.

Both sides take alpha from a bank of two passes of eighteen images. Ours trains the difference from the text features,
so the official prototypes are made of these and a difference in each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.tuning.feature_bank import FeatureBank
from tools.agreement.checkout import config, official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import Official, Step
from tools.agreement.tiny import BASE, SIZE, official_model, write_tiny

PASSES, SHOTS = 2, 3


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    method: Any = our_method("clap", write_tiny(scratch / "tiny"))
    generator = torch.Generator().manual_seed(3)
    images = torch.randn((PASSES * SHOTS * len(BASE), 3, SIZE, SIZE), generator=generator)
    labels = torch.arange(len(BASE)).repeat_interleave(SHOTS)
    adapter = {"INIT": "ZS", "CONSTRAINT": "l2", "ENHANCED_BASE": "none"}
    settings = config(TRAINER={"ADAPTER": adapter}, DATASET={"NAME": "SUN397"})
    with official(checkout, "trainers.adapters", "clip.model") as (adapters, model), torch.no_grad():
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        theirs = adapters.CustomCLIP(settings, list(BASE), tower)
        logits, _ = theirs(images, return_features=True)
        theirs.adapter.device = "cpu"
        theirs.adapter.init_lagrangian_multipliers(labels.repeat(PASSES), logits)
        method.hold(FeatureBank(method.image_features(images).unflatten(0, (PASSES, -1)), labels))
        difference = nn.Parameter(torch.zeros_like(theirs.adapter.prototypes))
        del theirs.adapter.prototypes

        def step(images: Tensor, labels: Tensor) -> Step:
            theirs.adapter.prototypes = theirs.adapter.base_text_features + difference
            logits = theirs.forward_features(theirs.image_encoder(images))
            held = theirs.adapter.zero_shot_constraint()
            return logits, {"cross_entropy": F.cross_entropy(logits, labels), "penalty": held}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            if names == BASE:
                theirs.adapter.prototypes = theirs.adapter.base_text_features + difference
                logits: Tensor = theirs(images)
                return logits
            zero_shot: Tensor = adapters.CustomCLIP(settings, list(names), tower)(images)
            return zero_shot

        with torch.enable_grad():
            found = compare(
                method,
                Official({"difference": difference}, step, answers),
                lambda tensors: torch.optim.SGD(tensors, lr=0.1, momentum=0.9),
            )
        found.see("terms", method.alpha, theirs.adapter.alpha_constraint)
    return found


if __name__ == "__main__":
    run(
        "clap",
        "jusiro/CLAP",
        "float32 instead of half; rows of an epoch are drawn by seed and epoch; trained is the difference from the "
        "text features; zero-shot for novel classes",
        measure,
    )
