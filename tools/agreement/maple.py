"""`maple` against muzairkhattak/multimodal-prompt-learning `trainers/maple.py`: `CustomCLIP` and its CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.prompted import DEPTH, SGD, prompted, prompts, tiny
from tools.agreement.side import of_model

LENGTH = 2


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Its trained tensors by our names."""
    learner = model.prompt_learner
    found = {"text_prompts.context.vectors": learner.ctx}
    found |= {f"text_prompts.deeper.{n}": p for n, p in enumerate(learner.compound_prompts_text)}
    maps = [learner.proj, *learner.compound_prompt_projections]
    return found | {f"maps.{n}.{name}": p for n, linear in enumerate(maps) for name, p in linear.named_parameters()}


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on a tiny CLIP of the widths that the official code takes for granted."""
    backbone = tiny(scratch, image_width=768, text_width=512)
    settings = prompts("MAPLE", N_CTX=LENGTH, PROMPT_DEPTH=DEPTH)
    with prompted(checkout, scratch, "maple") as (maple, build):
        theirs = of_model(
            lambda names: maple.CustomCLIP(settings, list(names), build(trainer="MaPLe", maple_length=LENGTH)), trained
        )
        return compare(our_method("maple", backbone, depth=DEPTH), theirs, SGD)


if __name__ == "__main__":
    run("maple", "muzairkhattak/multimodal-prompt-learning", "float32 instead of half and float32 mixed", measure)
