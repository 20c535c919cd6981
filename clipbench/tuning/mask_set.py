"""The masks of a method: put over weights, stored as bits, and what they came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.backbone.view import BackboneView
from clipbench.errors import MethodError
from clipbench.tuning.learned_weights import refuse_other_shapes
from clipbench.tuning.masks import Mask, MaskedLinear, pack, unpack

MakeMask = Callable[[str, Tensor], Mask]
"""From a tensor's name and value to the mask over it."""


class MaskSet:
    """Masks over weights of the backbone, by the full name of the masked tensor.

    Attributes:
        masks: name to mask.
    """

    def __init__(self) -> None:
        self.masks: dict[str, Mask] = {}
        self._first: dict[str, Tensor] = {}

    def put(
        self, backbone: BackboneView, linears: Iterable[str], tensors: Iterable[str], make: MakeMask
    ) -> dict[str, nn.Parameter]:
        """Mask the weights of Linears, and bare tensors.

        Args:
            backbone: a method's view.
            linears: their names, for example "image.blocks.8.attn.q_proj".
            tensors: names of bare parameters, for example "image.proj".
            make: the mask over one of them.

        Returns:
            The scores by name, for example "image.blocks.8.attn.q_proj.weight.scores".
        """
        self.masks = {}
        for name in linears:
            weight = f"{name}.weight"

            def masked(linear: nn.Linear, weight: str = weight) -> MaskedLinear:
                self.masks[weight] = make(weight, linear.weight)
                return MaskedLinear(linear, self.masks[weight])

            backbone.replace_linear(name, masked)
        for name in tensors:
            self.masks[name] = make(name, backbone.get_parameter(name))
        for name in tensors:
            backbone.parametrize(name, self.masks[name])
        return {f"{name}.scores": mask.scores for name, mask in self.masks.items()}

    @property
    def hard(self) -> bool:
        """Whether one bit per weight says all."""
        return all(mask.rule.hard for mask in self.masks.values())

    def bits(self) -> dict[str, Tensor]:
        """Hard masks as their bits (uint8, eight entries a byte, row by row), soft ones as their scores.

        Raises:
            MethodError: they were interpolated, which neither says.
        """
        if any(mask.alpha != 1 for mask in self.masks.values()):
            raise MethodError("masks that were interpolated cannot be stored: store them before, for WiSEFT")
        out = {}
        for name, mask in self.masks.items():
            if mask.rule.hard:
                out[f"{name}.bits"] = pack(mask.gate())
            else:
                out[f"{name}.scores"] = mask.scores.detach()
        return out

    def load_bits(self, tensors: Mapping[str, Tensor]) -> None:
        """What `bits` gave: for hard masks scores of which the same rule makes the same gates; nothing is interpolated.

        Raises:
            MethodError: tensors that are missing, too many, or not of this shape and keep ratio.
        """
        if not self.hard:
            refuse_other_shapes(tensors, {f"{name}.scores": mask.scores for name, mask in self.masks.items()})
        elif odd := sorted(set(tensors) ^ {f"{name}.bits" for name in self.masks})[:4]:
            raise MethodError(f"the stored masks do not fit: {odd}")
        with torch.no_grad():
            for name, mask in self.masks.items():
                if mask.rule.hard:
                    gate = unpack(tensors[f"{name}.bits"], mask.scores.shape)
                    mask.scores.copy_(mask.rule.scores_of(gate))
                else:
                    mask.scores.copy_(tensors[f"{name}.scores"])
                mask.alpha = 1.0
        self.clear_cache()

    def clear_cache(self) -> None:
        """Let go of the masked weights that were formed."""
        for mask in self.masks.values():
            mask.clear_cache()

    def begin(self) -> None:
        """Take down the gates that training begins with."""
        self._first = {name: pack(mask.gate()) for name, mask in self.masks.items() if mask.rule.hard}

    def diagnostics(self) -> dict[str, Any]:
        """Kept share of all entries and of every matrix (of soft gates the mean), and share of gates that turned."""
        entries = {name: mask.scores.numel() for name, mask in self.masks.items()}
        kept = {name: mask.kept() for name, mask in self.masks.items()}
        total = sum(entries.values())
        shares: dict[str, Any] = {
            "kept": sum(kept[name] * entries[name] for name in kept) / total,
            "kept_by_matrix": {name: round(share, 6) for name, share in kept.items()},
        }
        if self._first:
            turned = 0
            for name, first in self._first.items():
                gate = self.masks[name].gate()
                turned += int((unpack(first, gate.shape).to(gate.device) ^ gate).sum())
            shares["turned"] = turned / total
            self._first = {}
        return shares
