"""Prompts that differ by image, for a batch in one packed pass: equal to image by image, whatever the budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clipbench.backbone import text
from clipbench.backbone.clip import load_backbone
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.view import BackboneView
from clipbench.errors import BackboneError
from clipbench.testing import plain

IMAGES, ROWS = 5, 3


@pytest.fixture(scope="module")
def view() -> BackboneView:
    return load_backbone("mini").view().double()


@pytest.fixture(scope="module")
def plan(view: BackboneView) -> PromptPlan:
    first = view.vocab_size
    tokens = view.tokenize(["a photo of a red circle.", "a photo of a blue square.", "a photo of a cat."])
    return PromptPlan([[ids[0], first, first + 1, first + 2, *ids[4:]] for ids in tokens])


def rows(view: BackboneView) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, ROWS, view.text_width)
    return (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def with_gradient(features: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((features * weights).sum(), extra)
    return features.detach(), gradient


@pytest.mark.parametrize("budget", [text.BUDGET, 3_000_000, 500_000, 1], ids=["whole", "images", "classes", "single"])
def test_a_batch_is_its_images_one_by_one(
    view: BackboneView, plan: PromptPlan, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = rows(view)
    features, gradient = with_gradient(torch.stack([view.encode_text(plan, extra=one) for one in extra]), extra)
    monkeypatch.setattr(text, "BUDGET", budget)
    found, found_gradient = with_gradient(view.encode_text(plan, extra=extra), extra)
    torch.testing.assert_close(found, features, rtol=0, atol=1e-10)
    torch.testing.assert_close(found_gradient, gradient, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(view.encode_text(plan, extra=extra), features, rtol=0, atol=1e-10)
        expected = torch.stack([plain.encode_text(view, plan, one) for one in extra])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_a_small_budget_makes_small_passes(
    view: BackboneView, plan: PromptPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []
    monkeypatch.setattr(text, "BUDGET", 1)
    handle = view.text.blocks[0].register_forward_pre_hook(lambda module, args: sizes.append(args[0].rows.shape))
    with torch.no_grad():
        view.encode_text(plan, extra=rows(view))
    handle.remove()
    assert len(sizes) == IMAGES * len(plan)
    assert {shape[0] for shape in sizes} == {1}


def test_hooks_are_refused(view: BackboneView, plan: PromptPlan) -> None:
    with pytest.raises(BackboneError, match="no hooks"):
        view.encode_text(plan, extra=rows(view), before_block={1: lambda tokens: tokens})
