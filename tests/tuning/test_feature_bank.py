"""The bank of features: which crops it holds, in what order, and that chunks and mixed precision do not move it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipbench.data.module import FewShotDataModule
from clipbench.errors import ConfigError
from clipbench.methods.zero_shot import ZeroShot
from clipbench.testing.subject import Subject
from clipbench.tuning.feature_bank import FeatureBank, encoded


@pytest.fixture
def method() -> ZeroShot:
    built = ZeroShot()
    built.setup(task=data().task)
    return built


def data(**changes: object) -> FewShotDataModule:
    made = FewShotDataModule(**({"dataset": "mini/eurosat", "shots": 2} | changes))  # type: ignore[arg-type]
    made.setup("fit")
    return made


def test_a_pass_holds_the_crops_of_its_epoch_in_draw_order(method: ZeroShot) -> None:
    module = data()
    bank = FeatureBank.fill(method.backbone, module, 3)
    images, count = module.train_images(), len(module.train_images())
    assert bank.features.shape == (3, count, method.backbone.embed_dim)
    assert bank.labels.tolist() == images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    for number in range(3):
        pixels = images.batch([(position, number) for position in range(count)]).image
        plain = method.backbone.encode_image(method.backbone.normalise(pixels))
        torch.testing.assert_close(bank.features[number], plain, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(bank.features[0], bank.features[1], atol=1e-2)
    features, labels = bank.concatenated()
    assert torch.equal(features, torch.cat(list(bank.features)))
    assert labels.tolist() == bank.labels.tolist() * 3


def test_in_float64_chunks_are_the_plain_path(method: ZeroShot) -> None:
    method.double()
    whole, parts = data(), data(test_batch_size=3)
    one, many = (list(module.passes_dataloader(2)) for module in (whole, parts))
    assert [len(batch.label) for batch in many] == [3] * 6 + [2]
    pixels = torch.cat([batch.image for batch in one]).double() / 255
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (
        method.preprocessing.mean, method.preprocessing.std
    ))  # fmt: skip
    plain = method.backbone.encode_image((pixels - mean) / std)
    for batches in (one, many):
        found, _ = encoded(method.backbone, batches)
        torch.testing.assert_close(found, plain.float(), rtol=1e-5, atol=1e-5)


def test_it_is_a_function_of_the_seed_whatever_the_batches(method: ZeroShot) -> None:
    def bank(**changes: object) -> torch.Tensor:
        return FeatureBank.fill(method.backbone, data(**changes), 1).features

    first = bank()
    assert torch.equal(bank(batch_size=7), first)
    assert not torch.allclose(bank(train_seed=2), first, atol=1e-2)


def test_it_is_float32_without_gradient_under_mixed_precision(method: ZeroShot) -> None:
    exact = FeatureBank.fill(method.backbone, data(), 1).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = FeatureBank.fill(method.backbone, data(), 1).features
    assert torch.equal(mixed, exact)
    assert exact.dtype == torch.float32
    assert not exact.requires_grad


def test_what_gives_no_features_is_refused(method: ZeroShot) -> None:
    with pytest.raises(ConfigError, match="at least one pass of the train images, but passes is 0"):
        FeatureBank.fill(method.backbone, data(), 0)
    with pytest.raises(ConfigError, match="from a data module of clipbench, not from NoneType"):
        FeatureBank.fill(method.backbone, None, 1)
    features, labels = encoded(method.backbone, [])
    assert features.shape == (0, method.backbone.embed_dim)
    assert labels.shape == (0,)


def test_a_fit_computes_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fill = FeatureBank.fill.__func__  # type: ignore[attr-defined]

    def counted(cls: type, *given: object) -> FeatureBank:
        calls.append(given)
        bank: FeatureBank = fill(cls, *given)
        return bank

    monkeypatch.setattr(FeatureBank, "fill", classmethod(counted))
    with Subject("tip_adapter_f", tmp_path, settings={"model.passes": 2}).cli() as cli:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        assert cli.trainer.current_epoch == 2
    assert len(calls) == 1
