"""Fine-tuning of selected tensors of the towers in place: of all of them, of the biases, of the LayerNorms.

One method, told apart by which tensors move; numbers on ViT-B/16:

- `full`, everything but the token embeddings and the logit scale: 124,323,840. AdamW 3e-5 with weight decay 0.1, a
  cosine per step after a warm-up, the gradient's norm clipped to 1, as WiSE-FT fine-tunes
  (mlfoundations/wise-ft@58b7a4b README and `finetune.py` [code]: batch 512, 10 epochs, 500 warm-up steps of 25,000).
  Batch 32, the epochs of CLIPFit and 50 warm-up steps are ours, made for a few shots; so is the text tower's part,
  where WiSE-FT trains the image tower and a head. `full_image` and `full_text` are the two halves [ours].
- `bitfit`, every bias vector, those of LayerNorms too (Ben Zaken et al., ACL 2022, arXiv 2106.10199): 171,008. Variants
  by `train`: without LayerNorms 138,240; as the code of 2SFS selects them, which misses the stacked biases of q, k and
  v, 124,928.
- `layer_norm`, weight and bias of every LayerNorm: 65,536. The code of 2SFS freezes `ln_pre`, `ln_post` and `ln_final`
  again by accident and trains 61,440 in effect; "both towers, blocks all, LayerNorm" is that.

`bitfit` and `layer_norm` run as FarinaMatteo/rethinking_fewshot_vlms@64ac143 `fs/ln_only.py` does [code]: AdamW 2e-4,
weight decay 0.01, 300 x shots steps of 32 images, cosine per step to 1e-6, one template for all datasets. All trained
tensors are float32 here, as there. Loss: cross-entropy, nothing else; CLIPFit's distillation as an option [ours].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.methods.base import Method
from clipbench.tuning.distillation import Distillation
from clipbench.tuning.selection import needs_of, select_tensors


class FineTuning(Method):
    """Fine-tuning of selected tensors.

    Args:
        train: the tensors, as sentences (`tuning/selection.py`).
        distillation_weight: weight of the distillation from the class features before training; 0: none.
        shared: the arguments of `Method`.
    """

    def __init__(
        self,
        train: Sequence[str] = ("both towers, everything, except token_embedding.weight",),
        distillation_weight: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.selection = tuple(train)
        self.distillation = Distillation(distillation_weight)

    def requires(self) -> Mapping[str, set[str]]:
        """What the selection needs."""
        return needs_of(self.hparams_initial["train"])

    def build(self) -> dict[str, nn.Parameter]:
        """Unfreeze the tensors."""
        return self.backbone.unfreeze(select_tensors(self.backbone, self.selection))

    def num_trainable(self) -> int:
        """The entries of the selected tensors."""
        return sum(tensor.numel() for tensor in select_tensors(self.backbone, self.selection).values())

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and the distillation where it has a weight."""
        terms = super().losses(logits, labels, classes)
        return terms | self.distillation.terms(classes, self.prompts, self.classnames)
