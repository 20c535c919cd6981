"""CLAP: a linear probe that starts at zero-shot CLIP and is held there class by class (Silva-Rodriguez et al., CVPR
2024, arXiv 2312.12730).

    logits_c = s v . w_c,  v and w unit vectors,   w_c = t_c at the start
    CE + penalty x mean over classes of alpha_c |w_c - t_c|^2,   penalty 1

with t_c the text feature, not normalised, and alpha_c the mean probability that zero-shot CLIP gives to class c on the
train images of c: a class that zero-shot knows is held more. Trained is the difference w - t. The features are those of
20 augmented passes, computed once; an epoch draws as many batches from all of them as one pass has.

The loss has no scale of its own: for the same change of the logits |w - t|^2 grows with (|t| / s)^2, so that a backbone
with a smaller logit scale or longer text features than CLIP's is held more; `penalty` makes up for it.

Official code: jusiro/CLAP@dbdf409 `trainers/adapters.py`, initial weights ZS, constraint l2. Its settings choose
nothing on val or test images (test accuracy is computed after each batch, and only logged). Differences: float32
instead of half; rows are drawn by seed and epoch; the crops of pass k are those of epoch k. The weights have no meaning
for other classes: zero-shot answers there [ours].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.methods.loss import loss_of_step
from clipbench.randomness import torch_generator
from clipbench.tuning.feature_bank import FeatureBank, refuse_passes
from clipbench.tuning.rows import rows_of


def multipliers(logits: Tensor, labels: Tensor) -> Tensor:
    """alpha (C,): the mean probability of each class over its own images; 0 for a class without one.

    Args:
        logits: (N, C), zero-shot's.
        labels: (N,).
    """
    own = logits.softmax(dim=-1).gather(1, labels[:, None])[:, 0]
    sums, counts = own.new_zeros((2, logits.shape[1]))
    return sums.index_add(0, labels, own) / counts.index_add(0, labels, torch.ones_like(own)).clamp(min=1)


class CLAP(Method):
    """CLAP.

    Args:
        passes: augmented passes whose features are trained on.
        penalty: weight with which the weights are held, 0 or more; with 0 it is the probe that the authors call ZS-LP.
        shared: the arguments of `Method`.

    Raises:
        ConfigError: a penalty below 0.
    """

    novel_rule = "frozen"
    class_bound = ("difference",)
    sees_images = False  # it trains on the bank: the loader only counts batches

    def __init__(self, passes: int = 20, penalty: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        refuse_passes(passes)
        if penalty < 0:
            raise ConfigError(f"penalty of CLAP must not be below 0, it is {penalty}")
        self.passes, self.penalty = passes, penalty
        self.alpha: Tensor | None = None
        self._order = (-1, torch.zeros(0, dtype=torch.int64))  # epoch and its rows

    def build(self) -> dict[str, nn.Parameter]:
        """w - t, zero."""
        shape = (len(self.classnames), self.backbone.embed_dim)
        self.difference = nn.Parameter(torch.zeros(shape, device=self.backbone.logit_scale.device))
        return {"difference": self.difference}

    def num_trainable(self) -> int:
        """C D."""
        return len(self.classnames) * self.backbone.embed_dim

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """w of trained classes, (C, D).

        Raises:
            UnknownName: a class that was not trained on.
        """
        difference = rows_of(self.difference, classnames, self.classnames, "CLAP")
        return self.prompts.features(classnames, mean="raw") + difference

    # The features, and how much each class is held

    def on_train_start(self) -> None:
        """Compute the features and alpha; nothing of them is stored, a fit that goes on computes them again."""
        bank = FeatureBank.fill(self.backbone, self.trainer.datamodule, self.passes)  # type: ignore[attr-defined]
        self.hold(bank)
        self.diagnostics |= {"rows": len(self._rows[1])}

    def hold(self, bank: FeatureBank) -> None:
        """Train on these features, with the alpha that zero-shot CLIP has on them."""
        self._rows = bank.concatenated()
        with torch.no_grad():
            zero_shot = self.backbone.logits(self._rows[0], self.prompts.features(self.classnames, mean="raw"))
            self.alpha = multipliers(zero_shot, self._rows[1])

    def on_train_end(self) -> None:
        """The features go."""
        del self._rows

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step on rows of the bank."""
        size: int = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        if self._order[0] != self.current_epoch:
            generator = torch_generator(self.train_seed, "rows", self.current_epoch)
            self._order = self.current_epoch, torch.randperm(len(self._rows[1]), generator=generator)
        chosen = self._order[1][batch_idx * size : (batch_idx + 1) * size].to(self.device)
        features, labels = (tensor[chosen] for tensor in self._rows)
        classes = self.class_features(self.classnames)
        logits = self.logits(features, classes)
        return loss_of_step(self, logits, self.losses(logits, labels, classes), batch_idx)

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and once alpha is known the penalty."""
        terms = super().losses(logits, labels, classes)
        if self.penalty and self.alpha is not None:
            held = self.alpha.to(self.difference) * self.difference.square().sum(dim=-1)
            terms |= {"penalty": self.penalty * held.mean()}
        return terms
