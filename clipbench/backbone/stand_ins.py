"""Modules in the place of a Linear: what they may be able to do, and whether they are random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from clipbench.backbone.state import state_of

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


class MergedLinears:
    """Modules written as plain Linears, each kept for as long as the module's tensors stay the same."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, nn.Linear]] = {}

    def of(self, name: str, module: Any, device: torch.device) -> nn.Linear:
        """The Linear of a `Mergeable` module.

        Args:
            name: under which it is kept.
            module: to be written as one.
            device: where it is.
        """
        state = state_of([*module.parameters(), *module.buffers()])
        if name not in self._kept or self._kept[name][0] != state:
            # in the precision of the tensors, since what is kept serves inside and outside of mixed precision
            exact = torch.autocast(device.type, enabled=False)
            with torch.inference_mode(False), torch.no_grad(), exact:
                linear = module.merged().eval().requires_grad_(False)
            self._kept[name] = (state, linear)
        return self._kept[name][1]

    def clear(self) -> None:
        """Keep none."""
        self._kept.clear()


def draws_noise(module: nn.Module) -> bool:
    """Whether a module is random now: it says so, or holds an active dropout."""
    stated = getattr(module, "stochastic", None)
    if stated is not None:
        return bool(stated) and module.training
    return any(isinstance(part, DROPOUTS) and part.training and part.p > 0 for part in module.modules())
