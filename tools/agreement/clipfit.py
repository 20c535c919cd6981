"""`clipfit` against minglllli/CLIPFit `CLIPFit/trainers/ClipFit.py`: what `build_model` selects, and its `CustomCLIP`.

Runs: the templates of two datasets, and both weights of the distillation that the README names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.agreement.checkout import official
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.tiny import BASE, official_model, our_name, write_tiny

DATASETS = {"eurosat": "EuroSAT", "dtd": "DescribableTextures"}  # ours to theirs
TOWERS = {"text_encoder.": "", "image_encoder.": "visual."}


def config(dataset: str) -> Any:
    """What the official trainer reads of its config."""
    return SimpleNamespace(
        TRAINER=SimpleNamespace(COOP=SimpleNamespace(PREC="fp32")), DATASET=SimpleNamespace(NAME=dataset), OPTIM=None,
        MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(NAME="tiny"), INIT_WEIGHTS=""),
    )  # fmt: skip


def trainer_of(clipfit: Any, dataset: str, names: Sequence[str]) -> Any:
    """The official trainer after `build_model`, without the optimiser of its framework."""
    trainer = clipfit.ClipFit()
    trainer.cfg, trainer.device = config(dataset), "cpu"
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=list(names)))
    trainer.register_model = lambda *arguments: None
    trainer.build_model()
    return trainer


def trained_tensors(trainer: Any) -> dict[str, Any]:
    """What the official trainer trains, by our names."""
    found = {}
    for name, parameter in trainer.model.prompt_learner.named_parameters():
        if parameter.requires_grad:
            tower = next(tower for tower in TOWERS if name.startswith(tower))
            found[our_name(TOWERS[tower] + name.removeprefix(tower))] = parameter
    return found


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny"), Bounds()
    with official(checkout, "trainers.ClipFit", "clip.model") as (clipfit, model):
        clipfit.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        clipfit.build_optimizer = clipfit.build_lr_scheduler = lambda *arguments: None
        for dataset in DATASETS:
            for weight in (8.0, 2.0):
                found.join(one_run(clipfit, backbone, dataset, weight))
    return found


def one_run(clipfit: Any, backbone: str, dataset: str, weight: float) -> Bounds:
    """One setting."""
    trainer = trainer_of(clipfit, DATASETS[dataset], BASE)
    trained = trained_tensors(trainer)

    def step(images: Tensor, labels: Tensor) -> Step:
        logits = trainer.model(images)
        score = trainer.model.prompt_learner.forward_similarity()
        return logits, {"cross_entropy": F.cross_entropy(logits, labels), "distillation": weight * score}

    def answers(images: Tensor, names: Sequence[str]) -> Tensor:
        other = trainer_of(clipfit, DATASETS[dataset], names)
        for name, parameter in trained_tensors(other).items():
            parameter.data.copy_(trained[name].detach())
        logits: Tensor = other.model(images)
        return logits

    return compare(
        our_method("clipfit", backbone, dataset, distillation_weight=weight),
        Official(trained, step, answers),
        lambda tensors: torch.optim.SGD(tensors, lr=0.002, momentum=0.9, weight_decay=5e-4),
    )


if __name__ == "__main__":
    differences = (
        "float32 instead of half, also for the teacher; one pass of the text tower a step instead of two; the "
        "distillation stands in every precision"
    )
    run("clipfit", "minglllli/CLIPFit", differences, bounds, "CLIPFit")
