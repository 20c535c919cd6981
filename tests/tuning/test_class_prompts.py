"""Class features from prompts: what is asked of the text tower, how often, and from which state of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone
from clipbench.backbone.view import BackboneView
from clipbench.tuning.class_prompts import ClassPrompts

NAMES = ("cat", "red_fox")
TEMPLATES = ("a photo of a {}.", "a {} in the snow.", "{} drawn.")
BIAS = "text.blocks.0.mlp.proj.bias"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Backbone]:
    """Every run of a text tower, by its backbone."""
    seen: list[Backbone] = []
    run = Backbone.encode_text

    def counted(self: Backbone, plan: PromptPlan, *hooks: object) -> torch.Tensor:
        seen.append(self)
        return run(self, plan, *hooks)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "encode_text", counted)
    return seen


def by_hand(backbone: Backbone, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    rows = []
    for name in names:
        plan = PromptPlan(backbone.tokenize([template.replace("{}", name) for template in templates]))
        rows.append(F.normalize(backbone.encode_text(plan), dim=-1).mean(dim=0))
    return torch.stack(rows)


def test_the_mean_of_unit_features_over_templates_class_by_class(backbone: Backbone, view: BackboneView) -> None:
    expected = by_hand(backbone, ("cat", "red fox"), TEMPLATES)
    torch.testing.assert_close(ClassPrompts(view, TEMPLATES).features(NAMES), expected)
    single = ClassPrompts(view, TEMPLATES[:1]).features(NAMES)
    torch.testing.assert_close(F.normalize(single, dim=-1), by_hand(backbone, ("cat", "red fox"), TEMPLATES[:1]))
    assert not torch.allclose(single.norm(dim=-1), torch.ones(2)), "a single template's features keep their norm"


def test_the_mean_of_features_as_they_are(backbone: Backbone, view: BackboneView) -> None:
    prompts = ClassPrompts(view, TEMPLATES)
    found = prompts.pretrained_features(NAMES, mean="raw")
    for name, row in zip(("cat", "red fox"), found, strict=True):
        plan = PromptPlan(backbone.tokenize([template.replace("{}", name) for template in TEMPLATES]))
        torch.testing.assert_close(row, backbone.encode_text(plan).mean(dim=0))
    assert not torch.allclose(found, prompts.pretrained_features(NAMES))


def test_lower_case_is_asked_for(view: BackboneView) -> None:
    kept = ClassPrompts(view, ["a {}."]).plan(["RED"]).sequences
    # the tokenizer lowers case itself, so what is asked shows in the texts
    texts: list[str] = []
    view.tokenize = lambda asked: texts.extend(asked) or [[1, 2]] * len(asked)  # type: ignore[assignment, func-returns-value]
    ClassPrompts(view, ["A {}."], lower_case=True).plan(["RED_Fox"])
    ClassPrompts(view, ["A {}."]).plan(["RED_Fox"])
    assert texts == ["A red fox.", "A RED Fox."]
    assert len(kept) == 1


def test_frozen_features_are_encoded_once(view: BackboneView, encoded: list[Backbone]) -> None:
    prompts = ClassPrompts(view, TEMPLATES)
    first = prompts.features(NAMES)
    assert prompts.features(NAMES) is first
    assert prompts.pretrained_features(NAMES) is prompts.pretrained_features(NAMES)
    assert encoded == [view, view.pretrained]
    prompts.features(NAMES[::-1])
    assert len(encoded) == 3, "other classes, other features"
    prompts.templates = TEMPLATES[:2]
    assert not torch.equal(prompts.features(NAMES), first)
    assert not torch.equal(prompts.pretrained_features(NAMES), first)
    assert len(encoded) == 5, "other templates, other features"


def test_features_are_encoded_anew_where_the_tower_is_another(view: BackboneView, encoded: list[Backbone]) -> None:
    prompts = ClassPrompts(view, TEMPLATES)
    first = prompts.features(NAMES)
    view.replace_tensors({BIAS: torch.linspace(-1, 1, 16)})
    second = prompts.features(NAMES)
    assert not torch.allclose(first, second)
    with torch.no_grad():
        view.get_parameter(BIAS).mul_(2)
    assert not torch.allclose(prompts.features(NAMES), second), "a write in place is seen as well"
    assert torch.equal(prompts.pretrained_features(NAMES), first)
    assert encoded == [view, view, view, view.pretrained]


def test_trainable_and_random_towers_are_encoded_every_time(view: BackboneView, encoded: list[Backbone]) -> None:
    prompts = ClassPrompts(view, TEMPLATES)
    adapter = view.replace_linear("text.blocks.0.mlp.fc", lambda linear: nn.Sequential(nn.Dropout(0.5), linear))
    view.train()
    assert not torch.equal(prompts.features(NAMES), prompts.features(NAMES))
    assert len(encoded) == 2
    adapter.eval()
    assert prompts.features(NAMES) is prompts.features(NAMES)
    assert len(encoded) == 3
    view.unfreeze([BIAS])
    assert prompts.features(NAMES).requires_grad
    prompts.features(NAMES)
    assert len(encoded) == 5


def test_features_made_under_inference_mode_can_be_trained_with(view: BackboneView) -> None:
    prompts = ClassPrompts(view, TEMPLATES)
    with torch.inference_mode():
        found = prompts.features(NAMES), prompts.pretrained_features(NAMES)
    scale = nn.Parameter(torch.ones(1))
    for features in found:
        (scale * features).sum().backward()


def test_pretrained_features_follow_the_view_to_another_dtype(view: BackboneView) -> None:
    prompts = ClassPrompts(view, TEMPLATES)
    narrow = prompts.pretrained_features(NAMES)
    view.double()
    wide = prompts.pretrained_features(NAMES)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), narrow)
    view.float()
    assert torch.equal(prompts.pretrained_features(NAMES), narrow)
