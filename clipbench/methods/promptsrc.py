"""PromptSRC: deep prompts in both towers that regulate themselves (Khattak et al., ICCV 2023, arXiv 2307.06948).

Prompts as in IVLP (`tuning/deep_prompts.py`): 4 + 4 tokens before 9 + 9 blocks, the first text prompt from the words "a
photo of a", all others from normal noise of standard deviation 0.02. Three constraints (sections 3.2.1 to 3.2.3):

- Mutual agreement with the frozen CLIP, v0(x) on the same augmented image, t0_c from sentences of great variety. All
  vectors are unit vectors, |.| is the mean over all entries, p and p0 are the probabilities of prompted and of frozen
  features among the C classes, and KL is summed over them and divided by the number of logits:

      CE + 25 |t - t0| + 10 |v - v0| + sum_{i,c} p0_ic (log p0_ic - log p_ic) / (B C)

- Self-ensembling: after epoch e of 1 .. E the prompts weigh exp(-(e - mean)^2 / (2 std^2)); their weighted average is
  what is tested (`tuning/averaging.py`).
- Textual diversity: t0_c is the unit vector of the mean of raw features over the template set, 60 sentences for every
  dataset; data that bring a template of their own use that alone.

Official code: muzairkhattak/PromptSRC@bb95c77 `trainers/promptsrc.py`. Differences: fp32 instead of a mixture of fp16
and fp32; the official average runs over the frozen weights as well, which rounds them, ours over the prompts alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.averaging import GaussianAverage
from clipbench.tuning.deep_prompts import IndependentPrompts
from clipbench.tuning.linears import NO_BATCHNORM


class PromptSRC(Method):
    """PromptSRC.

    Args:
        context_words: the first text prompt starts from their first tokens, others stay as they are; empty: noise.
        n_text_prompts: tokens of each text prompt.
        n_image_prompts: tokens of each image prompt.
        text_depth: how many blocks of the text tower have prompts of their own, from the input on.
        image_depth: how many of the image tower.
        text_weight: weight of the distance of the class features from the frozen ones, 0 or more.
        image_weight: the same of the image features.
        average_mean: the epoch, counted from 1, that weighs most in the average.
        average_std: standard deviation of the weights, in epochs, above 0.
        shared: the arguments of `Method`; the templates of the set are the teacher's.
    """

    interpolates = False
    exempt: Mapping[str, str] = NO_BATCHNORM | {"check_starts_at_zero_shot": "most of its prompts begin at random"}

    def __init__(
        self,
        context_words: str = "a photo of a",
        n_text_prompts: int = 4,
        n_image_prompts: int = 4,
        text_depth: int = 9,
        image_depth: int = 9,
        text_weight: float = 25.0,
        image_weight: float = 10.0,
        average_mean: float = 15.0,
        average_std: float = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if min(text_weight, image_weight) < 0:
            raise ConfigError(f"weights of PromptSRC must not be below 0: {text_weight=}, {image_weight=}")
        self.independent = IndependentPrompts(
            "PromptSRC", context_words, n_text_prompts, n_image_prompts, text_depth, image_depth
        )  # fmt: skip
        self.text_weight, self.image_weight = text_weight, image_weight
        self.average = GaussianAverage(average_mean, average_std)

    # What is trained

    def requires(self) -> Mapping[str, set[str]]:
        """Blocks in both towers; a causal text tower that takes vectors in place of words."""
        return {"image": {"transformer"}, "text": {"packed"}}

    def build(self) -> dict[str, nn.Parameter]:
        """The prompts of both towers."""
        self.text_prompts, self.image_prompts = self.independent.begin(self.backbone, self.train_seed)
        parts = {"text_prompts": self.text_prompts, "image_prompts": self.image_prompts}
        return dict(nn.ModuleDict(parts).named_parameters())

    def num_trainable(self) -> int:
        """Depth x tokens x width, of either tower."""
        return self.independent.count(self.backbone)

    # Features and losses

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """Features (C, D) of the text tower with its prompts."""
        return self.text_prompts.features(self.prompts, classnames)

    def image_features(self, images: Tensor) -> Tensor:
        """Features (B, D) of the image tower with its prompts."""
        return self.image_prompts.features(self.backbone, images)

    def regularisation(self, images: Tensor, features: Tensor, logits: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """The agreement with the frozen CLIP: of class features, of image features, and of logits."""
        twin = self.backbone.pretrained
        teacher = self.prompts.pretrained_features(self.classnames, mean="raw")
        with torch.no_grad():
            frozen = twin.encode_image(images)
            p0 = twin.logits(frozen, teacher).log_softmax(dim=-1)
        return {
            "text_agreement": self.text_weight * _distance(classes, teacher),
            "image_agreement": self.image_weight * _distance(features, frozen),
            "logit_agreement": F.kl_div(logits.log_softmax(dim=-1), p0, reduction="sum", log_target=True)
            / logits.numel(),
        }

    # The average over the epochs

    def on_train_start(self) -> None:
        """A fit that is not resumed begins its average anew."""
        if self.current_epoch == 0:
            self.average.begin()

    def on_train_epoch_end(self) -> None:
        """Take in the prompts; those of the last epoch give way to the average."""
        self.average.add(self.current_epoch + 1, self.trainable)
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self.average.put(self.trainable)

    def on_train_end(self) -> None:
        """Where a fit ended before its last epoch: the average over those that there were."""
        self.average.put(self.trainable)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Beside what every method writes: the average so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with that average."""
        super().on_load_checkpoint(checkpoint)
        self.average.load_state_dict(checkpoint.get("average", {}))


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of the entries of unit vectors (N, D), in float32 or wider."""
    wide = torch.promote_types(one.dtype, torch.float32)
    return F.l1_loss(F.normalize(one.to(wide), dim=-1), F.normalize(other.to(wide), dim=-1))
