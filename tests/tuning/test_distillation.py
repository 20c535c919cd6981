"""The distillation term against its formula, and its teacher, who is the frozen twin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipbench.backbone.clip import Backbone
from clipbench.backbone.view import BackboneView
from clipbench.errors import ConfigError
from clipbench.tuning.class_prompts import ClassPrompts
from clipbench.tuning.distillation import Distillation, distance

NAMES = ("cat", "dog", "red_fox")


def test_the_distance_is_one_minus_the_mean_cosine() -> None:
    generator = torch.Generator().manual_seed(0)
    now, teacher = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    cosines = [
        sum(a * b for a, b in zip(x, y, strict=True)) / (sum(a * a for a in x) * sum(b * b for b in y)) ** 0.5
        for x, y in zip(now.tolist(), teacher.tolist(), strict=True)
    ]
    assert float(distance(now, teacher)) == pytest.approx(1 - sum(cosines) / 5, abs=1e-6)
    assert float(distance(3 * now, 0.1 * teacher)) == pytest.approx(float(distance(now, teacher)), abs=1e-6)
    assert float(distance(now, -now)) == pytest.approx(2)
    assert distance(now.half(), teacher.half()).dtype == torch.float32


def test_a_weight_of_zero_asks_no_teacher() -> None:
    prompts: ClassPrompts = None  # type: ignore[assignment]
    assert Distillation(0.0).terms(torch.ones(3, 4), prompts, NAMES) == {}
    with pytest.raises(ConfigError, match="distillation_weight must not be below 0, it is -1"):
        Distillation(-1)


def test_the_teacher_is_the_pretrained_tower_while_the_view_moves(backbone: Backbone, view: BackboneView) -> None:
    name = "text.blocks.0.mlp.proj.bias"
    bias = view.unfreeze([name])[name]
    prompts = ClassPrompts(view, ["a {}."])
    teacher = backbone.encode_text(prompts.plan(NAMES))
    term = Distillation(8.0).terms(prompts.features(NAMES), prompts, NAMES)["distillation"]
    assert float(term.detach()) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        bias.add_(torch.randn(len(bias), generator=torch.Generator().manual_seed(0)))
    term = Distillation(8.0).terms(prompts.features(NAMES), prompts, NAMES)["distillation"]
    expected = 8 * (1 - F.cosine_similarity(view.encode_text(prompts.plan(NAMES)), teacher).mean())
    torch.testing.assert_close(term, expected)
    assert term > 0.01
    term.backward()
    assert bias.grad is not None
    assert bias.grad.any()
