"""Tip-Adapter: the formula in float64, empty entries, what is refused, and that -F alone moves the keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench.errors import ConfigError, MethodError, UnknownName, UnreadSetting
from clipbench.methods.base import Method
from clipbench.methods.tip_adapter import TipAdapter, cache_logits, filled
from clipbench.testing.subject import Subject, images_of, pretrained_logits, scores
from clipbench.tuning.feature_bank import FeatureBank
from tests.methods.small import record_of_one_shot


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)


def by_hand(features: Tensor, keys: Tensor, labels: list[int], classes: int, beta: float) -> Tensor:
    """The sum over images one by one."""
    out = torch.zeros(len(features), classes, dtype=torch.float64)
    for b, v in enumerate(features):
        for key, label in zip(keys, labels, strict=True):
            out[b, label] += math.exp(-beta * (1 - sum(float(x) * float(y) for x, y in zip(v, key, strict=True))))
    return out


def test_the_cache_is_the_formula() -> None:
    v, f, labels = unit(3, 4), unit(5, 4, seed=1), [0, 2, 0, 1, 2]
    keys = filled(f, torch.tensor(labels), torch.zeros(3, 2, 4, dtype=torch.float64))
    torch.testing.assert_close(cache_logits(v, keys, 5.5), by_hand(v, f, labels, 3, 5.5), rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 2**31), st.floats(0.1, 20))
def test_empty_entries_count_for_nothing_and_classes_may_be_permuted(labels: list[int], seed: int, beta: float) -> None:
    v, f, of = unit(3, 6, seed=seed), unit(len(labels), 6, seed=seed + 1), torch.tensor(labels)
    most = int(of.bincount().max())
    tight, loose = (filled(f, of, torch.zeros(4, size, 6, dtype=torch.float64)) for size in (most, most + 5))
    found = cache_logits(v, loose, beta)
    torch.testing.assert_close(found, cache_logits(v, tight, beta), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, by_hand(v, f, labels, 4, beta), rtol=1e-9, atol=1e-9)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    permuted = filled(f, torch.argsort(order)[of], torch.zeros(4, most, 6, dtype=torch.float64))
    torch.testing.assert_close(cache_logits(v, permuted, beta), found[:, order], rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.1, 20))
def test_classes_with_the_same_images_get_equal_scores(classes: int, shots: int, seed: int, beta: float) -> None:
    """Whatever the order of the images in each, so also with equal means."""
    f, generator = unit(shots, 6, seed=seed), torch.Generator().manual_seed(seed)
    keys = torch.stack([f[torch.randperm(shots, generator=generator)] for _ in range(classes)])
    found = cache_logits(unit(4, 6, seed=seed + 1), keys, beta)
    torch.testing.assert_close(found, found[:, :1].expand(4, classes), rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**31), st.floats(0.1, 20))
def test_with_one_image_a_class_the_nearest_image_wins(classes: int, seed: int, beta: float) -> None:
    v, f = unit(5, 6, seed=seed), unit(classes, 6, seed=seed + 1)
    found = cache_logits(v, filled(f, torch.arange(classes), torch.zeros(classes, 1, 6, dtype=torch.float64)), beta)
    torch.testing.assert_close(found, (beta * (v @ f.T - 1)).exp(), rtol=1e-12, atol=1e-12)
    assert torch.equal(found.argmax(dim=1), torch.cdist(v, f).argmin(dim=1))


def test_empty_entries_stay_empty_under_training() -> None:
    keys = torch.nn.Parameter(filled(unit(3, 6), torch.tensor([0, 1, 1]), torch.zeros(2, 2, 6, dtype=torch.float64)))
    before, optimiser = keys.detach().clone(), torch.optim.AdamW([keys], lr=0.01, eps=1e-4, weight_decay=0.1)
    for step in range(3):
        optimiser.zero_grad()
        F.cross_entropy(cache_logits(unit(4, 6, seed=step), keys, 1.0), torch.tensor([0, 1, 0, 1])).backward()
        optimiser.step()
    assert torch.equal(keys[0, 1], torch.zeros(6, dtype=torch.float64))
    assert (keys.detach() != before).all(dim=-1).tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("size", [4, 16])
def test_the_cache_of_a_fit(size: int, tmp_path: Path) -> None:
    shots, given = 4, {"model.cache_size": size, "model.passes": 3}
    with Subject("tip_adapter", tmp_path, settings=given).cli() as cli:
        method, data = cli.model, cli.datamodule
        images, names = images_of(cli), method.classnames
        zero_shot = pretrained_logits(method, images, names)
        assert torch.equal(scores(method, images, names), zero_shot)
        cli.trainer.fit(method, datamodule=data)
        bank = FeatureBank.fill(method.backbone, data, 3)
        mean = F.normalize(bank.features.double().mean(dim=0), dim=-1)
        assert len(mean) == shots * len(names)
        torch.testing.assert_close(method.keys.double()[:, :shots].flatten(0, 1), mean, rtol=1e-5, atol=1e-6)
        assert not method.keys[:, shots:].any()
        assert method.diagnostics == {"cached_images": len(mean), "empty_entries": (size - shots) * len(names)}
        v = F.normalize(method.image_features(images).double(), dim=-1)
        expected = zero_shot.double() + 10 * by_hand(v, mean, bank.labels.tolist(), len(names), method.beta)
        method.alpha = 10
        torch.testing.assert_close(scores(method, images, names).double(), expected, rtol=1e-4, atol=1e-4)


def test_more_images_than_entries_are_refused_before_any_work(tmp_path: Path) -> None:
    with Subject("tip_adapter_f", tmp_path, settings={"model.cache_size": 3}).cli() as cli:
        with pytest.raises(
            ConfigError, match=r"has 4 train images and the cache .* 3 entries .* set model.cache_size 4"
        ):
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        assert not cli.model.keys.any()


def test_one_image_a_class_fills_one_of_sixteen_entries(tmp_path: Path) -> None:
    subject = Subject("tip_adapter_f", tmp_path, settings={"model.cache_size": 16, "model.passes": 2})
    record = record_of_one_shot(subject)
    assert record.data["diagnostics"] == {"cached_images": 5, "empty_entries": 75}


def test_only_f_has_settings_of_training(make: Callable[..., Method]) -> None:
    for setting in ({"lr": 0.1}, {"optimizer": "adamw"}, {"weight_decay": 0.0}, {"eps": 1e-4}, {"schedule": "cosine"}):
        with pytest.raises(UnreadSetting, match="without train_keys nothing is trained"):
            TipAdapter(train_keys=False, **setting)  # type: ignore[arg-type]
        if setting.keys() != {"eps"}:
            TipAdapter(train_keys=True, **setting)  # type: ignore[arg-type]
    plain, tuned = make(TipAdapter, train_keys=False), make(TipAdapter, cache_size=2)
    assert (plain.num_trainable(), plain.trainable, plain.learns) == (0, {}, True)
    assert (tuned.num_trainable(), list(tuned.trainable)) == (3 * 2 * 32, ["keys"])


def test_what_means_nothing_is_refused(make: Callable[..., Method]) -> None:
    for wrong in ({"beta": 0.0}, {"cache_size": 0}, {"passes": 0}):
        with pytest.raises(ConfigError):
            TipAdapter(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="class of this cache"):
        make(TipAdapter).class_features(("lake",))
    with pytest.raises(MethodError, match="do not fit"):
        make(TipAdapter).load_adapter_state_dict({"keys": torch.zeros(3, 2, 32)})


def test_a_checkpoint_holds_the_cache_that_nothing_trains(tmp_path: Path) -> None:
    with Subject("tip_adapter", tmp_path, settings={"model.passes": 1}).cli() as cli:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        cli.trainer.save_checkpoint(tmp_path / "cache.ckpt")
        images, names = images_of(cli), cli.model.classnames
        expected = scores(cli.model, images, names)
    loaded = TipAdapter.load_from_checkpoint(tmp_path / "cache.ckpt", weights_only=True)
    assert torch.equal(scores(loaded, images, names), expected)
