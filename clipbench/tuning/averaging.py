"""Average of what is trained over the epochs of a fit, weighted by a Gaussian in the epoch (Khattak et al., ICCV 2023).

    sum_e w_e theta_e,   w_e proportional to exp(-(e - mean)^2 / (2 std^2)),   e = 1 .. E,   sum_e w_e = 1

It is kept as a running mean, which does not need to know E: after epoch e it is the average over the epochs until then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError, MethodError


class GaussianAverage:
    """The running average.

    Args:
        mean: the epoch, counted from 1, that weighs most.
        std: in epochs, above 0.

    Raises:
        ConfigError: a spread that is not above 0.
    """

    def __init__(self, mean: float, std: float) -> None:
        if not std > 0:
            raise ConfigError(f"the average over epochs needs a standard deviation above 0, it is {std}")
        self.mean, self.std = mean, std
        self.begin()

    def begin(self) -> None:
        """Forget all epochs."""
        self.values: dict[str, Tensor] = {}
        self.log_total = -math.inf  # of the weights so far, which themselves may be too small for a float

    @torch.no_grad()
    def add(self, epoch: int, tensors: Mapping[str, Tensor]) -> None:
        """Take in the tensors as they are at the end of an epoch.

        Args:
            epoch: counted from 1.
            tensors: by name, the same ones every time.
        """
        log_weight = -0.5 * ((epoch - self.mean) / self.std) ** 2
        high, low = max(log_weight, self.log_total), min(log_weight, self.log_total)
        self.log_total = high + math.log1p(math.exp(low - high))
        share = math.exp(log_weight - self.log_total)
        for name, tensor in tensors.items():
            before = self.values.get(name)
            value = tensor.detach()
            self.values[name] = value.clone() if before is None else before.to(value).lerp(value, share)

    @torch.no_grad()
    def put(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Write the average into the parameters and forget it; without an epoch they stay as they are."""
        for name, value in self.values.items():
            parameters[name].copy_(value)
        self.begin()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs."""
        return {"values": dict(self.values), "log_total": self.log_total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; MethodError where it is none."""
        if set(state) != {"values", "log_total"}:
            raise MethodError("the checkpoint holds no average over epochs, as this method keeps one")
        self.values, self.log_total = dict(state["values"]), float(state["log_total"])
