"""clipbench: few-shot CLIP benchmarks, many fine-tuning methods around a frozen CLIP under one exact protocol.

Every method and data module is imported from here, `from clipbench import CLIPFit, FewShotDataModule`, and only then
loads what it needs (torch, Lightning).
"""

from __future__ import annotations

import importlib
from typing import Any

from clipbench.methods import METHODS

__version__ = "0.2.0"

_DATA = ("FewShotDataModule", "ImageFolder", "Manifest")
_PLACES = (
    METHODS | {"Method": "clipbench.methods.base:Method"} | {name: f"clipbench.data.module:{name}" for name in _DATA}
)

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    """The class of that name, imported when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """Also what has not been imported yet."""
    return sorted({*globals(), *_PLACES})
