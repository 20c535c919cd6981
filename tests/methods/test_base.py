"""The base of all methods: prompts, frozen twin, shared backbone, class-bound tensors, losses that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clipbench.backbone.clip import load_backbone
from clipbench.backbone.prompts import PromptPlan
from clipbench.data.task import Task
from clipbench.errors import BackboneError, ConfigError, MethodError, UnknownName
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.coop import CoOp
from clipbench.methods.lora import LoRA
from clipbench.methods.zero_shot import ZeroShot
from clipbench.testing.learned import check_goes_back_to_where_it_began, check_starts_at_zero_shot
from clipbench.testing.methods import (
    Check,
    check_class_bound_tensors_are_declared,
    check_same_cell_same_record,
    check_training_is_blind_to_test,
)
from clipbench.testing.subject import Subject

BASE = ("forest", "golden retriever")


def test_several_templates_average_unit_features(make: Callable[..., Method]) -> None:
    templates = ("a photo of a {}.", "art of the {}.", "{} texture.")
    method = make(ZeroShot)
    method.prompts.templates = templates
    single = [F.normalize(make(ZeroShot, template=one).class_features(BASE).double(), dim=-1) for one in templates]
    expected = sum(single) / 3
    torch.testing.assert_close(method.class_features(BASE).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.prompts.pretrained_features(BASE).double(), expected, rtol=1e-5, atol=1e-6)


def test_templates_are_filled_with_blanks_for_underscores(make: Callable[..., Method]) -> None:
    method = make(ZeroShot)
    method.prompts.templates = ("a photo of a {}.", "art of the {}.")
    texts = ["a photo of a sea or lake.", "art of the sea or lake."]
    assert method.prompts.plan(["sea_or_lake"]) == PromptPlan(method.backbone.tokenize(texts))


def test_the_frozen_twin_does_not_move(make: Callable[..., Method]) -> None:
    method = make(CLIPFit)
    before = method.class_features(BASE).detach().clone()
    with torch.no_grad():
        for parameter in method.trainable.values():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    assert not torch.allclose(method.class_features(BASE), before)
    torch.testing.assert_close(method.prompts.pretrained_features(BASE), before, rtol=1e-5, atol=1e-6)


def test_methods_share_the_backbone_and_nothing_that_is_trained(make: Callable[..., Method], small: str) -> None:
    first, second = make(CLIPFit), make(CoOp)
    before = second.class_features(BASE).detach()
    with torch.no_grad():
        for parameter in first.trainable.values():
            parameter.add_(1)
    assert torch.equal(second.class_features(BASE).detach(), before)
    table = "text.token_embedding.weight"
    tables = [dict(method.backbone.named_parameters())[table] for method in (first, second)]
    assert tables[0].data_ptr() == tables[1].data_ptr()
    backbone = load_backbone(small)
    assert backbone.compute_hash() == backbone.hash


def test_nothing_can_be_asked_of_a_method_that_is_not_set_up(small: str, tmp_path: Path) -> None:
    method = CLIPFit(backbone=small)
    with pytest.raises(MethodError, match="CLIPFit is not set up: fit or test it with a data module"):
        method(torch.zeros(1, 3, 32, 32))
    with pytest.raises(MethodError, match="has not been set up"):
        method.save(tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="does not know its classes"):
        method.setup("fit")


def test_an_infinite_loss_stops_and_names_step_terms_and_tensor(tmp_path: Path) -> None:
    settings = {"model.warmup_epochs": 0, "model.lr": 1e30, "trainer.max_epochs": 3}
    with (
        Subject("clipfit", tmp_path, settings=settings).cli() as cli,
        pytest.raises(
            MethodError, match=r"at step \d+ is not finite \(cross_entropy .*, distillation .*\); first tensor"
        ),
    ):
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def test_validation_measures_the_val_draw_of_the_trained_classes(tmp_path: Path) -> None:
    with Subject("clipfit", tmp_path).cli(**{"trainer.limit_val_batches": 1.0}) as cli:
        (result,) = cli.trainer.validate(cli.model, datamodule=cli.datamodule, verbose=False)
        trained = cli.datamodule.task.train
        base = [item for item in cli.datamodule.draw.val if item.label < len(trained)]
        assert len(base) == 4 * len(trained)
        hits = result["val/accuracy"] * len(base)
        assert hits == pytest.approx(round(hits), abs=1e-3)


def test_unknown_method_and_backbone() -> None:
    with pytest.raises(UnknownName, match="did you mean 'CLIPFit'"):
        method_class("CLIPFti")
    with pytest.raises(UnknownName, match="did you mean"):
        CLIPFit(backbone="ViT-B-61/openai")
    with pytest.raises(BackboneError):
        CLIPFit(backbone="local-dir:/nowhere")


def test_a_build_that_fails_half_way_leaves_the_backbone_as_it_was(make: Callable[..., Method], small: str) -> None:
    class HalfWay(ZeroShot):
        def build(self) -> dict[str, torch.nn.Parameter]:
            with torch.no_grad():
                self.backbone.unfreeze(["text.blocks.0.mlp.proj.bias"])["text.blocks.0.mlp.proj.bias"].add_(1)
            raise RuntimeError("a plug-in's own fault")

    before = make(ZeroShot).class_features(BASE)
    with pytest.raises(RuntimeError, match="own fault"):
        make(HalfWay)
    assert torch.equal(make(ZeroShot).class_features(BASE), before)
    backbone = load_backbone(small)
    assert backbone.compute_hash() == backbone.hash


def test_what_an_author_left_out_is_named(make: Callable[..., Method]) -> None:
    class Nothing(Method):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing does not say what it trains: it needs a method build\(\)"):
        make(Nothing)
    with pytest.raises(NotImplementedError, match=r"how many numbers it trains: num_trainable\(\)"):
        Method.num_trainable(make(ZeroShot))


class Narrow(LoRA):
    """Fixes the settings of another method but for one."""

    def __init__(self, backbone: str = "mini", rank: int = 3) -> None:
        super().__init__(train=["text tower, last 1 block, mlp.fc"], rank=rank, backbone=backbone, lr=0.01)


def test_a_subclass_may_take_fewer_settings(small: str, tmp_path: Path) -> None:
    method = Narrow(backbone=small)
    assert dict(method.hparams) == {"backbone": small, "rank": 3}
    assert method.requires() == {"text": {"transformer"}}
    method.setup("fit", task=Task("", None, BASE, ()))
    method.save(tmp_path / "narrow.safetensors")
    again = Narrow.load(tmp_path / "narrow.safetensors")
    assert again.rank == 3
    assert set(again.trainable) == set(method.trainable)


def test_a_tensor_of_the_backbone_itself_cannot_be_trained(make: Callable[..., Method]) -> None:
    class Careless(ZeroShot):
        def build(self) -> dict[str, torch.nn.Parameter]:
            return {"logit_scale": self.backbone.logit_scale.requires_grad_(True)}

        def num_trainable(self) -> int:
            return 1

    with pytest.raises(BackboneError, match=r"it is the backbone's own: unfreeze"):
        make(Careless)


class Residual(ZeroShot):
    """A residual for each trained class, added by position."""

    def build(self) -> dict[str, torch.nn.Parameter]:
        self.residual = torch.nn.Parameter(torch.zeros(len(self.classnames), self.backbone.embed_dim))
        return {"residual": self.residual}

    def num_trainable(self) -> int:
        return len(self.classnames) * self.backbone.embed_dim

    def class_features(self, classnames: Sequence[str]) -> torch.Tensor:
        features = super().class_features(classnames)
        return features + self.residual[: len(classnames)]


def test_other_classes_need_a_rule_where_tensors_are_bound_to_the_trained_ones(make: Callable[..., Method]) -> None:
    class Declared(Residual):
        class_bound = ("residual",)

    class Ruled(Declared):
        novel_rule = "frozen"

    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    method = make(Declared)
    base, novel = (split.classnames for split in method.task.tests)
    assert method(images, base).shape == (2, len(base))
    with pytest.raises(MethodError, match=r"'residual' of Declared has rows .* novel_rule = 'frozen'"):
        method(images, novel)
    ruled = make(Ruled)
    with torch.no_grad():
        ruled.residual.add_(torch.linspace(-1, 1, ruled.residual.numel()).view_as(ruled.residual))
        zero_shot = make(ZeroShot)(images, novel)
        assert torch.equal(ruled(images, novel), zero_shot)
        assert not torch.allclose(ruled(images, base), make(ZeroShot)(images, base), atol=1e-3)


def test_the_conformance_suite_finds_what_is_bound_to_classes_and_not_declared(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"model: {{class_path: {__name__}.Residual}}\ntrainer: {{max_epochs: 1}}\n")
    with pytest.raises(AssertionError, match=r"shapes follow the classes: \['residual'\]; declared: \(\)"):
        check_class_bound_tensors_are_declared(Subject(str(tmp_path / "recipe.yaml"), tmp_path))


class Shifted(Method):
    """A shift of the image feature that begins at random, and noise from torch's global generator in training."""

    def build(self) -> dict[str, torch.nn.Parameter]:
        self.shift = torch.nn.Parameter(torch.randn(self.backbone.embed_dim))
        return {"shift": self.shift}

    def num_trainable(self) -> int:
        return self.backbone.embed_dim

    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(self.shift) if self.training else 0
        return super().image_features(images) + self.shift + noise


def test_what_a_build_draws_follows_from_the_seed(make: Callable[..., Method]) -> None:
    state = torch.get_rng_state()
    first, second = make(Shifted), make(Shifted)
    assert torch.equal(first.shift, second.shift)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is as it was"
    second.setup(task=second.task, train_seed=2)
    assert not torch.equal(first.shift, second.shift)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (check_starts_at_zero_shot, r"untrained, Shifted is not zero-shot .* say why in its `exempt`"),
        (check_goes_back_to_where_it_began, "the logits of Shifted depend on the seed: .* interpolates = False"),
        (check_training_is_blind_to_test, "two fits of the same data differ in shift; .* global generator"),
        (check_same_cell_same_record, "two runs of one cell differ in .*losses.* global generator"),
    ],
)
def test_the_conformance_suite_says_what_is_wrong_with_a_random_start(
    check: Check, message: str, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(f"model: {{class_path: {__name__}.Shifted}}\ntrainer: {{max_epochs: 1}}\n")
    with pytest.raises(AssertionError, match=message):
        check(Subject(str(tmp_path / "recipe.yaml"), tmp_path))


@pytest.mark.parametrize(("setting", "value"), [("lr", 0.0), ("lr", -1.0), ("warmup_epochs", -1), ("warmup_lr", -1e-5)])
def test_rates_that_make_no_sense(small: str, setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match="lr must be above 0"):
        CoOp(backbone=small, **{setting: value})


def test_a_last_step_that_overflows_is_not_a_success(tmp_path: Path) -> None:
    from clipbench.bench.outcomes import check_finite

    with Subject("coop", tmp_path).cli() as cli:
        check_finite(cli.model)
        with torch.no_grad():
            cli.model.context.vectors[0, 0] = torch.inf
        with pytest.raises(MethodError, match=r"context\.vectors.*not finite"):
            check_finite(cli.model)


def test_a_last_loss_at_which_nobody_looked_is_not_a_success(tmp_path: Path) -> None:
    from clipbench.bench.outcomes import check_finite

    with Subject("coop", tmp_path).cli() as cli:
        cli.model.last_losses = {"cross_entropy": torch.tensor(1.0), "total": torch.tensor(torch.nan)}
        with pytest.raises(MethodError, match=r"ended with a loss that is not finite \(total nan\)"):
            check_finite(cli.model)
