"""TCP: prompts that know the class, made from its frozen feature (Yao et al., CVPR 2024, arXiv 2311.18231).

A text begins with M = 4 learned vectors, shared by all classes and at first normal noise of standard deviation 0.02, in
place of the first four words of the dataset's sentence. A network, Linear-QuickGELU-Linear with a bottleneck of 1/4,
makes M vectors of each class's own from the unit feature t0_c of zero-shot CLIP; at the input of a block in the upper
third of the text tower, the ninth of twelve, they overwrite what has become of the shared ones (sections 3.2, 3.3):

    [V1 .. VM] -> [U1(t0_c) .. UM(t0_c)] before block 9,   CE + lambda (1 - mean_c cos(t_c, t0_c)),   lambda = 8

Classes of any other list get their vectors from their own t0. Both towers are frozen.

Where the set of templates has two sentences for a dataset, the first is that of t0, the last that of the vectors (where
the official code writes "X X X X", which never enters); else one serves both. Words before the class name beyond the
first M stay.

Official code: htyao89/Textual-based_Class-aware_prompt_tuning@bd97bec `trainers/tcp.py`, `trainers/clip_text/model.py`.
Its README asks for an eps of 1e-3 in Adam, by hand in the framework: without it half precision diverges, and with it
Adam moves much like scaled SGD, so it is a setting of the recipe in single precision too. Differences: fp32 instead of
fp16, also for t0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.tokens import Tokens, hook
from clipbench.data.templates import fill
from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.context import Context
from clipbench.tuning.deep_prompts import START, refuse_senseless, refuse_too_deep
from clipbench.tuning.distillation import Distillation

REDUCTION = 4


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x * (1.702 * x).sigmoid()


class TCP(Method):
    """TCP.

    Args:
        n_context: M, the number of vectors.
        block: number of the block of the text tower, counted from 1, that the class's own vectors enter.
        distillation_weight: lambda; 0: none.
        shared: the arguments of `Method`; a template set of one or two sentences a dataset (see the top of the file).
    """

    interpolates = False
    exempt: Mapping[str, str] = {
        "check_starts_at_zero_shot": "its vectors and their network begin at random",
        "check_batchnorm_and_dropout_stay_frozen": "its text tower has two blocks; tested apart, with block 2",
    }

    def __init__(
        self, n_context: int = 4, block: int = 9, distillation_weight: float = 8.0, **shared: Any
    ) -> None:  # fmt: skip
        super().__init__(**shared)
        refuse_senseless("TCP", n_context=n_context, block=block)
        self.n_context, self.block = n_context, block
        self.distillation = Distillation(distillation_weight)

    # What is trained

    def requires(self) -> Mapping[str, set[str]]:
        """A causal text tower that takes vectors in place of words."""
        return {"text": {"packed"}}

    def build(self) -> dict[str, nn.Parameter]:
        """The shared vectors, and the network with PyTorch's initialisation."""
        refuse_too_deep("TCP", self.backbone, "text", block=self.block)
        features, width = self.backbone.embed_dim, self.backbone.text_width
        generator = torch_generator(self.train_seed, "init", "context")
        self.context = Context(Context.from_noise(width, self.n_context, generator))
        self.meta_net = nn.Sequential(
            nn.Linear(features, features // REDUCTION), QuickGELU(),
            nn.Linear(features // REDUCTION, self.n_context * width),
        )  # fmt: skip
        return dict(nn.ModuleDict({"context": self.context, "meta_net": self.meta_net}).named_parameters())

    def num_trainable(self) -> int:
        """M x W, and (D + 1) D / 4 + (D / 4 + 1) M W."""
        features, own = self.backbone.embed_dim, self.n_context * self.backbone.text_width
        hidden = features // REDUCTION
        return own + (features + 1) * hidden + (hidden + 1) * own

    # Class features and losses

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The frozen text tower, (C, D), with the shared vectors at its input and each class's own from `block` on."""
        names = tuple(classnames)
        t0 = F.normalize(self.frozen_features(names), dim=-1).to(self.context.vectors.dtype)
        own = self.meta_net(t0).unflatten(-1, (self.n_context, -1))

        @hook(per_class=True)
        def overwrite(tokens: Tokens) -> Tokens:
            return tokens.replace(START, own)

        plan = self.prompts.cached(("context", names), lambda: self._plan(names))
        return self.backbone.encode_text(plan, extra=self.context.rows(), before_block={self.block - 1: overwrite})

    def frozen_features(self, classnames: Sequence[str]) -> Tensor:
        """t0 (C, D): zero-shot CLIP's features of the first sentence."""
        with self.prompts.using(self.prompts.templates[:1]):
            return self.prompts.pretrained_features(classnames)

    def _plan(self, classnames: Sequence[str]) -> PromptPlan:
        """The last sentence of each class, the vectors in place of its first M words."""
        before, _, after = self.prompts.templates[-1].partition("{}")
        left = "".join(f"{word} " for word in before.split()[self.n_context :])
        texts = self.backbone.tokenize([fill(f"{left}{{}}{after}", name) for name in classnames])
        first = self.backbone.vocab_size
        vectors = range(first, first + self.n_context)
        return PromptPlan([[*ids[:START], *vectors, *ids[START:]] for ids in texts])

    def losses(self, logits: Tensor, labels: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and distillation."""
        terms = super().losses(logits, labels, classes)
        with self.prompts.using(self.prompts.templates[:1]):
            return terms | self.distillation.terms(classes, self.prompts, self.classnames)
