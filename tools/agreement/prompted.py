"""What the two repositories of deep prompts share: CLIP models with prompts inside, in float32 throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tools.agreement.checkout import official
from tools.agreement.tiny import SIZE, official_model, write_tiny

BLOCKS, DEPTH = 4, 3  # so that prompts of the last depth run through a further block
Build = Callable[..., nn.Module]


def tiny(scratch: Path, **widths: int) -> str:
    """The tiny CLIP with a further block; returns the name of the backbone."""
    return write_tiny(scratch / "tiny", blocks=BLOCKS, **widths)


@contextmanager
def prompted(checkout: Path, scratch: Path, trainer: str) -> Iterator[tuple[Any, Build]]:
    """Within this context half precision is float32 in the official code.

    Args:
        checkout: of the official code.
        scratch: where `tiny` has been written.
        trainer: module of the method, as "maple".

    Yields:
        The module, and what builds its CLIP from `vision_depth=2` and the like, all parameters frozen but the prompts.
    """
    with (
        official(checkout, f"trainers.{trainer}", "clip.model") as (module, model),
        mock.patch.object(torch.Tensor, "half", lambda self: self),
        mock.patch.object(nn.Module, "half", lambda self: self),
    ):

        def build(**design: Any) -> nn.Module:
            none = {"vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}
            tower = official_model(scratch / "tiny", lambda state: model.build_model(state, none | design))
            for name, parameter in tower.named_parameters():
                parameter.requires_grad_("VPT" in name)
            return tower

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            yield module, build


def config(**settings: Any) -> Any:
    """What the official classes read of their config, `settings` below the trainer's name."""
    ((name, values),) = settings.items()
    size = SimpleNamespace(SIZE=(SIZE, SIZE))
    trainer = SimpleNamespace(**{name: SimpleNamespace(PREC="fp32", CTX_INIT="a photo of a", **values)})
    return SimpleNamespace(TRAINER=trainer, INPUT=size, OPTIM=SimpleNamespace(MAX_EPOCH=5))


def of_image_tower(tower: Any) -> dict[str, nn.Parameter]:
    """Prompts inside an official image tower, by the names of `ImagePrompts`."""
    blocks = list(tower.transformer.resblocks)
    deeper = {f"prompts.{n}": block.VPT_shallow for n, block in enumerate(blocks) if hasattr(block, "VPT_shallow")}
    return {"prompts.0": tower.VPT} | deeper


def of_text_tower(transformer: Any) -> dict[str, nn.Parameter]:
    """Prompts inside an official text tower, by the names of `TextPrompts`."""
    blocks = list(transformer.resblocks)
    return {f"deeper.{n - 1}": block.VPT_shallow for n, block in enumerate(blocks) if hasattr(block, "VPT_shallow")}


def sgd(tensors: Any) -> torch.optim.Optimizer:
    """The optimiser of all of them."""
    return torch.optim.SGD(tensors, lr=0.0025, momentum=0.9, weight_decay=5e-4)


@contextmanager
def training(model: nn.Module, now: bool) -> Iterator[None]:
    """Whether an official model answers with its loss or with logits, within this context."""
    before = model.training
    model.train(now)
    try:
        yield
    finally:
        model.train(before)


def copy_into(parameters: dict[str, nn.Parameter], values: dict[str, nn.Parameter]) -> None:
    """Set one model's prompts to another's."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """What it answers when it does not train."""
    with training(model, False):
        logits: Tensor = model(images)
    return logits
