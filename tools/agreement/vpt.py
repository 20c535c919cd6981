"""`vpt` against muzairkhattak/multimodal-prompt-learning `trainers/vpt.py`: `CustomCLIP` and its CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.prompted import BLOCKS, config, copy_into, logits_of, of_image_tower, prompted, sgd, tiny
from tools.agreement.tiny import BASE

LENGTH = 8


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Its trained tensors by our names."""
    return {f"image_prompts.{name}": p for name, p in of_image_tower(model.image_encoder).items()}


def bounds(checkout: Path, scratch: Path, recipe: str = "vpt", depth: int = BLOCKS) -> Bounds:
    """Both sides on the tiny CLIP, prompts before every block as in the recipe."""
    backbone = tiny(scratch)
    settings = config(VPT={"N_CTX_VISION": LENGTH, "PROMPT_DEPTH_VISION": depth})
    with prompted(checkout, scratch, "vpt") as (vpt, build):

        def model(names: Sequence[str]) -> Any:
            tower = build(trainer="VPT", vision_depth=depth, vision_ctx=LENGTH)
            return vpt.CustomCLIP(settings, list(names), tower)

        theirs = model(BASE)

        def step(images: Tensor, labels: Tensor) -> Step:
            logits = logits_of(theirs, images)
            return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = model(names)
            copy_into(trained(other), trained(theirs))
            return logits_of(other, images)

        return compare(our_method(recipe, backbone, depth=depth), Official(trained(theirs), step, answers), sgd)


if __name__ == "__main__":
    run("vpt", "muzairkhattak/multimodal-prompt-learning", "prompts in float32 instead of half", bounds)
