"""`clipfit` against minglllli/CLIPFit `CLIPFit/trainers/ClipFit.py`: what `build_model` selects, and its `CustomCLIP`.

Runs: the templates of two datasets, and both weights of the distillation that the README names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.learner import coop_config
from tools.agreement.side import Step, of_model, sgd
from tools.agreement.tiny import official_model, our_name, write_tiny

DATASETS = {"eurosat": "EuroSAT", "dtd": "DescribableTextures"}  # ours to theirs
TOWERS = {"text_encoder.": "", "image_encoder.": "visual."}


def model_of(clipfit: Any, dataset: str, names: Sequence[str]) -> Any:
    """What `build_model` of the official trainer makes, without the optimiser of its framework."""
    trainer = clipfit.ClipFit()
    trainer.cfg, trainer.device = coop_config(dataset), "cpu"
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=list(names)))
    trainer.register_model = lambda *arguments: None
    trainer.build_model()
    return trainer.model


def trained(model: Any) -> dict[str, Any]:
    """What it trains, by our names."""
    found = {}
    for name, parameter in model.prompt_learner.named_parameters():
        if parameter.requires_grad:
            tower = next(tower for tower in TOWERS if name.startswith(tower))
            found[our_name(TOWERS[tower] + name.removeprefix(tower))] = parameter
    return found


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    with official(checkout, "trainers.ClipFit", "clip.model") as (clipfit, model):
        clipfit.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        clipfit.build_optimizer = clipfit.build_lr_scheduler = lambda *arguments: None
        for dataset in DATASETS:
            for weight in (8.0, 2.0):
                found.join(one_run(clipfit, backbone, dataset, weight))
    return found


def one_run(clipfit: Any, backbone: str, dataset: str, weight: float) -> Measured:
    """One setting."""

    def step(model: Any, images: Tensor, labels: Tensor) -> Step:
        logits, score = model(images), model.prompt_learner.forward_similarity()
        return logits, {"cross_entropy": F.cross_entropy(logits, labels), "distillation": weight * score}

    theirs = of_model(lambda names: model_of(clipfit, DATASETS[dataset], names), trained, step)
    return compare(our_method("clipfit", backbone, dataset, distillation_weight=weight), theirs, sgd(0.002))


if __name__ == "__main__":
    differences = (
        "float32 instead of half, also for the teacher; one pass of the text tower a step instead of two; the "
        "distillation stands in every precision"
    )
    run("clipfit", "minglllli/CLIPFit", differences, measure, "CLIPFit")
