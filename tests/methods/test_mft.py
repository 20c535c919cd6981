"""MFT on CLIP: counts, exact shares, the rule of the learning rate, bits that reload, selections."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from clipbench.bench.build import method_without_weights
from clipbench.bench.trained_parameters import trained_by
from clipbench.errors import BackboneError, ConfigError, MethodError, UnreadSetting
from clipbench.methods.base import Method
from clipbench.methods.clipfit import CLIPFit
from clipbench.methods.mft import MFT
from clipbench.methods.weights_file import read_learned
from clipbench.methods.wiseft import WiSEFT
from clipbench.testing.backbones import write_batchnorm
from clipbench.testing.frozen import check_batchnorm_and_dropout_stay_frozen
from clipbench.testing.subject import Subject, pretrained_logits
from clipbench.tuning.linears import NO_BATCHNORM
from clipbench.tuning.selection import needs_of
from clipbench.tuning.topk import drop_count

SMALL = ["image tower, blocks all, Linears"]  # the small backbone has two blocks
VIT = "ViT-B-16/random"
Make = Callable[..., Any]


def pixels(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def logits(method: Method) -> Tensor:
    with torch.no_grad():
        return method.logits(method.image_features(pixels()), method.class_features(method.classnames))


def zero_shot(method: Method) -> Tensor:
    return pretrained_logits(method, pixels(), method.classnames)


def scramble(method: MFT, seed: int = 1) -> None:
    with torch.no_grad():
        for scores in method.trainable.values():
            scores.copy_(0.02 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(seed)))


def run_of(steps: int) -> Any:
    """What a method reads of a trainer that has so many steps."""
    return SimpleNamespace(estimated_stepping_batches=steps)


@pytest.mark.parametrize("recipe", ["mft", "mft_soft"])
def test_the_recipe_masks_the_last_four_image_blocks(recipe: str) -> None:
    facts = trained_by(recipe, VIT)
    assert facts["trained_parameters"] == 28_311_552
    assert {part["tower"] for part in facts["parts"]} == {"image"}


@pytest.mark.parametrize(
    ("train", "count"),
    [
        (["image tower, blocks all, attn.* and mlp.*"], 84_934_656),
        (["text tower, blocks all, Linears"], 37_748_736),
        (["both towers, proj"], 768 * 512 + 512 * 512),
        (["image tower, block 0, attn.q_proj", "image tower, proj"], 768 * 768 + 768 * 512),
    ],
)
def test_counts_of_other_selections(train: list[str], count: int) -> None:
    method = method_without_weights(MFT, {"backbone": VIT, "train": train}, classes=2)
    assert sum(scores.numel() for scores in method.trainable.values()) == method.num_trainable() == count
    bits = method.adapter_state_dict()
    assert sum(tensor.numel() for tensor in bits.values()) == count // 8, "one bit per weight"


@pytest.mark.parametrize("keep", [0.9, 0.75, 0.501])
def test_every_matrix_drops_its_exact_share(make: Make, keep: float) -> None:
    method = make(MFT, train=[*SMALL, "both towers, proj"], keep=keep)
    for _ in range(2):
        for name, mask in method.masks.masks.items():
            dropped = int((~mask.gate()).sum())
            assert dropped == drop_count(keep, mask.scores.numel()), name
        scramble(method)
    told = method.masks.diagnostics()
    assert set(told["kept_by_matrix"]) == set(method.masks.masks)
    assert told["kept"] == pytest.approx(keep, abs=1e-3)


def test_magnitude_scores_drop_the_smallest_weights(make: Make) -> None:
    method = make(MFT, train=SMALL)
    name = "image.blocks.1.mlp.fc.weight"
    weight, gate = method.backbone.pretrained_tensor(name), method.masks.masks[name].gate()
    assert weight[~gate].abs().max() <= weight[gate].abs().min()


@pytest.mark.parametrize("score_init", ["normal", "kaiming_uniform"])
def test_initial_scores_come_from_the_train_seed_and_the_name(make: Make, score_init: str) -> None:
    first = make(MFT, train=SMALL, score_init=score_init).trainable
    values = list(first.values())
    assert not torch.equal(values[0], values[1])
    again = make(MFT, train=[*SMALL, "image tower, proj"], score_init=score_init).trainable
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


# The learning rate


def test_the_rule_of_the_learning_rate(make: Make) -> None:
    method = make(MFT, train=SMALL, lr_rule=2.0, optimizer="adamw", schedule="cosine_per_step")
    method._trainer = run_of(steps=40)
    cuts = []
    for name in method.masks.masks:
        size = method.backbone.pretrained_tensor(name).abs()
        scores = (size / size.mean() * 0.02).flatten()
        cuts.append(float(scores.sort().values[drop_count(0.9, len(scores)) - 1]))
    expected = 2 * (sum(cuts) / len(cuts)) / (0.5 * 40)
    configured = method.configure_optimizers()
    assert configured["optimizer"].param_groups[0]["lr"] == pytest.approx(expected, rel=1e-6)
    assert method.diagnostics["lr"] == pytest.approx(expected, rel=1e-6)
    rates = method.optimisation.planned_rates(method.trainer)
    assert sum(rates) == pytest.approx(2 * method.diagnostics["initial_cut"], rel=0.03)


def test_without_the_rule_the_rate_is_the_one_given(make: Make) -> None:
    method = make(MFT, train=SMALL, lr_rule=None, lr=2e-5, schedule="cosine_per_step")
    method._trainer = run_of(steps=40)
    assert method.configure_optimizers()["optimizer"].param_groups[0]["lr"] == 2e-5


def test_scores_without_a_scale_are_refused(make: Make) -> None:
    method = make(MFT, train=SMALL, rule="threshold", score_init="constant", score_scale=0.005, schedule="constant")
    method._trainer = run_of(steps=40)
    with pytest.raises(ConfigError, match="lr_rule has no scale"):
        method.configure_optimizers()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": 0.0}, "keep ratio"),
        ({"lr_rule": -1.0}, "lr_rule"),
        ({"score_scale": 0.0}, "score_scale 0 .* rule topk_abs has no gradient"),
        ({"score_scale": 0.0, "score_init": "normal", "lr_rule": None}, "score_scale 0 .* rule topk_abs"),
        ({"score_scale": -0.02, "score_init": "normal"}, "a standard deviation, not -0.02"),
        ({"score_scale": 0.0, "score_init": "constant", "lr_rule": None}, "score_scale 0 .* rule topk_abs"),
    ],
)
def test_settings_that_cannot_be(small: str, arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MFT(backbone=small, train=SMALL, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.5}, "lr=0.5 is read by nothing: lr_rule"),
        ({"rule": "soft", "keep": 0.9}, "keep=0.9 .* rule soft"),
        ({"rule": "threshold", "keep": 0.9}, "keep=0.9 .* rule threshold"),
        ({"threshold": 0.005}, "threshold=0.005 .* rule topk_abs"),
        ({"rule": "soft", "threshold": 0.005}, "threshold=0.005 .* rule soft"),
        ({"score_init": "kaiming_uniform", "score_scale": 0.02}, "score_scale=0.02 .* kaiming_uniform"),
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum=0.9 .* adamw"),
        ({"schedule": "cosine_per_step", "warmup_epochs": 1}, "warmup_epochs=1 .* cosine_per_step"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(small: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UnreadSetting, match=words):
        MFT(backbone=small, train=SMALL, **arguments)


# Where it starts, and where it goes back to


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ({"rule": "soft", "score_init": "constant", "score_scale": 0.0}, True),
        ({"rule": "threshold", "score_init": "constant", "score_scale": 0.02}, True),
        ({"keep": 1.0}, True),
        ({"keep": 0.9}, False),
        ({"rule": "soft", "score_init": "normal"}, False),
    ],
)
def test_where_it_starts(make: Make, arguments: dict[str, Any], same: bool) -> None:
    method = make(MFT, train=[*SMALL, "image tower, proj"], **arguments)
    assert ("check_starts_at_zero_shot" not in method.exempt) == same
    assert torch.equal(logits(method), zero_shot(method)) == same


@pytest.mark.parametrize("rule", ["topk_abs", "threshold", "soft"])
def test_interpolation_goes_back_to_zero_shot(make: Make, rule: str) -> None:
    method = make(MFT, train=[*SMALL, "image tower, proj"], rule=rule)
    scramble(method)
    learned = logits(method)
    method.weights.interpolate(1.0)
    assert torch.equal(logits(method), learned)
    method.weights.interpolate(0.0)
    assert torch.equal(logits(method), zero_shot(method))
    assert not torch.equal(learned, zero_shot(method))


def test_merged_and_apart_give_the_same_logits(make: Make) -> None:
    method = make(MFT, train=[*SMALL, "both towers, proj"])
    scramble(method)
    apart = logits(method)
    with method.backbone.merged():
        assert torch.equal(logits(method), apart)
    changed = method.backbone.changed_tensors()
    assert set(changed) == set(method.masks.masks), "masked weights, the projections among them, and nothing else"
    for name, tensor in changed.items():
        assert torch.equal(tensor, method.backbone.pretrained_tensor(name) * method.masks.masks[name].gate())


# What is stored


@pytest.mark.parametrize("rule", ["topk_abs", "threshold", "soft"])
def test_stored_masks_reload_to_the_same_logits(make: Make, tmp_path: Path, rule: str) -> None:
    arguments = {"train": [*SMALL, "both towers, proj"], "rule": rule}
    method = make(MFT, **arguments)
    scramble(method)
    expected, size = logits(method), method.save(tmp_path / "mask")
    names = {name.rpartition(".")[2] for name in method.adapter_state_dict()}
    if rule == "soft":
        assert names == {"scores"}
    else:
        assert names == {"bits"}
        header = 4000 + 120 * len(method.masks.masks)
        assert size < method.num_trainable() / 8 + header, "one bit per weight"
    method = make(MFT, **arguments)
    method.setup(learned=read_learned(tmp_path / "mask"))
    assert torch.equal(logits(method), expected)
    loaded = Method.load(tmp_path / "mask")
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("rule", ["topk_abs", "threshold", "soft"])
def test_interpolated_masks_are_not_stored_and_loaded_ones_are_not_interpolated(
    make: Make, tmp_path: Path, rule: str
) -> None:
    method = make(MFT, train=[*SMALL, "image tower, proj"], rule=rule)
    scramble(method)
    expected, learned = logits(method), {name: t.clone() for name, t in method.adapter_state_dict().items()}
    method.weights.interpolate(0.5)
    assert not torch.equal(logits(method), expected)
    for store in (lambda: method.save(tmp_path / "mask"), lambda: pickle.dumps(method)):
        with pytest.raises(MethodError, match="masks that were interpolated cannot be stored"):
            store()
    method.load_adapter_state_dict(learned)
    assert torch.equal(logits(method), expected)


def test_bits_of_another_method_are_refused(make: Make, tmp_path: Path) -> None:
    make(MFT, train=SMALL, keep=0.9).save(tmp_path / "mask")
    learned = read_learned(tmp_path / "mask")
    with pytest.raises(MethodError, match=r"keep ratio 0\.8"):
        make(MFT, train=SMALL, keep=0.8).setup(learned=learned)
    with pytest.raises(MethodError, match="stored masks do not fit"):
        make(MFT, train=["image tower, block 0, Linears"]).setup(learned=learned)


def test_what_a_masked_projection_learned_lies_in_the_weights(make: Make) -> None:
    for train in (SMALL, ["image tower, proj"]):
        method = make(MFT, train=train)
        assert method.backbone.can_hold(method.trainable.values())


def test_two_stages_mask_what_the_first_stage_left(make: Make, tmp_path: Path) -> None:
    first = make(CLIPFit)
    with torch.no_grad():
        for tensor in first.trainable.values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))
    tuned = logits(first)
    first.save(tmp_path / "first")
    second = make(MFT, train=SMALL, keep=1.0, start=str(tmp_path / "first"))
    assert torch.equal(logits(second), tuned)
    second = make(MFT, train=SMALL, start=str(tmp_path / "first"))
    scramble(second)
    expected = logits(second)
    assert not torch.equal(expected, tuned)
    second.save(tmp_path / "second")
    loaded = Method.load(tmp_path / "second")
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("rule", ["topk_abs", "soft"])
def test_half_way_between_it_and_zero_shot(make: Make, tmp_path: Path, rule: str) -> None:
    method = make(MFT, train=[*SMALL, "image tower, proj"], rule=rule)
    scramble(method)
    learned = {name: mask.gate().detach().float() for name, mask in method.masks.masks.items()}
    method.save(tmp_path / "mask")
    between = make(WiSEFT, start=str(tmp_path / "mask"), alpha=0.5)
    expected = logits(between)
    for name, tensor in between.backbone.changed_tensors().items():
        torch.testing.assert_close(tensor, between.backbone.pretrained_tensor(name) * (0.5 + 0.5 * learned[name]))
    between.save(tmp_path / "between")
    loaded = Method.load(tmp_path / "between")
    assert torch.equal(logits(loaded), expected)


# Selections


def test_what_a_selection_needs() -> None:
    assert needs_of(["image tower, last 4 blocks, Linears"]) == MFT().requires() == {"image": {"transformer"}}
    assert needs_of(["text tower, proj"]) == {"text": {"transformer"}}
    assert needs_of(["both towers, Linears"]) == {}


def test_a_foreign_image_tower_is_refused_unless_the_text_tower_is_masked(make: Make, tmp_path: Path) -> None:
    name = write_batchnorm(tmp_path / "bn")
    with pytest.raises(BackboneError, match=r"MFT.*image tower"):
        MFT(backbone=name)
    method = make(MFT, backbone=name, train=["text tower, blocks all, mlp.*"])
    assert method.num_trainable() == 2 * 8 * 32 * 32
    assert not set(NO_BATCHNORM) & set(method.exempt)


def test_beside_batchnorm_a_masked_text_tower_leaves_the_image_tower_alone(tmp_path: Path) -> None:
    settings = {"model.train": ["text tower, blocks all, Linears"]}
    check_batchnorm_and_dropout_stay_frozen(Subject("mft", tmp_path, settings=settings))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (["image tower, last 4 blocks, attn.qkv"], r"attn\.qkv.*near"),
        (["text tower, blocks all, ln_1"], "matches no Linear"),
        (["tower, proj"], "begins with no tower"),
    ],
)
def test_selections_that_mean_nothing(small: str, make: Make, train: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(MFT, train=[text.replace("last 4", "last 2") for text in train])
