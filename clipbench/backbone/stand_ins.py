"""Modules in the place of a Linear: what they may be able to do, and whether they are random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import nn

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@runtime_checkable
class Mergeable(Protocol):
    """A module in the place of a Linear that can be written as a plain Linear for inference."""

    def merged(self) -> nn.Linear:
        """A new Linear with the same outputs in eval mode."""


@runtime_checkable
class Interpolable(Protocol):
    """A module in the place of a Linear that knows the way back to it."""

    def interpolate(self, alpha: float) -> None:
        """Outputs of the Linear at alpha 0, of the module as it is at alpha 1."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every module's."""


def draws_noise(module: nn.Module) -> bool:
    """Whether a module is random now: it says so, or holds an active dropout."""
    stated = getattr(module, "stochastic", None)
    if stated is not None:
        return bool(stated) and module.training
    return any(isinstance(part, DROPOUTS) and part.training and part.p > 0 for part in module.modules())
