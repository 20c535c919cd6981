"""`maple` against muzairkhattak/multimodal-prompt-learning `trainers/maple.py`: `CustomCLIP` and its CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.prompted import DEPTH, config, copy_into, logits_of, prompted, sgd, tiny
from tools.agreement.tiny import BASE

LENGTH = 2


def trained(learner: Any) -> dict[str, nn.Parameter]:
    """Its trained tensors by our names."""
    found = {"text_prompts.context.vectors": learner.ctx}
    found |= {f"text_prompts.deeper.{n}": p for n, p in enumerate(learner.compound_prompts_text)}
    maps = [learner.proj, *learner.compound_prompt_projections]
    return found | {f"maps.{n}.{name}": p for n, linear in enumerate(maps) for name, p in linear.named_parameters()}


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on a tiny CLIP of the widths that the official code takes for granted."""
    backbone = tiny(scratch, image_width=768, text_width=512)
    settings = config(MAPLE={"N_CTX": LENGTH, "PROMPT_DEPTH": DEPTH})
    with prompted(checkout, scratch, "maple") as (maple, build):

        def model(names: Sequence[str]) -> Any:
            return maple.CustomCLIP(settings, list(names), build(trainer="MaPLe", maple_length=LENGTH))

        theirs = model(BASE)

        def step(images: Tensor, labels: Tensor) -> Step:
            logits = logits_of(theirs, images)
            return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = model(names)
            copy_into(trained(other.prompt_learner), trained(theirs.prompt_learner))
            return logits_of(other, images)

        return compare(
            our_method("maple", backbone, depth=DEPTH), Official(trained(theirs.prompt_learner), step, answers), sgd
        )


if __name__ == "__main__":
    run("maple", "muzairkhattak/multimodal-prompt-learning", "float32 instead of half and float32 mixed", bounds)
