"""CoOp: learn the context of the prompt, the towers stay frozen (Zhou et al., IJCV 2022, arXiv 2109.01134).

A prompt is `V1 .. VM name.` with M learned vectors in place of words; the logits and the cross-entropy are CLIP's own
(section 3.2). In base-to-novel M = 4, starting from the words "a photo of a" (CoCoOp, CVPR 2022, section 4.1); few-shot
uses M = 16 from noise. The initial words stand for every dataset, not the dataset's template.

Official code: KaiyangZhou/CoOp@ff61507 `trainers/coop.py`. Differences: fp32 instead of fp16; vectors of each class's
own have no meaning for other classes, so there the zero-shot prompts answer (`novel_rule` frozen) instead of a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clipbench.errors import ConfigError, UnknownName
from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.choices import refuse_unread
from clipbench.tuning.context import Context, Position


class CoOp(Method):
    """CoOp.

    Args:
        context_words: initial words, one vector a token; empty: normal noise of standard deviation 0.02.
        n_context: number of vectors, where they start from noise; None: 16. Words give it themselves.
        position: where the class name stands: at the "end", in the "middle" or in "front".
        class_specific: vectors of each class's own instead of shared ones.
        shared: the arguments of `Method`.
    """

    def __init__(
        self,
        context_words: str = "a photo of a",
        n_context: int | None = None,
        position: Position = "end",
        class_specific: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if context_words:
            refuse_unread("context_words give the number of vectors", n_context=n_context)
        self.context_words, self.n_context = context_words, 16 if n_context is None else n_context
        if self.n_context < 1:
            raise ConfigError(f"CoOp needs at least one context vector, n_context is {n_context}")
        self.position: Position = position
        self.class_specific = class_specific
        if class_specific:
            self.novel_rule, self.class_bound = "frozen", ("context.vectors",)
        self.interpolates = bool(context_words)
        if (context_words, position) != ("a photo of a", "end"):
            self.exempt = {"check_starts_at_zero_shot": "its prompts are not the template's before training"}

    def requires(self) -> Mapping[str, set[str]]:
        """A text tower that takes vectors in place of words."""
        return {"text": {"transformer"}}

    def build(self) -> dict[str, nn.Parameter]:
        """Make the context vectors."""
        classes = len(self.classnames) if self.class_specific else None
        if self.context_words:
            start = Context.from_words(self.backbone, self.context_words, classes)
        else:
            generator = torch_generator(self.train_seed, "init", "context")
            start = Context.from_noise(self.backbone.text_width, self.n_context, generator, classes)
        self.context = Context(start, self.position)
        return {"context.vectors": self.context.vectors}

    def num_trainable(self) -> int:
        """M x W, or C x M x W."""
        length = len(self.backbone.tokenize([self.context_words])[0]) - 2 if self.context_words else self.n_context
        return length * self.backbone.text_width * (len(self.classnames) if self.class_specific else 1)

    def class_features(self, classnames: Sequence[str]) -> Tensor:
        """The frozen text tower on the prompts with the learned context, (C, D).

        Raises:
            UnknownName: a class that has no vectors of its own.
        """
        row = {name: number for number, name in enumerate(self.classnames)}
        if self.class_specific and (others := [name for name in classnames if name not in row]):
            raise UnknownName("class of these context vectors", others[0], row)
        owners = [row[name] for name in classnames] if self.class_specific else None
        return self.context.features(self.prompts, classnames, owners)
