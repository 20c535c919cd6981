"""`vpt` against muzairkhattak/multimodal-prompt-learning `trainers/vpt.py`: `CustomCLIP` and its CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.prompted import BLOCKS, SGD, of_image_tower, prompted, prompts, tiny
from tools.agreement.side import of_model

LENGTH = 8


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Its trained tensors by our names."""
    return {f"image_prompts.{name}": p for name, p in of_image_tower(model.image_encoder).items()}


def measure(checkout: Path, scratch: Path, recipe: str = "vpt", depth: int = BLOCKS) -> Measured:
    """Both sides on the tiny CLIP, prompts before every block as in the recipe."""
    backbone, settings = tiny(scratch), prompts("VPT", N_CTX_VISION=LENGTH, PROMPT_DEPTH_VISION=depth)
    with prompted(checkout, scratch, "vpt") as (vpt, build):
        theirs = of_model(
            lambda names: vpt.CustomCLIP(
                settings, list(names), build(trainer="VPT", vision_depth=depth, vision_ctx=LENGTH)
            ),
            trained,
        )  # fmt: skip
        return compare(our_method(recipe, backbone, depth=depth), theirs, SGD)


if __name__ == "__main__":
    run("vpt", "muzairkhattak/multimodal-prompt-learning", "prompts in float32 instead of half", measure)
