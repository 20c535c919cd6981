"""Golden numbers of a method: what a short run on the embedded suite gives, beside the versions it was made with.

A change that moves these numbers must raise the `version` of the method, of the data room or of the backbone room,
since these stand in the content key of every record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipbench.bench.facts import numeric_versions
from clipbench.bench.objects import settings_of
from clipbench.bench.recipe import load_recipe
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.methods.task import TestSplit
from clipbench.testing.methods import Subject, images_of

LARGE = {"weight_decay": 0.05, "warmup_lr": 0.001}  # large enough that a change of either shows


@torch.no_grad()
def _logits(method: Method, images: Tensor, split: TestSplit) -> Tensor:
    return method.split_logits(images, split, method.prepare(split))


def golden_numbers(recipe: str, folder: Path) -> dict[str, Any]:
    """Versions, loss terms and some logits after four epochs of a recipe on mini's EuroSAT with four shots, seed 1."""
    settings: dict[str, Any] = {"trainer.max_epochs": 4}
    accepted = settings_of(method_class(load_recipe(recipe).method))
    settings |= {f"model.{key}": value for key, value in LARGE.items() if key in accepted}
    subject = Subject(recipe, folder, settings=settings)
    with subject.objects() as objects:
        start = {name: tensor.detach().clone() for name, tensor in objects.model.built().items()}
        subject.fit(objects)
        method = objects.model.eval()
        images = images_of(objects, 4)
        return {
            "versions": numeric_versions() | {"method": method.version},
            "losses": {name: round(float(term), 6) for name, term in method.last_losses.items()},
            "moved": {
                name: float(f"{(tensor.detach() - start[name]).norm():.6g}") for name, tensor in method.built().items()
            },
            "logits": {
                split.name: [[round(x, 4) for x in row] for row in _logits(method, images, split).tolist()]
                for split in method.task.tests
            },
        }
