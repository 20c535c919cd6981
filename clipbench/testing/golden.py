"""Golden numbers of a method: what a short run on the embedded suite gives, beside the versions it was made with.

A change that moves these numbers must raise the `version` of the method, of the data room or of the backbone room,
since these stand in the content key of every record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from clipbench.backbone.names import kind_of
from clipbench.bench.identity import numeric_versions
from clipbench.bench.plan import callback_versions
from clipbench.data.task import TestSplit
from clipbench.methods.base import Method
from clipbench.recipes.recipe import load_recipe
from clipbench.testing.subject import Subject, images_of

LARGE = {"weight_decay": 0.05, "warmup_lr": 0.001}  # large enough that a change of either shows
NOISE = "attn.k_proj.bias"  # the softmax does not see it: its gradient is rounding, and Adam makes steps of that


@torch.no_grad()
def _logits(method: Method, images: Tensor, split: TestSplit) -> Tensor:
    return method(images, split.classnames)


def _moved(start: dict[str, Tensor], method: Method) -> dict[str, float]:
    """How far what is trained has moved, by kind of tensor: names without tower and block."""
    squares: dict[str, float] = {}
    for name, tensor in method.trainable.items():
        kind = kind_of(name)
        if not kind.startswith(NOISE):
            squares[kind] = squares.get(kind, 0.0) + float((tensor.detach() - start[name]).double().square().sum())
    return {kind: float(f"{square**0.5:.6g}") for kind, square in squares.items()}


def golden_numbers(recipe: str, folder: Path, extra: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Versions, loss terms and some logits after four epochs of a recipe on mini's EuroSAT with four shots, seed 1.

    Args:
        recipe: its name.
        folder: for what the run writes.
        extra: settings above the recipe's.
    """
    settings: dict[str, Any] = {"trainer.max_epochs": 4} | dict(extra)
    named = load_recipe(recipe).sections["model"].get("init_args") or {}
    settings |= {f"model.{key}": value for key, value in LARGE.items() if key in named}
    callbacks = settings.get("trainer.callbacks", [])
    subject = Subject(recipe, folder, settings=settings)
    with subject.cli() as cli:
        start = {name: tensor.detach().clone() for name, tensor in cli.model.trainable.items()}
        subject.fit(cli)
        method = cli.model.eval()
        images = images_of(cli, 4)
        return {
            "versions": numeric_versions() | {"method": method.version} | callback_versions(callbacks),
            "losses": {name: round(float(term), 6) for name, term in method.last_losses.items()},
            "moved": _moved(start, method),
            "logits": {
                split.name: [[round(x, 4) for x in row] for row in _logits(method, images, split).tolist()]
                for split in cli.datamodule.task.tests
            },
        }
