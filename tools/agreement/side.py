"""The official side of a comparison: what is trained there, what one step computes, and what is answered afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.tiny import BASE

Step = tuple[Tensor, Mapping[str, Tensor]]


@dataclass
class Official:
    """The official side of a comparison.

    Attributes:
        trained: its trained tensors, by our names and shaped like ours, or as `as_ours` takes them.
        step: images and labels to logits and the terms of the loss, with a graph.
        answers: images and class names to logits, by what is trained now; None where the code has no answer.
        after_backward: called with images and labels between backward pass and optimiser (gradient surgery).
        after_step: called after each optimiser step.
        finish: called after the last step, before `answers` (averages of epochs).
        as_ours: from values or gradients of the trained tensors to those of ours, where one holds what is several here.
        model: the official model, where there is one.
    """

    trained: Mapping[str, nn.Parameter]
    step: Callable[[Tensor, Tensor], Step]
    answers: Callable[[Tensor, Sequence[str]], Tensor | None]
    after_backward: Callable[[Tensor, Tensor], None] = lambda images, labels: None
    after_step: Callable[[], None] = lambda: None
    finish: Callable[[], None] = lambda: None
    as_ours: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda tensors: tensors
    model: Any = None

    def values(self) -> Mapping[str, Tensor]:
        """What is trained, by our names."""
        return self.as_ours({name: parameter.detach() for name, parameter in self.trained.items()})

    def gradients(self) -> Mapping[str, Tensor]:
        """The gradients, by our names; SystemExit where one is missing."""
        if missing := [name for name, parameter in self.trained.items() if parameter.grad is None]:
            raise SystemExit(f"no gradient on the official side: {missing}")
        return self.as_ours(
            {name: parameter.grad for name, parameter in self.trained.items() if parameter.grad is not None}
        )


@contextmanager
def training(model: nn.Module, now: bool) -> Iterator[None]:
    """Whether an official model is in train mode within this context, where some answer with their loss."""
    before = model.training
    model.train(now)
    try:
        yield
    finally:
        model.train(before)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """What a model answers when it does not train; the first of several things."""
    with training(model, False):
        answer = model(images)
    logits: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return logits


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """One step of a model whose loss is the cross-entropy alone."""
    logits = logits_of(model, images)
    return logits, {"cross_entropy": F.cross_entropy(logits, labels)}


def copy_into(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Set tensors to others of the same names."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def of_model(
    build: Callable[[Sequence[str]], Any],
    trained_of: Callable[[Any], Mapping[str, nn.Parameter]],
    step: Callable[[Any, Tensor, Tensor], Step] = cross_entropy,
    answers_novel: bool = True,
) -> Official:
    """The side of an official model that is built for a list of class names, for others anew with the trained tensors.

    Args:
        build: from class names to the model.
        trained_of: from a model to its trained tensors, by our names.
        step: from the model, images and labels to logits and the terms of the loss.
        answers_novel: whether the code has an answer for classes that were not trained on.
    """
    model = build(BASE)

    def answers(images: Tensor, names: Sequence[str]) -> Tensor | None:
        if names != BASE and not answers_novel:
            return None
        other = build(names)
        copy_into(trained_of(other), trained_of(model))
        return logits_of(other, images)

    return Official(trained_of(model), lambda images, labels: step(model, images, labels), answers, model=model)


def sgd(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    """The optimiser of most of them, at their rate."""
    return lambda tensors: torch.optim.SGD(tensors, lr=lr, momentum=0.9, weight_decay=5e-4)
