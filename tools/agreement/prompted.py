"""What the two repositories of deep prompts share: CLIP models with prompts inside, in float32 throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from tools.agreement.checkout import config, official
from tools.agreement.side import sgd
from tools.agreement.tiny import official_model, write_tiny

BLOCKS, DEPTH = 4, 3  # so that prompts of the last depth run through a further block
SGD = sgd(0.0025)  # of all of them
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


def prompts(name: str, **settings: Any) -> Any:
    """What the official classes read of their config, the settings below the trainer's name."""
    common = {"PREC": "fp32", "CTX_INIT": "a photo of a"}
    return config(TRAINER={name: common | settings}, OPTIM={"MAX_EPOCH": 5})


def of_image_tower(tower: Any) -> dict[str, nn.Parameter]:
    """Prompts inside an official image tower, by the names of `ImagePrompts`."""
    blocks = list(tower.transformer.resblocks)
    deeper = {f"prompts.{n}": block.VPT_shallow for n, block in enumerate(blocks) if hasattr(block, "VPT_shallow")}
    return {"prompts.0": tower.VPT} | deeper


def of_text_tower(transformer: Any) -> dict[str, nn.Parameter]:
    """Prompts inside an official text tower, by the names of `TextPrompts`."""
    blocks = list(transformer.resblocks)
    return {f"deeper.{n - 1}": block.VPT_shallow for n, block in enumerate(blocks) if hasattr(block, "VPT_shallow")}


def of_both_towers(model: Any) -> dict[str, nn.Parameter]:
    """Prompts of both towers that know nothing of each other, by our names."""
    text = {"context.vectors": model.prompt_learner.ctx} | of_text_tower(model.text_encoder.transformer)
    found = {f"text_prompts.{name}": p for name, p in text.items()}
    return found | {f"image_prompts.{name}": p for name, p in of_image_tower(model.image_encoder).items()}


def both_depths(length: int, depth: int) -> tuple[dict[str, int], dict[str, int]]:
    """Prompts of one length and depth in both towers, for the config and for what builds the CLIP."""
    settings = {"N_CTX_TEXT": length, "N_CTX_VISION": length}
    settings |= {"PROMPT_DEPTH_TEXT": depth, "PROMPT_DEPTH_VISION": depth}
    design = {"vision_depth": depth, "language_depth": depth, "vision_ctx": length, "language_ctx": length}
    return settings, design
