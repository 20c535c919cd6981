"""`ivlp` against muzairkhattak/multimodal-prompt-learning `trainers/independentVL.py`: `CustomCLIP` and its CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.prompted import (
    BLOCKS,
    config,
    copy_into,
    logits_of,
    of_image_tower,
    of_text_tower,
    prompted,
    sgd,
    tiny,
)
from tools.agreement.tiny import BASE

LENGTH = 2


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Its trained tensors by our names."""
    text = {"context.vectors": model.prompt_learner.ctx} | of_text_tower(model.text_encoder.transformer)
    found = {f"text_prompts.{name}": p for name, p in text.items()}
    return found | {f"image_prompts.{name}": p for name, p in of_image_tower(model.image_encoder).items()}


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, prompts before every block as in the recipe."""
    backbone = tiny(scratch)
    numbers = {"N_CTX_TEXT": LENGTH, "N_CTX_VISION": LENGTH}
    settings = config(IVLP=numbers | {"PROMPT_DEPTH_TEXT": BLOCKS, "PROMPT_DEPTH_VISION": BLOCKS})
    with prompted(checkout, scratch, "independentVL") as (ivlp, build):
        design = {"vision_depth": BLOCKS, "language_depth": BLOCKS, "vision_ctx": LENGTH, "language_ctx": LENGTH}

        def model(names: Sequence[str]) -> Any:
            return ivlp.CustomCLIP(settings, list(names), build(trainer="IVLP", **design))

        theirs = model(BASE)

        def step(images: Tensor, labels: Tensor) -> Step:
            logits = logits_of(theirs, images)
            return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = model(names)
            copy_into(trained(other), trained(theirs))
            return logits_of(other, images)

        ours = our_method("ivlp", backbone, text_depth=BLOCKS, image_depth=BLOCKS)
        return compare(ours, Official(trained(theirs), step, answers), sgd)


if __name__ == "__main__":
    run("ivlp", "muzairkhattak/multimodal-prompt-learning", "float32 instead of half and float32 mixed", bounds)
