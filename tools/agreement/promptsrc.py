"""`promptsrc` against muzairkhattak/PromptSRC `trainers/promptsrc.py`: `CustomCLIP`, and the trainer's average.

Each of the five steps counts as an epoch of the average, which is in place when the logits afterwards are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clipbench.methods.promptsrc import PromptSRC
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.prompted import DEPTH, SGD, both_depths, of_both_towers, prompted, prompts, tiny
from tools.agreement.side import Step, copy_into, of_model, training
from tools.agreement.tiny import STEPS

MEAN, STD = 3.0, 1.0
TEXT, IMAGE = 25.0, 10.0


def step(model: Any, images: Tensor, labels: Tensor) -> Step:
    """The cross-entropy and the three constraints."""
    with training(model, True):
        loss, text, fixed, frozen, image, zero_shot, logits = model(images, labels)
    p, p0 = (x.log_softmax(dim=1) for x in (logits, zero_shot))
    return logits, {
        "cross_entropy": loss,
        "text_agreement": TEXT * F.l1_loss(text, fixed),
        "image_agreement": IMAGE * F.l1_loss(image, frozen),
        "logit_agreement": F.kl_div(p, p0, reduction="sum", log_target=True) / logits.numel(),
    }


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    backbone, (numbers, design) = tiny(scratch), both_depths(4, DEPTH)
    settings = prompts("PROMPTSRC", **numbers)
    with prompted(checkout, scratch, "promptsrc") as (promptsrc, build):
        promptsrc.load_clip_to_cpu = lambda cfg, zero_shot_model=False: build(trainer="IVLP").requires_grad_(False)
        theirs = of_model(
            lambda names: promptsrc.CustomCLIP(settings, list(names), build(trainer="IVLP", **design)),
            of_both_towers, step,
        )  # fmt: skip
        trainer, average = promptsrc.PromptSRC, list[dict[str, Tensor]]()
        gauss = [float(trainer.get_gauss(None, MEAN, STD)(epoch)) for epoch in range(1, STEPS + 1)]

        def add() -> None:
            now = {name: parameter.detach().clone() for name, parameter in theirs.trained.items()}
            weighted = trainer.state_dict_weighting(None, now, gauss[len(average)] / sum(gauss))
            average.append(trainer.state_dict_add(None, weighted, average[-1]) if average else weighted)

        theirs.after_step, theirs.finish = add, lambda: copy_into(theirs.trained, average[-1])
        method = our_method(
            "promptsrc", backbone, text_depth=DEPTH, image_depth=DEPTH, average_mean=MEAN, average_std=STD
        )  # fmt: skip
        assert isinstance(method, PromptSRC)
        ours, steps = method.average, iter(range(1, STEPS + 1))
        return compare(
            method, theirs, SGD,
            after_step=lambda method: ours.add(next(steps), method.trainable),
            finish=lambda method: ours.put(method.trainable),
        )  # fmt: skip


if __name__ == "__main__":
    differences = "float32 instead of half and float32 mixed; the average (a step is an epoch here) is of prompts alone"
    run("promptsrc", "muzairkhattak/PromptSRC", differences, measure)
