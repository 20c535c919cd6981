"""`promptsrc` against muzairkhattak/PromptSRC `trainers/promptsrc.py`: `CustomCLIP`, and the trainer's average.

Each of the five steps counts as an epoch of the average, which is in place when the logits afterwards are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.methods.promptsrc import PromptSRC
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.ivlp import trained
from tools.agreement.prompted import DEPTH, config, copy_into, logits_of, prompted, sgd, tiny, training
from tools.agreement.tiny import BASE, STEPS

LENGTH = 4
MEAN, STD = 3.0, 1.0
TEXT, IMAGE = 25.0, 10.0


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP."""
    backbone = tiny(scratch)
    numbers = {"N_CTX_TEXT": LENGTH, "N_CTX_VISION": LENGTH}
    settings = config(PROMPTSRC=numbers | {"PROMPT_DEPTH_TEXT": DEPTH, "PROMPT_DEPTH_VISION": DEPTH})
    with prompted(checkout, scratch, "promptsrc") as (promptsrc, build):
        design = {"vision_depth": DEPTH, "language_depth": DEPTH, "vision_ctx": LENGTH, "language_ctx": LENGTH}
        promptsrc.load_clip_to_cpu = lambda cfg, zero_shot_model=False: build(trainer="IVLP").requires_grad_(False)
        trainer = promptsrc.PromptSRC
        gauss = [trainer.get_gauss(None, MEAN, STD)(epoch) for epoch in range(1, STEPS + 1)]
        weights = [float(weight) / float(sum(gauss)) for weight in gauss]
        average: list[dict[str, Tensor]] = []

        def model(names: Sequence[str]) -> Any:
            return promptsrc.CustomCLIP(settings, list(names), build(trainer="IVLP", **design))

        theirs = model(BASE)

        def step(images: Tensor, labels: Tensor) -> Step:
            with training(theirs, True):
                loss, text, fixed, frozen, image, zero_shot, logits = theirs(images, labels)
            p, p0 = (x.log_softmax(dim=1) for x in (logits, zero_shot))
            return logits, {
                "cross_entropy": loss,
                "text_agreement": TEXT * F.l1_loss(text, fixed),
                "image_agreement": IMAGE * F.l1_loss(image, frozen),
                "logit_agreement": F.kl_div(p, p0, reduction="sum", log_target=True) / logits.numel(),
            }

        def add() -> None:
            now = {name: parameter.detach().clone() for name, parameter in trained(theirs).items()}
            weighted = trainer.state_dict_weighting(None, now, weights[len(average)])
            average.append(trainer.state_dict_add(None, weighted, average[-1]) if average else weighted)

        def finish() -> None:
            with torch.no_grad():
                for name, parameter in trained(theirs).items():
                    parameter.copy_(average[-1][name])

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = model(names)
            copy_into(trained(other), trained(theirs))
            return logits_of(other, images)

        ours = our_method(
            "promptsrc", backbone, text_depth=DEPTH, image_depth=DEPTH, average_mean=MEAN, average_std=STD
        )  # fmt: skip
        assert isinstance(ours, PromptSRC)
        ours_average, steps = ours.average, iter(range(1, STEPS + 1))
        return compare(
            ours,
            Official(trained(theirs), step, answers, after_step=add, finish=finish),
            sgd,
            after_step=lambda method: ours_average.add(next(steps), method.trainable),
            finish=lambda method: ours_average.put(method.trainable),
        )


if __name__ == "__main__":
    differences = "float32 instead of half and float32 mixed; the average (a step is an epoch here) is of prompts alone"
    run("promptsrc", "muzairkhattak/PromptSRC", differences, bounds)
