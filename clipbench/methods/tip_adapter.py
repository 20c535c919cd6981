"""Tip-Adapter: a cache of the few images beside zero-shot CLIP (Zhang et al., ECCV 2022, arXiv 2207.09519).

The keys F are the features of the train images, the values their labels (section 3.1):

    f_i = mean over 10 augmented passes of the image tower's features, then unit length
    logits_c = s v . t_c + alpha sum over images i of class c of exp(-beta (1 - v . f_i))

v and t unit vectors, s CLIP's scale. `tip_adapter` stops here: nothing is trained. `tip_adapter_f` trains the keys,
which stay without normalisation, by cross-entropy on augmented images (AdamW with eps 1e-4, cosine a step).

A class has `cache_size` entries. Where it has fewer images the rest is empty: rows of zeros, which count for nothing
and stay zero, so the outcome is that of a smaller cache.

Official code: gaopengcuhk/Tip-Adapter@d0e2d6f `main.py`, `utils.py`. Not reproduced is what looks at more labelled
images than the shots: it evaluates the test set after every epoch of -F and keeps the best one, searches alpha and beta
on the whole val set (4,000 pairs; for ImageNet on the test set), and reports the better of both. Here: the last epoch,
and the released initial alpha and beta, which belong to RN50, on every backbone. Further differences: float32 instead
of half; the crops of pass k are those of epoch k; a short last batch is dropped; CLIP's own scale instead of the number
100. The cache knows the trained classes alone: zero-shot answers for others [ours].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.errors import ConfigError, MethodError
from clipbench.methods.base import Method
from clipbench.tuning.choices import refuse_unread
from clipbench.tuning.feature_bank import FeatureBank, ours, refuse_passes
from clipbench.tuning.learned_weights import refuse_other_shapes
from clipbench.tuning.optimisation import OptimizerName, ScheduleName
from clipbench.tuning.rows import rows_of

OF_TRAINING = ("lr", "momentum", "warmup_epochs", "warmup_lr", "warmup_steps", "final_lr", "eps")


def cache_logits(features: Tensor, keys: Tensor, beta: float) -> Tensor:
    """Sum over the entries of each class of exp(-beta (1 - v . f)), (B, C).

    Args:
        features: (B, D), unit vectors.
        keys: (C, S, D); an entry of zeros is empty.
        beta: sharpness.
    """
    affinity = features @ keys.flatten(0, 1).T
    full = (keys.detach() != 0).any(dim=-1)
    return ((beta * (affinity - 1)).exp().unflatten(1, full.shape) * full).sum(dim=-1)


def filled(features: Tensor, labels: Tensor, empty: Tensor) -> Tensor:
    """The cache (C, S, D) of images, each class's in their order.

    Args:
        features: (N, D).
        labels: (N,); no class has more than S images.
        empty: (C, S, D).
    """
    keys = torch.zeros_like(empty)
    for label in labels.unique().tolist():
        own = features[labels == label]
        keys[label, : len(own)] = own
    return keys


class TipAdapter(Method):
    """Tip-Adapter, and Tip-Adapter-F.

    Args:
        alpha: weight of the cache.
        beta: sharpness of the affinity, above 0.
        cache_size: entries of a class; no class may have more images.
        passes: augmented passes whose mean features are the keys.
        train_keys: whether the keys are trained (-F); if not, there are no settings of the optimiser.
        optimizer: of the training; None: sgd.
        weight_decay: of the training; None: 5e-4.
        schedule: of the training; None: cosine.
        shared: the further arguments of `Method`.
    """

    novel_rule = "frozen"
    class_bound = ("keys",)
    learns = True
    interpolates = False
    exempt: Mapping[str, str] = {
        "check_goes_back_to_where_it_began": "an empty cache is zero-shot, but half a key is no feature of an image"
    }

    def __init__(
        self,
        alpha: float = 1.17,
        beta: float = 1.0,
        cache_size: int = 16,
        passes: int = 10,
        train_keys: bool = True,
        optimizer: OptimizerName | None = None,
        weight_decay: float | None = None,
        schedule: ScheduleName | None = None,
        **shared: Any,
    ) -> None:
        training: dict[str, Any] = {"optimizer": optimizer, "weight_decay": weight_decay, "schedule": schedule}
        if not train_keys:
            given = {name: shared[name] for name in OF_TRAINING if name in shared}
            refuse_unread("without train_keys nothing is trained", **training, **given)
        super().__init__(**shared, **{name: value for name, value in training.items() if value is not None})
        if beta <= 0 or cache_size < 1:
            raise ConfigError(f"TipAdapter needs beta above 0 and cache_size 1 or more: {beta=}, {cache_size=}")
        refuse_passes(passes)
        self.alpha, self.beta, self.cache_size, self.passes = alpha, beta, cache_size, passes
        self.train_keys = self.automatic_optimization = train_keys

    # What is learned

    def build(self) -> dict[str, nn.Parameter]:
        """The empty cache, (C, S, D)."""
        shape = (len(self.classnames), self.cache_size, self.backbone.embed_dim)
        empty = torch.zeros(shape, device=self.backbone.logit_scale.device)
        self.keys = nn.Parameter(empty, requires_grad=self.train_keys)
        return {"keys": self.keys} if self.train_keys else {}

    def num_trainable(self) -> int:
        """C S D, or nothing."""
        return len(self.classnames) * self.cache_size * self.backbone.embed_dim if self.train_keys else 0

    def on_train_start(self) -> None:
        """Fill the cache where it is empty: not in a fit that goes on."""
        if self.keys.any():
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._refuse_small_cache(torch.from_numpy(ours(data).train_images().labels))
        self.fill(FeatureBank.fill(self.backbone, data, self.passes))

    def fill(self, bank: FeatureBank) -> None:
        """Put the unit mean of the passes of each image into an entry of its class."""
        with torch.no_grad():
            self.keys.copy_(filled(F.normalize(bank.features.mean(dim=0), dim=-1), bank.labels, self.keys))
        images, entries = len(bank.labels), len(self.classnames) * self.cache_size
        self.diagnostics |= {"cached_images": images, "empty_entries": entries - images}

    def _refuse_small_cache(self, labels: Tensor) -> None:
        counts = labels.bincount()
        if (most := int(counts.max())) > self.cache_size:
            raise ConfigError(
                f"class '{self.classnames[int(counts.argmax())]}' has {most} train images and the cache of TipAdapter "
                f"{self.cache_size} entries a class: set model.cache_size {most}"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Without training the fit is over with its first batch: -1 ends the epoch."""
        return -1 if batch_idx > 0 and not self.train_keys else None

    # The two classifiers

    def class_features(self, classnames: Sequence[str]) -> Any:
        """Text features (C, D) of trained classes and their keys (C, S, D).

        Raises:
            UnknownName: a class that was not trained on.
        """
        return self.prompts.features(classnames), rows_of(self.keys, classnames, self.classnames, "cache")

    def logits(self, features: Tensor, classes: Any) -> Tensor:
        """The sum of zero-shot CLIP's logits and the cache's, (B, C) in float32."""
        text, keys = classes
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.float(), dim=-1)
            cached: Tensor = self.alpha * cache_logits(unit, keys.float(), self.beta)
            return self.backbone.logits(features, text) + cached

    # What is stored

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """The keys, empty entries included."""
        return {"keys": self.keys.detach()}

    def load_adapter_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse; MethodError where they are of other shapes."""
        refuse_other_shapes(tensors, {"keys": self.keys})
        with torch.no_grad():
            self.keys.copy_(tensors["keys"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also the keys that no optimiser moves, which are no part of Lightning's state dict."""
        super().on_save_checkpoint(checkpoint)
        if not self.train_keys:
            checkpoint["clipbench"]["learned"] = self.adapter_state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse."""
        super().on_load_checkpoint(checkpoint)
        if not self.train_keys:
            learned = checkpoint["clipbench"].get("learned")
            if learned is None:
                raise MethodError("the checkpoint holds no cache")
            self.load_adapter_state_dict(learned)
