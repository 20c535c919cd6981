"""ProGrad: CoOp whose gradient never goes against zero-shot CLIP (Zhu et al., ICCV 2023, arXiv 2205.14865).

The prompts are CoOp's, `V1 .. VM name.`, M = 16, both towers frozen. The last vectors start from the words that stand
before the class name in the dataset's template, those on their left from zero. Two losses (section 3.2), with p the
probabilities of now and p0 those of zero-shot CLIP for the same augmented image and the template's whole sentence:

    L_ce = CE(s v . t_c, y),   L_kl = -mean over images of sum_c p0_c log p_c

and a step along the gradient of the first, less its part that would raise the second, tensor by tensor:

    g = grad L_ce,  h = grad L_kl / |grad L_kl|,   g - lambda min(<g, h>, 0) h,   lambda = 1

A class of any other list has the same context. Words are counted by blanks, not by tokens, so that in "a type of pet, a
photo of a" one token is left over: the last, which stays fixed between the vectors and the class name.

Official code: BeierZhu/Prompt-align@1b76203 `ProGrad.public/trainers/prograd.py` and its Dassl
`dassl/engine/trainer.py`. Differences: fp32 instead of fp16. Its base-to-novel scripts know ResNet-50 and 4 shots; the
numbers for ViT-B/16 and 16 shots that the field prints come from the authors of KgCoOp, whose run has no released
setting: here epochs, rate, batch and context are those of ProGrad's scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.context import Context


def projected(g: Tensor, h: Tensor, strength: float) -> Tensor:
    """g less `strength` times its part along h where that part goes against h; both of any one shape, h not 0."""
    unit = h / torch.linalg.vector_norm(h).clamp_min(torch.finfo(h.dtype).tiny)
    return g - strength * (g * unit).sum().clamp_max(0) * unit


class ProGrad(Method):
    """ProGrad.

    Args:
        n_context: M, the number of vectors.
        projection: lambda, from 0 (CoOp) to 1 (nothing that goes against zero-shot CLIP is left).
        shared: the arguments of `Method`; the templates of the set give the words to start from, and the teacher's.
    """

    interpolates = False
    exempt: Mapping[str, str] = {"check_starts_at_zero_shot": "vectors of zeros stand in its prompts before training"}

    def __init__(self, n_context: int = 16, projection: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        if n_context < 1:
            raise ConfigError(f"n_context of ProGrad must be 1 or more, it is {n_context}")
        if not 0 <= projection <= 1:
            raise ConfigError(f"projection of ProGrad lies between 0 and 1, it is {projection}")
        self.n_context, self.projection = n_context, projection
        self._against: Tensor | None = None

    def requires(self) -> Mapping[str, set[str]]:
        """A text tower that takes vectors in place of words."""
        return {"text": {"transformer"}}

    def build(self) -> dict[str, nn.Parameter]:
        """Make the context vectors: zeros, and the words of the template on their right.

        Raises:
            ConfigError: the template has more words than there are vectors.
        """
        words = self.templates[0].partition("{}")[0].strip()
        count = len(words.split())
        if count > self.n_context:
            raise ConfigError(
                f"n_context of ProGrad is {self.n_context}, but '{words}' has {count} words: give as many or more"
            )
        start, (ids,) = torch.zeros(self.n_context, self.backbone.text_width), self.backbone.tokenize([words])
        if words:
            known = Context.from_words(self.backbone, words)[:count]
            start = torch.cat([start[: self.n_context - len(known)].to(known), known])
        self.context = Context(start, followed_by=ids[1 + count : -1])
        return {"context.vectors": self.context.vectors}

    def num_trainable(self) -> int:
        """M x W."""
        return self.n_context * self.backbone.text_width

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The frozen text tower on the prompts with the learned context, (C, D)."""
        return self.context.features(self.prompts, classnames)

    # The gradient that is made of two

    def on_fit_start(self) -> None:
        """Raise ConfigError where a step has several batches: the projection needs both gradients of one batch."""
        if self.trainer.accumulate_grad_batches != 1:
            raise ConfigError("ProGrad projects step by step: trainer.accumulate_grad_batches must be 1")

    def regularisation(self, images: Tensor, features: Tensor, logits: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """No term of the sum; the gradient of L_kl is taken on the way."""
        with torch.no_grad():
            p0 = self.logits(features, self.prompts.pretrained_features(self.classnames)).softmax(dim=-1)
        l_kl = -(p0 * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
        (self._against,) = torch.autograd.grad(l_kl, [self.context.vectors], retain_graph=True)
        return {}

    def on_after_backward(self) -> None:
        """Project the gradient of L_ce."""
        vectors = self.context.vectors
        if self._against is not None and vectors.grad is not None:
            vectors.grad = projected(vectors.grad, self._against, self.projection)
        self._against = None
