"""FisherAdapTune on CLIP: fine-tune everything, freeze what has settled (Rostami, Chen, Hosseini, arXiv 2606.10196).

Trained at the start: the blocks of both towers, their LayerNorms and the two projections; neither embeddings nor the
logit scale. On the way the groups of tensors whose Fisher values no longer drift are frozen for ever, by the callback
`FisherFreezing`. Loss, since a few shots are known to degrade a CLIP that is tuned as a whole [ours, after CLIPFit]:

    L = CE(s v . t_c, y) + lambda (1 - mean_c cos(t_c, t0_c)),  lambda = 8

The paper and its code know crack segmentation with SAM2 and SegFormer only; this use on CLIP is ours, so are learning
rate and epochs. Of the paper only the abstract could be read: what is frozen when follows its code, with the faults of
that (`mode: faithful`) or without (`corrected`, the default); `clipbench.tuning.fisher_settings` lists the differences.

"Parameter-efficient" is true of the end only: `trained_parameters` counts all, `trained_parameters_end` what is left,
and the deliverable stores every tensor that has moved, which is hundreds of megabytes for full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipbench.errors import ConfigError
from clipbench.methods.fine_tuning import FineTuning
from clipbench.methods.fisher_freezing import FisherFreezing
from clipbench.methods.linear_tuning import needs_of
from clipbench.tuning.fisher_settings import Mode, settings_of_mode

ALL_BUT_EMBEDDINGS = ("both towers, blocks all, everything", "both towers, LayerNorm", "both towers, proj")


class FisherAdapTune(FineTuning):
    """FisherAdapTune.

    Args:
        train: the tensors to begin with, as sentences.
        mode: `corrected` or `faithful`.
        freezing: settings of `FisherFreezing` that differ from the mode's, by name.
        distillation_weight: lambda.
        shared: the arguments of `TowerTuning`.
    """

    needs: ClassVar = {"image": {"transformer"}, "text": {"transformer"}}  # of the default; an object has its own

    def __init__(
        self,
        train: Sequence[str] = ALL_BUT_EMBEDDINGS,
        mode: Mode = "corrected",
        freezing: dict[str, Any] | None = None,
        distillation_weight: float = 8.0,
        **shared: Any,
    ) -> None:
        self.needs = needs_of(train)  # type: ignore[misc]
        settings_of_mode(mode, freezing or {})  # a wrong one is told before anything is loaded
        if "mode" in (freezing or {}):
            raise ConfigError("the mode of FisherAdapTune is its argument `mode`, not a setting below `freezing`")
        super().__init__(train=train, distillation_weight=distillation_weight, **shared)
        self.mode: Mode = mode
        self.freezing = dict(freezing or {})
        if "image" in self.needs:
            reason = "the blocks are those of our transformer, which has neither BatchNorm nor dropout"
            self.exempt = {"check_batchnorm_and_dropout_stay_frozen": reason}

    def configure_callbacks(self) -> list[FisherFreezing]:  # type: ignore[override]
        """Lightning asks for it before a fit."""
        return [FisherFreezing(self.mode, **self.freezing)]

    def learned(self) -> dict[str, Tensor]:
        """The tensors that have moved; those that were frozen before they did are the pretrained ones."""
        return {name: tensor for name, tensor in super().learned().items() if not self._is_as_built(name, tensor)}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Put those tensors back; the others stay as they are.

        Raises:
            MethodError: they are not of this selection, or of another shape.
        """
        trained = self.built()
        self.refuse_other_shapes(tensors, {name: tuple(trained[name].shape) for name in tensors if name in trained})
        with torch.no_grad():
            for name, tensor in tensors.items():
                trained[name].copy_(tensor)
        self.forget()

    def _is_as_built(self, name: str, tensor: Tensor) -> bool:
        return torch.equal(tensor, self._at_start[name].to(tensor.device))
