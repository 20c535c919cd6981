"""LoRA in the towers: counts, identity, noise, merging, and a start from what another run learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipbench.backbone.clip import load_backbone
from clipbench.bench.build import method_without_weights
from clipbench.bench.trained_parameters import trained_by
from clipbench.data.task import Task
from clipbench.errors import BackboneError, ConfigError, UnreadSetting
from clipbench.methods.base import Method
from clipbench.methods.lora import LoRA
from clipbench.testing.backbones import write_batchnorm
from clipbench.testing.subject import pretrained_logits
from tests.methods.small import images, learn, scores

ALL = "both towers, blocks all, "
NAMES = ("forest", "golden retriever")
QKV = (ALL + "attn.q_proj and attn.k_proj and attn.v_proj",)


@pytest.mark.parametrize(
    ("recipe", "count"), [("clip_lora", 184_320), ("lora", 184_320), ("lora_qv", 491_520), ("lora_qk", 491_520)]
)
def test_counts_of_the_recipes_on_vit_b_16(recipe: str, count: int) -> None:
    facts = trained_by(recipe, "ViT-B-16/random")
    assert facts["trained_parameters"] == count
    assert {part["tower"] for part in facts["parts"]} == {"text", "image"}


@pytest.mark.parametrize(
    ("what", "rank", "count"), [("attn.*", 2, 245_760), ("attn.v_proj", 2, 61_440), ("Linears", 2, 552_960)]
)
def test_counts_of_other_targets_on_vit_b_16(what: str, rank: int, count: int) -> None:
    arguments = {"backbone": "ViT-B-16/random", "train": [ALL + what], "rank": rank}
    method = method_without_weights(LoRA, arguments, classes=2)
    assert sum(tensor.numel() for tensor in method.trainable.values()) == method.num_trainable() == count


def test_the_official_number_of_tensors() -> None:
    assert sum(part["tensors"] for part in trained_by("clip_lora", "ViT-B-16/random")["parts"]) == 144


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_untrained_it_is_zero_shot_bit_for_bit(make: Callable[..., LoRA], dropout: float) -> None:
    method = make(LoRA, dropout=dropout)
    with torch.no_grad():
        zero_shot = pretrained_logits(method, images(method), method.classnames)
    assert torch.equal(scores(method), zero_shot)


def test_factors_begin_by_seed_and_linear_whatever_else_is_selected(small: str) -> None:
    def begin(what: str, seed: int) -> dict[str, Tensor]:
        method = LoRA(backbone=small, train=[ALL + what])
        method.setup(task=Task("toys", "{}", ("forest", "lake"), ()), train_seed=seed)
        return method.trainable

    name, other = "text.blocks.1.attn.q_proj.A", "text.blocks.0.attn.q_proj.A"
    alone, among, seeded = begin("attn.q_proj", 1), begin("attn.q_proj and mlp.fc", 1), begin("attn.q_proj", 2)
    assert torch.equal(alone[name], among[name])
    assert not torch.equal(alone[name], alone[other])
    assert not torch.equal(alone[name], seeded[name])


def test_in_training_text_features_are_random_by_step_and_in_eval_mode_they_are_not(make: Callable[..., LoRA]) -> None:
    method = learn(make(LoRA, dropout=0.25))

    def features(step: int, mode: bool = True) -> Tensor:
        method.train(mode)
        method.noise.begin_step(step)
        return method.class_features(method.classnames).detach()

    first = features(0)
    torch.manual_seed(1)
    assert torch.equal(features(0), first)
    assert not torch.equal(features(1), first)
    assert torch.equal(features(0, mode=False), features(1, mode=False))


@pytest.mark.parametrize(("dropout", "mode", "shared"), [(0.25, True, False), (0.25, False, True), (0.0, True, True)])
def test_classes_share_their_prefix_unless_dropout_is_on(
    make: Callable[..., LoRA], monkeypatch: pytest.MonkeyPatch, dropout: float, mode: bool, shared: bool
) -> None:
    method = learn(make(LoRA, dropout=dropout)).train(mode)
    seen: list[bool] = []
    forward = method.backbone.text.forward

    def spy(*args: Any, share_prefix: bool, **kwargs: Any) -> Tensor:
        seen.append(share_prefix)
        return forward(*args, share_prefix=share_prefix, **kwargs)

    monkeypatch.setattr(method.backbone.text, "forward", spy)
    method.class_features(method.classnames)
    assert seen == [shared]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
@pytest.mark.parametrize("train", [QKV, (ALL + "Linears",)])
def test_merged_logits_equal_unmerged(
    make: Callable[..., LoRA], small: str, dtype: torch.dtype, bound: float, train: tuple[str, ...]
) -> None:
    method = make(LoRA, train=train, rank=3, alpha=2.0, dropout=0.1).to(dtype)
    apart = scores(learn(method), dtype)
    with method.backbone.merged():
        together = scores(method, dtype)
        assert not any("A" in name.split(".") for name, _ in method.backbone.named_parameters())
    assert together.dtype == dtype
    assert 0 < float((together - apart).abs().max()) <= bound * float(apart.abs().max())
    assert torch.equal(scores(method, dtype), apart)
    backbone = load_backbone(small)
    assert backbone.compute_hash() == backbone.hash


def test_the_weights_that_it_amounts_to_lie_on_the_line_of_wise_ft(make: Callable[..., LoRA]) -> None:
    method = learn(make(LoRA))
    now = method.backbone.changed_tensors()
    method.weights.interpolate(0.3)
    after = method.backbone.changed_tensors()
    assert len(now) == 2 * 2 * 3
    for name, tensor in after.items():
        expected = torch.lerp(method.backbone.pretrained_tensor(name), now[name], 0.3)
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)


def test_it_can_begin_from_what_another_run_learned(make: Callable[..., LoRA], tmp_path: Path) -> None:
    parent = learn(make(LoRA))
    expected = scores(parent)
    parent.save(tmp_path / "parent.safetensors")
    child = make(LoRA, train=[ALL + "mlp.fc"], start=str(tmp_path / "parent.safetensors"))
    torch.testing.assert_close(scores(child), expected, rtol=1e-4, atol=1e-4)
    after = scores(learn(child))
    assert not torch.allclose(after, expected, atol=1e-2)
    child.save(tmp_path / "child.safetensors")
    loaded = Method.load(tmp_path / "child.safetensors")
    assert torch.equal(scores(loaded), after)


def test_it_needs_our_transformer_only_in_the_towers_that_it_trains(small: str, tmp_path: Path) -> None:
    other = write_batchnorm(tmp_path / "bn")
    with pytest.raises(BackboneError, match=r"LoRA.*image"):
        LoRA(backbone=other)
    method = LoRA(backbone=other, train=["text tower, blocks all, attn.q_proj"])
    assert method.requires() == {"text": {"transformer"}}
    assert not method.exempt


def test_what_cannot_be_is_refused(make: Callable[..., LoRA], small: str) -> None:
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match="rank must be 1 or more"):
            LoRA(backbone=small, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnreadSetting, match=r"momentum=0\.9 .* adamw"):
        LoRA(backbone=small, optimizer="adamw", momentum=0.9)
    with pytest.raises(ConfigError, match=r"train is a list, each text; write \['text tower, mlp\.fc'\]"):
        LoRA(backbone=small, train="text tower, mlp.fc")
    with pytest.raises(ConfigError, match=r"image\.blocks\.0\.attn\.q_proj: rank must lie between"):
        make(LoRA, rank=49)
    with pytest.raises(ConfigError, match=r"'attn\.qproj' matches no Linear.*attn\.q_proj"):
        make(LoRA, train=[ALL + "attn.qproj"])


def test_dropout_never_stays_in_cached_class_features(make: Callable[..., LoRA]) -> None:
    """Also where all factors of the text tower have been frozen on the way."""
    method = make(LoRA, train=["text tower, blocks all, attn.q_proj"], dropout=0.5, rank=2)
    with torch.no_grad():
        for name, parameter in method.trainable.items():
            if name.endswith(".B"):
                parameter.normal_(generator=torch.Generator().manual_seed(0))
            parameter.requires_grad_(False)
    method.train()
    noisy = [method.class_features(NAMES) for _ in range(2)]
    method.eval()
    quiet = method.class_features(NAMES)
    assert not torch.equal(*noisy), "every step draws its own noise"
    assert torch.equal(quiet, method.backbone.encode_text(method.prompts.plan(NAMES)))
    assert not torch.equal(quiet, noisy[0])
