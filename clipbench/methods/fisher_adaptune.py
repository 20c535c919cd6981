"""FisherAdapTune on CLIP: fine-tune everything, freeze what has settled (Rostami, Chen, Hosseini, arXiv 2606.10196).

Trained at the start: the blocks of both towers, their LayerNorms and the two projections; neither embeddings nor the
logit scale. On the way the groups of tensors whose Fisher values no longer drift are frozen for ever, by the callback
`FisherFreezing`. Loss, since a few shots are known to degrade a CLIP that is tuned as a whole [ours, after CLIPFit]:

    L = CE(s v . t_c, y) + lambda (1 - mean_c cos(t_c, t0_c)),  lambda = 8

The paper and its code know crack segmentation with SAM2 and SegFormer only; this use on CLIP is ours, so are learning
rate and epochs. Of the paper only the abstract could be read: what is frozen when follows its code, with the faults of
that (`mode: faithful`) or without (`corrected`, the default); `clipbench.tuning.fisher_settings` lists the differences.

"Parameter-efficient" is true of the end only: `trained_parameters` counts all, `trained_parameters_end` what is left,
and the learned weights hold every tensor that has moved, which is hundreds of megabytes for full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.argument_types import refuse_wrong_types
from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.methods.fisher_freezing import FisherFreezing
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.fisher_settings import Mode, settings_of_mode
from clipbench.tuning.selection import needs_of, select_tensors

ALL_BUT_EMBEDDINGS = ("both towers, blocks all, everything", "both towers, LayerNorm", "both towers, proj")


class FisherAdapTune(Method):
    """FisherAdapTune.

    Args:
        train: the tensors to begin with, as sentences (`tuning/selection.py`).
        mode: "corrected" or "faithful".
        freezing: settings of `FisherFreezing` that differ from the mode's, by name.
        distillation_weight: lambda, the weight of the distillation from the class features before training.
        shared: the arguments of `Method`.
    """

    def __init__(
        self,
        train: Sequence[str] = ALL_BUT_EMBEDDINGS,
        mode: Mode = "corrected",
        freezing: dict[str, Any] | None = None,
        distillation_weight: float = 8.0,
        **shared: Any,
    ) -> None:
        refuse_wrong_types(type(self), {"mode": mode, "freezing": freezing})
        settings_of_mode(mode, freezing or {})  # a wrong one is refused before anything is loaded
        if "mode" in (freezing or {}):
            raise ConfigError("the mode of FisherAdapTune is its argument `mode`, not a setting below `freezing`")
        super().__init__(**shared)
        self.selection = tuple(train)
        self.mode: Mode = mode
        self.freezing = dict(freezing or {})
        self.distillation = Distillation(distillation_weight)
        if "image" in self.requires():
            reason = "the blocks are those of our transformer, which has neither BatchNorm nor dropout"
            self.exempt = {"check_batchnorm_and_dropout_stay_frozen": reason}

    def requires(self) -> Mapping[str, set[str]]:
        """What the selection needs."""
        return needs_of(self.hparams_initial["train"])

    def build(self) -> dict[str, nn.Parameter]:
        """Unfreeze the tensors to begin with."""
        return self.backbone.unfreeze(select_tensors(self.backbone, self.selection))

    def num_trainable(self) -> int:
        """The entries of the tensors to begin with."""
        return sum(tensor.numel() for tensor in select_tensors(self.backbone, self.selection).values())

    def configure_callbacks(self) -> list[FisherFreezing]:  # type: ignore[override]
        """The callback that freezes what has settled; Lightning asks for it before a fit."""
        return [FisherFreezing(self.mode, **self.freezing)]

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and the distillation."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """The tensors that have moved; those that were frozen before they did are what they began as."""
        return {name: tensor for name, tensor in self.weights.state().items() if not self._has_stayed(name, tensor)}

    def load_adapter_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Put those tensors back; the others stay as they are.

        Raises:
            MethodError: they are not of this selection, or of another shape.
        """
        self.weights.load(tensors, partial=True)

    def _has_stayed(self, name: str, tensor: Tensor) -> bool:
        return torch.equal(tensor, self.weights.beginning(name).to(tensor.device))
