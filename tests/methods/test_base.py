"""The base of all methods: prompts, frozen twin, the shared backbone, losses that are not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clipbench.backbone.prompts import PromptPlan
from clipbench.errors import BackboneError, ConfigError, MethodError, UnknownName
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.zero_shot import ZeroShot
from clipbench.testing.methods import Subject

BASE = ("forest", "golden retriever")


def test_several_templates_average_unit_features(make: Callable[..., Method]) -> None:
    templates = ("a photo of a {}.", "art of the {}.", "{} texture.")
    method = make(ZeroShot, templates=templates)
    single = [F.normalize(make(ZeroShot, templates=(one,)).class_features(BASE).double(), dim=-1) for one in templates]
    expected = sum(single) / 3
    torch.testing.assert_close(method.class_features(BASE).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.zero_shot_features(BASE).double(), expected, rtol=1e-5, atol=1e-6)


def test_templates_are_filled_with_blanks_for_underscores(make: Callable[..., Method]) -> None:
    method = make(ZeroShot, templates=("a photo of a {}.", "art of the {}."))
    texts = ["a photo of a sea or lake.", "art of the sea or lake."]
    assert method.prompts(["sea_or_lake"]) == PromptPlan(method.backbone.tokenize(texts))


def test_the_frozen_twin_does_not_move(make: Callable[..., Method]) -> None:
    method = make(CLIPFit)
    before = method.class_features(BASE).detach().clone()
    with torch.no_grad():
        for parameter in method.built().values():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    assert not torch.allclose(method.class_features(BASE), before)
    torch.testing.assert_close(method.zero_shot_features(BASE), before, rtol=1e-5, atol=1e-6)


def test_the_backbone_is_held_by_one_method_at_a_time(make: Callable[..., Method], small: str) -> None:
    holder = make(CLIPFit)
    with pytest.raises(MethodError, match="still held by another method"):
        make(CoOp)
    holder.release()
    make(CoOp)


def test_nothing_can_be_asked_of_a_method_that_is_not_built(small: str) -> None:
    with pytest.raises(MethodError, match="configure_model"):
        CLIPFit(backbone=small).built()


def test_an_infinite_loss_stops_and_names_step_terms_and_tensor(tmp_path: Path) -> None:
    settings = {"model.warmup_epochs": 0, "model.lr": 1e30, "trainer.max_epochs": 3}
    with (
        Subject("clipfit", tmp_path, settings=settings).objects() as objects,
        pytest.raises(MethodError, match=r"not finite at step \d+ \(cross_entropy .*, distillation .*\); first tensor"),
    ):
        objects.trainer.fit(objects.model, datamodule=objects.datamodule)


def test_validation_measures_the_val_draw_of_the_trained_classes(tmp_path: Path) -> None:
    with Subject("clipfit", tmp_path).objects(**{"trainer.limit_val_batches": 1.0}) as objects:
        (result,) = objects.trainer.validate(objects.model, datamodule=objects.datamodule, verbose=False)
        base = [item for item in objects.datamodule.draw.val if item.label < len(objects.model.task.train)]
        assert len(base) == 4 * len(objects.model.task.train)
        hits = result["val/accuracy"] * len(base)
        assert hits == pytest.approx(round(hits), abs=1e-3)


def test_unknown_method_and_backbone() -> None:
    with pytest.raises(UnknownName, match="did you mean 'CLIPFit'"):
        method_class("CLIPFti")
    with pytest.raises(UnknownName, match="did you mean"):
        CLIPFit(backbone="ViT-B-61/openai")
    with pytest.raises(BackboneError):
        CLIPFit(backbone="local-dir:/nowhere")


def test_a_build_that_fails_half_way_gives_the_backbone_back(make: Callable[..., Method], small: str) -> None:
    class HalfWay(ZeroShot):
        def build(self) -> dict[str, torch.nn.Parameter]:
            self.backbone.lend(["text.blocks.0.mlp.proj.bias"])
            raise RuntimeError("a plug-in's own fault")

    method = HalfWay(backbone=small)
    with pytest.raises(RuntimeError, match="own fault"):
        method.configure_model()
    method.release()
    make(CLIPFit)


@pytest.mark.parametrize(("setting", "value"), [("lr", 0.0), ("lr", -1.0), ("warmup_epochs", -1), ("warmup_lr", -1e-5)])
def test_rates_that_make_no_sense(small: str, setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match="lr must be above 0"):
        CoOp(backbone=small, **{setting: value})


def test_a_last_step_that_overflows_is_not_a_success(tmp_path: Path) -> None:
    from clipbench.bench.run import check_finite

    with Subject("coop", tmp_path).objects() as objects:
        check_finite(objects.model)
        with torch.no_grad():
            objects.model.context.vectors[0, 0] = torch.inf
        with pytest.raises(MethodError, match=r"context\.vectors.*not finite"):
            check_finite(objects.model)
