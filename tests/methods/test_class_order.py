"""The order of the classes has no meaning: in another one every method gives the same logits, permuted, and losses."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench.data.cards import load_card
from clipbench.data.task import Task, TestSplit
from clipbench.errors import ClipbenchWarning
from clipbench.methods.base import Method
from clipbench.recipes.recipe import known_recipes, load_recipe
from clipbench.testing.subject import Subject
from tests.methods.small import images, learn

NAMES = load_card("mini/caltech101").classnames[:4]
LABELS = (2, 0)
ONE_EACH = {load_recipe(name).method: name for name in reversed(known_recipes())}  # a recipe of each method


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learned weights of `full`, which WiSE-FT starts from."""
    folder = tmp_path_factory.mktemp("full")
    with Subject("full", folder, settings={"trainer.max_epochs": 1}).cli() as cli:
        learn(cli.model, 0.01)
        cli.model.setup("fit", task=cli.model.task)
        cli.model.save(folder / "full.safetensors", "full")
    return folder / "full.safetensors"


def made(recipe: str, folder: Path, start: Path, order: tuple[int, ...]) -> Method:
    """A method as on mini, set up for the classes in an order, in eval mode."""
    names = tuple(NAMES[place] for place in order)
    given_start = {"model.start": str(start)} if recipe == "wise_ft" else {"model.start": None}
    subject = Subject(recipe, folder, settings=given_start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipbenchWarning)
        method = subject.method()
        method.setup(task=Task("toys", "a photo of a {}.", names, (TestSplit("all", names, True),)), train_seed=1)
    return method.eval()


def give(method: Method, learned: dict[str, Tensor], order: tuple[int, ...]) -> None:
    """Put in place what another learned for the classes in their first order: rows of classes go with their class."""
    with torch.no_grad():
        for name, tensor in values(method).items():
            tensor.copy_(learned[name][list(order)] if name in method.class_bound else learned[name])


def values(method: Method) -> dict[str, Tensor]:
    """What is learned, by name: the trained tensors, and rows of classes that nothing trains."""
    return dict(method.trainable) | {name: getattr(method, name) for name in method.class_bound}


def answers(method: Method, order: tuple[int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (2, C) of two images, the classes back in their first order, and the terms of the loss."""
    back = torch.argsort(torch.tensor(order))
    pixels, labels = images(method), back[list(LABELS)]
    classes, features = method.class_features(method.classnames), method.image_features(pixels)
    logits = method.logits(features, classes)
    terms = method.losses(logits, labels, classes) | method.regularisation(pixels, features, logits, classes)
    return logits[:, back].detach(), {name: term.detach() for name, term in terms.items()}


@pytest.mark.parametrize("recipe", ONE_EACH.values())
def test_permuted_classes_give_permuted_logits_and_the_same_losses(recipe: str, tmp_path: Path, full: Path) -> None:
    whole = tuple(range(len(NAMES)))
    first = made(recipe, tmp_path, full, whole)
    learn(first, 0.02)
    for name in set(first.class_bound) - set(first.trainable):  # a cache that nothing trains
        getattr(first, name).data.normal_(generator=torch.Generator().manual_seed(0))
    learned = {name: tensor.detach().clone() for name, tensor in values(first).items()}
    logits, terms = answers(first, whole)
    assert logits.std() > 0

    @settings(max_examples=3, deadline=None, database=None)
    @given(st.permutations(whole).map(tuple).filter(lambda order: order != whole))
    def in_another_order(order: tuple[int, ...]) -> None:
        second = made(recipe, tmp_path, full, order)
        give(second, learned, order)
        found, others = answers(second, order)
        torch.testing.assert_close(found, logits, rtol=1e-4, atol=2e-4)
        assert list(others) == list(terms)
        for name, term in terms.items():
            torch.testing.assert_close(others[name], term, rtol=1e-4, atol=1e-4)
        with torch.no_grad():  # and asked for in an order that is not its own
            asked = [NAMES[place] for place in order]
            there = first.logits(first.image_features(images(first)), first.class_features(asked))
        torch.testing.assert_close(there, logits[:, list(order)], rtol=1e-4, atol=2e-4)

    in_another_order()
