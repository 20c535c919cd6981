"""Towers of other shapes (ResNet, timm, Hugging Face, CoCa's text): open_clip's own modules behind our interface.

They have features and nothing else: no hooks, no learned rows, no packing. In a view their tensors can be unfrozen and
their Linears replaced by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.backbone import hub
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.spec import BackboneSpec
from clipbench.backbone.tokens import Hooks
from clipbench.backbone.transformer import Frozen
from clipbench.backbone.weights import Entry
from clipbench.errors import BackboneError

NOT_THERE = (ImportError, OSError, RuntimeError, ValueError, AssertionError)  # a library, a model, a size that it takes
WRONG_CONFIG = (*NOT_THERE, TypeError, LookupError, AttributeError)  # also what a config of one's own may lead to


class OpenClipTower(Frozen):
    """A module of open_clip.

    Args:
        module: the tower.
        reason: why it is not our transformer.
        prefix: of its tensors in open_clip's state dict.
    """

    def __init__(self, module: nn.Module, reason: str, prefix: str) -> None:
        super().__init__()
        self.module, self.reason, self.prefix = module, reason, prefix

    def table(self) -> list[Entry]:
        """How open_clip names the tensors of this tower."""
        return [Entry(name, self.prefix + name.removeprefix("module.")) for name in self.state_dict()]

    def _refuse_hooks(self, tower: str, *hooks: Hooks | None) -> None:
        if any(hooks):
            raise BackboneError(f"the {tower} tower takes no hooks: {self.reason}")


class OpenClipImageTower(OpenClipTower):
    """An image tower that is not our transformer."""

    def forward(self, images: Tensor, before_block: Hooks | None = None, after_block: Hooks | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels to (B, D) features.

        Raises:
            BackboneError: hooks were given.
        """
        self._refuse_hooks("image", before_block, after_block)
        features = self.module(images.to(next(self.module.parameters()).dtype))
        return features[0] if isinstance(features, tuple) else features


class OpenClipTextTower(OpenClipTower):
    """A text tower that is not our transformer.

    Args:
        module: the tower.
        reason: why it is not our transformer.
        prefix: of its tensors in open_clip's state dict.
        context_length: most tokens of a prompt.
        pad: id that fills sequences up.
    """

    def __init__(self, module: nn.Module, reason: str, prefix: str, context_length: int, pad: int) -> None:
        super().__init__(module, reason, prefix)
        self.context_length, self.pad = context_length, pad

    def forward(
        self,
        plan: PromptPlan,
        extra: Tensor | None = None,
        before_block: Hooks | None = None,
        after_block: Hooks | None = None,
        share_prefix: bool = True,
    ) -> Tensor:
        """(C, D) features of the classes of a plan, each padded to the whole context.

        Raises:
            BackboneError: learned rows or hooks were given, or a prompt is too long.
        """
        self._refuse_hooks("text", before_block, after_block)
        if extra is not None:
            raise BackboneError(f"the text tower takes no learned context: {self.reason}")
        device = next(self.module.parameters()).device
        longest = max(map(len, plan.sequences))
        if longest > self.context_length:
            raise BackboneError(f"a prompt has {longest} tokens, but the text tower takes {self.context_length}")
        ids = torch.full((len(plan), self.context_length), self.pad, dtype=torch.long)
        for c, sequence in enumerate(plan.sequences):
            ids[c, : len(sequence)] = torch.tensor(sequence)
        features = self.module(ids.to(device))
        return features[0] if isinstance(features, tuple) else features


def build_image(spec: BackboneSpec, reason: str) -> OpenClipImageTower:
    """The image tower of a spec, built by open_clip, with untrained weights.

    Raises:
        BackboneError: a library that it needs is missing, or it cannot be built.
    """
    from open_clip.model import _build_vision_tower

    config = dict(spec.config["vision_cfg"])
    if config.get("timm_model_name"):
        config["timm_model_pretrained"] = False
    module = _built(spec, "image", lambda: _build_vision_tower(spec.config["embed_dim"], config, _quick(spec)))
    if spec.resized and hasattr(module, "set_input_size"):
        resize: Any = module.set_input_size
        _built(spec, "image", lambda: resize(spec.image_size) or module)
    return OpenClipImageTower(module, reason, "visual.")


def build_text(spec: BackboneSpec, reason: str, prefix: str) -> OpenClipTextTower:
    """The text tower of a spec, built by open_clip, with untrained weights.

    Raises:
        BackboneError: a library that it needs is missing, or it cannot be built.
    """
    config = dict(spec.config["text_cfg"])
    if config.get("hf_model_name"):
        config["hf_model_pretrained"] = False
        _refuse_absent(spec, str(config["hf_model_name"]))
    from open_clip.model import _build_text_tower

    module = _built(spec, "text", lambda: _build_text_tower(spec.config["embed_dim"], config, _quick(spec)))
    return OpenClipTextTower(module, reason, prefix, config.get("context_length", 77), config.get("pad_id", 0))


def _refuse_absent(spec: BackboneSpec, model: str) -> None:
    """Raises a BackboneError at once where transformers could neither find nor fetch the config of a text tower."""
    if Path(model).is_dir() or hub.cached(model, ["config.json"]) is not None:
        return
    try:
        hub.refuse_offline(hub.HUB)
    except hub.NotFetched as reason:
        raise BackboneError(
            f"the text tower of backbone '{spec.name}' needs config.json of {hub.HUB}/{model}, which is not on this"
            f" machine and could not be downloaded ({reason})"
        ) from reason


def _quick(spec: BackboneSpec) -> bool:
    return spec.activation == "quickgelu"


def _built(spec: BackboneSpec, tower: str, make: Any) -> nn.Module:
    users = WRONG_CONFIG if spec.own_config else NOT_THERE
    try:
        module: nn.Module = make()
    except users as error:
        raise BackboneError(
            f"the {tower} tower of backbone '{spec.name}' cannot be built ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    return module
