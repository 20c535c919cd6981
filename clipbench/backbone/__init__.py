"""The frozen CLIP: names and specs, one transformer for both towers, prompts as data.

Torch is imported only when something that needs it is asked for: `spec`, `catalogue`, `shapes` and `prompts` are light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.spec import BackboneSpec, Preprocessing, known_architectures, require, resolve_spec

if TYPE_CHECKING:
    from clipbench.backbone.clip import Backbone, backbone_hash, build_backbone, describe_backbone, load_backbone
    from clipbench.backbone.text_tokens import TextTokens
    from clipbench.backbone.tokens import ImageTokens, Tokens, hook

_LAZY = {
    "Backbone": "clip",
    "backbone_hash": "clip",
    "build_backbone": "clip",
    "describe_backbone": "clip",
    "load_backbone": "clip",
    "Tokens": "tokens",
    "hook": "tokens",
    "ImageTokens": "tokens",
    "TextTokens": "text_tokens",
}

__all__ = [
    "Backbone",
    "BackboneSpec",
    "ImageTokens",
    "Preprocessing",
    "PromptPlan",
    "TextTokens",
    "Tokens",
    "backbone_hash",
    "build_backbone",
    "describe_backbone",
    "hook",
    "known_architectures",
    "load_backbone",
    "require",
    "resolve_spec",
]


def __getattr__(name: str) -> Any:
    """Import the torch part of the room on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"clipbench.backbone.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
