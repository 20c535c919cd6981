"""The comparison: logits, terms of the loss, gradients, five optimiser steps, and logits afterwards, both sides alike.

A difference is the largest over all tensors and steps, relative to the largest entry of each official tensor; that of a
term of the loss is relative to the loss, as a distillation may begin at 0 but for rounding.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.data.task import Task, TestSplit
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.recipes.recipe import load_recipe
from tools.agreement.bounds import Wider, check, in_words
from tools.agreement.checkout import commit_of
from tools.agreement.page import HEAD, cells, write_row
from tools.agreement.side import Official, Step
from tools.agreement.tiny import BASE, NOVEL, batches, test_images


class Measured:
    """The largest relative difference of each kind.

    Attributes:
        largest: by kind, as in the columns of the table; infinite where a side is not finite.
        notes: what the row says beside the deliberate differences.
    """

    def __init__(self) -> None:
        self.largest: dict[str, float] = {}
        self.notes: list[str] = []

    def see(self, kind: str, ours: Tensor, theirs: Tensor, largest: float | None = None) -> None:
        """Take in one pair of tensors; their difference is relative to `largest`, by default their largest entry."""
        largest = largest or float(theirs.detach().abs().max()) or 1.0
        found = float((ours.detach().double() - theirs.detach().double()).abs().max()) / largest
        self._take(kind, found if math.isfinite(found) else math.inf)

    def join(self, other: Measured) -> None:
        """Take in what another run found."""
        for kind, found in other.largest.items():
            self._take(kind, found)
        self.notes += other.notes

    def _take(self, kind: str, found: float) -> None:
        self.largest[kind] = max(self.largest.get(kind, 0.0), found)


class Tally:
    """How many entries of several kinds are so, of how many, over all runs."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def see(self, kind: str, which: Tensor) -> None:
        """Take in which entries are so, as booleans of any shape."""
        count, total = self._counts.get(kind, (0, 0))
        self._counts[kind] = count + int(which.sum()), total + which.numel()

    def __getitem__(self, kind: str) -> str:
        """As "58 of 16,404,480"."""
        count, total = self._counts[kind]
        return f"{count:,} of {total:,}"


def our_method(recipe: str, backbone: str, dataset: str = "sun397", **settings: Any) -> Method:
    """The method of a packaged recipe on the tiny CLIP, set up for the base classes, in train mode.

    Args:
        recipe: its name.
        backbone: name of the tiny CLIP.
        dataset: whose templates stand in the prompts.
        settings: of the model, over the recipe's.
    """
    section = load_recipe(recipe).sections["model"]
    arguments = {**(section.get("init_args") or {}), **settings, "backbone": backbone}
    method: Method = method_class(section["class_path"])(**arguments)
    tests = (TestSplit("base", BASE, True), TestSplit("novel", NOVEL, False))
    method.setup("fit", task=Task(dataset, None, BASE, tests))
    return method


def our_step(method: Method, images: Tensor, labels: Tensor) -> Step:
    """What `training_step` computes, with its parts in sight."""
    classes = method.class_features(method.classnames)
    features = method.image_features(images)
    logits = method.logits(features, classes)
    terms = method.losses(logits, labels, classes) | method.regularisation(images, features, logits, classes)
    return logits, terms


def compare(
    method: Method,
    official: Official,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    ours: Callable[[Method, Tensor, Tensor], Step] = our_step,
    after_backward: Callable[[Method], None] = lambda method: None,
    after_step: Callable[[Method], None] = lambda method: None,
    finish: Callable[[Method], None] = lambda method: None,
    by_chance: bool = False,
) -> Measured:
    """Train both sides for five steps on the same batches.

    Args:
        method: ours; its trained tensors are set to the official ones first.
        official: theirs.
        optimizer: makes the optimiser of either side.
        ours: one step of ours.
        after_backward: as that of `Official`, called with the method.
        after_step: likewise.
        finish: likewise.
        by_chance: whether `after_backward` drops by chance: gradients are then compared before it.
    """
    torch.set_num_threads(1)
    found, trained = Measured(), method.trainable
    values = official.values()
    if missing := set(trained) ^ set(values):
        raise SystemExit(f"trained on one side alone: {sorted(missing)}")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(values[name])
    sides = optimizer(list(trained.values())), optimizer(list(official.trained.values()))
    for images, labels in batches():
        (logits, terms), (their_logits, their_terms) = ours(method, images, labels), official.step(images, labels)
        found.see("logits", logits, their_logits)
        if set(terms) != set(their_terms):
            raise SystemExit(f"terms of the loss: ours {sorted(terms)}, theirs {sorted(their_terms)}")
        loss_there = float(torch.stack([term.detach() for term in their_terms.values()]).sum())
        for name in terms:
            found.see("terms", terms[name], their_terms[name], loss_there)
        for side, loss in zip(sides, (sum(terms.values()), sum(their_terms.values())), strict=True):
            side.zero_grad()
            loss.backward()  # type: ignore[union-attr]
        if by_chance:
            _see_gradients(found, trained, official)
        after_backward(method)
        official.after_backward(images, labels)
        if not by_chance:
            _see_gradients(found, trained, official)
        for side in sides:
            side.step()
        after_step(method)
        official.after_step()
    for name, value in official.values().items():
        found.see("tensors", trained[name], value)
    finish(method)
    official.finish()
    method.eval()
    with torch.no_grad():
        for kind, names in (("base", BASE), ("novel", NOVEL)):
            theirs = official.answers(test_images(), names)
            if theirs is not None:
                found.see(kind, method(test_images(), names), theirs)
    return found


def _see_gradients(found: Measured, trained: Mapping[str, nn.Parameter], official: Official) -> None:
    for name, theirs in official.gradients().items():
        ours = trained[name].grad
        if ours is None:
            raise SystemExit(f"'{name}' gets no gradient here")
        found.see("gradients", ours, theirs)


def run(
    recipe: str,
    repository: str,
    differences: str,
    measure: Callable[[Path, Path], Measured],
    folder: str = ".",
    wider: Mapping[str, Wider] = MappingProxyType({}),
) -> None:
    """The command line of a script: prints the row, and with `--write` puts it into docs/agreement.md.

    Args:
        recipe: whose row it is.
        repository: `owner/name` of the official code.
        differences: the deliberate differences, in words.
        measure: from the folder of the official code and an empty folder to the largest differences.
        folder: inside the checkout, where its code lies.
        wider: bounds of this recipe alone, by kind.

    Raises:
        SystemExit: a difference is beyond its bound.
    """
    parser = argparse.ArgumentParser(description=f"Agreement of '{recipe}' with {repository}.")
    parser.add_argument("--official", type=Path, required=True, help="a checkout of the official code")
    parser.add_argument("--write", action="store_true", help="put the row into docs/agreement.md")
    options = parser.parse_args()
    torch.manual_seed(0)  # of what a model draws without being asked
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options.official / folder, Path(scratch))
    said = "; ".join([differences, *found.notes, *in_words(wider)])
    row = f"| `{recipe}` | {cells(found.largest)} | {repository}@{commit_of(options.official)} | {said} |"
    print(HEAD, row, sep="\n")
    check(recipe, found.largest, wider)
    if options.write:
        write_row(recipe, row)
