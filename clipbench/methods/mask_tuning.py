"""The base of the strategies that learn masks over frozen weights: deliverables of bits, and what the masks came to.

A subclass puts masks in (`put_masks`) and says its rule; this class stores a hard mask as one bit per weight, takes it
back, and reports the kept share of every matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.errors import MethodError
from clipbench.methods.tower_tuning import TowerTuning
from clipbench.tuning.masks import Mask, MaskedLinear, pack, unpack

BATCHNORM = {
    "check_batchnorm_and_dropout_stay_frozen": "its masks need a transformer of ours as the image tower, and such a "
    "tower has neither BatchNorm nor dropout"
}
MakeMask = Callable[[str, Tensor], Mask]
"""From a tensor's name and value to the mask over it."""


class MaskTuning(TowerTuning):
    """A strategy that learns masks.

    Args:
        shared: the arguments of `TowerTuning`.

    Attributes:
        masks: full name of the masked tensor to its mask.
    """

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.masks: dict[str, Mask] = {}
        self._first_gates: dict[str, Tensor] = {}

    def put_masks(self, linears: Iterable[str], tensors: Iterable[str], make: MakeMask) -> dict[str, nn.Parameter]:
        """Mask the weights of Linears, and bare tensors, of the backbone.

        Args:
            linears: their names, for example "image.blocks.8.attn.q_proj".
            tensors: names of bare parameters, for example "image.proj".
            make: the mask over one of them.

        Returns:
            The scores by name, for example "image.blocks.8.attn.q_proj.weight.scores".
        """
        self.masks = {}
        for name in linears:
            weight = f"{name}.weight"

            def over(linear: nn.Linear, weight: str = weight) -> MaskedLinear:
                self.masks[weight] = make(weight, linear.weight)
                return MaskedLinear(linear, self.masks[weight])

            self.backbone.reparametrise(name, over)
        parameters = dict(self.backbone.named_parameters())
        for name in tensors:
            self.masks[name] = make(name, parameters[name])
        for name in tensors:
            self.backbone.reparametrise_tensor(name, self.masks[name])
        return {f"{name}.scores": mask.scores for name, mask in self.masks.items()}

    def learned(self) -> dict[str, Tensor]:
        """A hard mask as its bits (uint8, eight entries a byte, row by row), a soft one as its scores."""
        out = {}
        for name, mask in self.masks.items():
            if mask.rule.hard:
                out[f"{name}.bits"] = pack(mask.gate())
            else:
                out[f"{name}.scores"] = mask.scores.detach()
        return out

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Scores of which the same rule makes the same gates.

        Raises:
            MethodError: bits that are missing, too many, or not of this shape and keep ratio.
        """
        for mask in self.masks.values():
            mask.alpha = 1.0  # what is stored is not interpolated
        if not all(mask.rule.hard for mask in self.masks.values()):
            super().take(tensors)
            return
        wanted = {f"{name}.bits" for name in self.masks}
        if set(tensors) != wanted:
            odd = sorted(set(tensors) ^ wanted)[:4]
            raise MethodError(f"the stored tensors do not fit {type(self).__name__}: {odd}")
        with torch.no_grad():
            for name, mask in self.masks.items():
                gate = unpack(tensors[f"{name}.bits"], mask.scores.shape)
                mask.scores.copy_(mask.rule.scores_of(gate))
        self.forget()

    def lies_in_the_weights(self) -> bool:
        """Always: W * g is a weight."""
        return True

    def forget(self) -> None:
        """Let go of what was remembered, the masked weights included."""
        super().forget()
        for mask in self.masks.values():
            mask.forget()

    def release(self) -> None:
        """Give the backbone back; the masks go."""
        super().release()
        self.masks = {}

    def sum_of_rates(self) -> float:
        """The learning rates of all planned steps: about how far Adam can move a score that is always pushed."""
        steps = self.total_steps()
        if self.schedule == "cosine_per_step":
            rate, span = self._rate_of_step(), 1
        else:
            batches = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            rate, span = self._rate_of_epoch(), max(1, math.ceil(batches))
        return sum(rate(step // span) for step in range(steps))

    def on_fit_start(self) -> None:
        """Remember the gates that training begins with."""
        self._first_gates = {name: pack(mask.gate()) for name, mask in self.masks.items() if mask.rule.hard}

    def on_train_end(self) -> None:
        """Tell what the masks came to."""
        self.findings |= self.outcome()
        self._first_gates = {}

    def outcome(self) -> dict[str, Any]:
        """Kept share of all entries and of every matrix (of soft gates the mean), and share of gates that turned."""
        entries = {name: mask.scores.numel() for name, mask in self.masks.items()}
        kept = {name: mask.kept() for name, mask in self.masks.items()}
        total = sum(entries.values())
        told: dict[str, Any] = {
            "kept": sum(kept[name] * entries[name] for name in kept) / total,
            "kept_by_matrix": {name: round(share, 6) for name, share in kept.items()},
        }
        if self._first_gates:
            turned = sum(
                int((unpack(first, self.masks[name].scores.shape).to(self.device) ^ self.masks[name].gate()).sum())
                for name, first in self._first_gates.items()
            )
            told["turned"] = turned / total
        return told
