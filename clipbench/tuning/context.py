"""Learned context: vectors that stand in a prompt where words would stand (CoOp, IJCV 2022, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from clipbench.backbone.clip import Backbone
from clipbench.backbone.prompts import PromptPlan
from clipbench.data.templates import class_text
from clipbench.errors import ConfigError
from clipbench.tuning.class_prompts import ClassPrompts

Position = Literal["end", "middle", "front"]


class Context(nn.Module):
    """Context vectors, and the prompts that they stand in.

    Args:
        vectors: start values of the context vectors: (M, W), shared by all classes, or (C, M, W), with M vectors of
            each class's own; W is the width of the text tower.
        position: where the class name stands among the M vectors: "end" `V1 .. VM name.`, "middle"
            `V1 .. name .. VM.` or "front" `name V1 .. VM.`
        followed_by: ids of tokens that stay fixed between the vectors and what follows them.
    """

    def __init__(self, vectors: Tensor, position: Position = "end", followed_by: Sequence[int] = ()) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone().float())
        self.position, self.followed_by = position, list(followed_by)

    @staticmethod
    def from_words(backbone: Backbone, words: str, classes: int | None = None) -> Tensor:
        """The token embeddings of the words: (M, W), or (classes, M, W) copies; ConfigError where there are none."""
        if not words.strip():
            raise ConfigError("a context that starts from words needs some: they give the number of its vectors")
        (ids,) = backbone.tokenize([words])
        table = backbone.get_parameter("text.token_embedding.weight")
        vectors = table[torch.tensor(ids[1:-1])].detach()
        return vectors if classes is None else vectors.expand(classes, -1, -1)

    @staticmethod
    def from_noise(width: int, length: int, generator: torch.Generator, classes: int | None = None) -> Tensor:
        """Normal vectors of standard deviation 0.02: (M, W) or (classes, M, W)."""
        shape = (length, width) if classes is None else (classes, length, width)
        return 0.02 * torch.randn(shape, generator=generator)

    @property
    def length(self) -> int:
        """M, the number of vectors in a prompt."""
        return self.vectors.shape[-2]

    @property
    def class_specific(self) -> bool:
        """Whether every class has vectors of its own."""
        return self.vectors.ndim == 3

    def rows(self) -> Tensor:
        """The vectors as rows: (M, W) or (C * M, W)."""
        return self.vectors.flatten(0, -2)

    def plan(self, backbone: Backbone, classnames: Sequence[str], owners: Sequence[int] | None = None) -> PromptPlan:
        """The prompts of the classes, with the context's rows in place.

        Args:
            backbone: tokenizes.
            classnames: of C classes.
            owners: with class-specific vectors: whose vectors each class has; None: the c-th class has the c-th.

        Raises:
            ConfigError: class-specific vectors meet another number of classes, and nothing says whose each has.
        """
        if self.class_specific and owners is None and len(classnames) != len(self.vectors):
            raise ConfigError(f"the context has vectors of {len(self.vectors)} classes, {len(classnames)} were given")
        names = [class_text(name) for name in classnames]
        whole, bare = backbone.tokenize([f"{name}." for name in names]), backbone.tokenize(names)
        vocabulary = backbone.vocab_size
        sequences = []
        for number, (tokens, name) in enumerate(zip(whole, bare, strict=True)):
            owner = number if owners is None else owners[number]
            first = vocabulary + (owner * self.length if self.class_specific else 0)
            vectors = [*range(first, first + self.length), *self.followed_by]
            start, (word, rest), end = tokens[:1], self._split(tokens[1:-1], len(name) - 2), tokens[-1:]
            half = self.length // 2
            body = {
                "end": vectors + word + rest,
                "middle": vectors[:half] + word + vectors[half:] + rest,
                "front": word + vectors + rest,
            }[self.position]
            sequences.append(start + body + end)
        return PromptPlan(sequences)

    def kept_plan(
        self, prompts: ClassPrompts, classnames: Sequence[str], owners: Sequence[int] | None = None
    ) -> PromptPlan:  # fmt: skip
        """`plan`, made once for a list of class names.

        Args:
            prompts: those of the method, which keep it and know the view.
            classnames: of C classes.
            owners: as those of `plan`; a list of class names always has the same.
        """
        names = tuple(classnames)
        return prompts.cached(("context", names), lambda: self.plan(prompts.backbone, names, owners))

    def features(
        self, prompts: ClassPrompts, classnames: Sequence[str], owners: Sequence[int] | None = None
    ) -> Tensor:  # fmt: skip
        """The text tower on the prompts with the context, (C, D); the arguments are those of `kept_plan`."""
        return prompts.backbone.encode_text(self.kept_plan(prompts, classnames, owners), extra=self.rows())

    @staticmethod
    def _split(tokens: list[int], name: int) -> tuple[list[int], list[int]]:
        """The tokens of the name and those after it (the full stop)."""
        return tokens[:name], tokens[name:]
