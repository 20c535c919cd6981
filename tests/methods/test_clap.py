"""CLAP: how much each class is held, the penalty, and the rows that a step sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.errors import ConfigError, UnknownName
from clipbench.methods.base import Method
from clipbench.methods.clap import CLAP, multipliers
from clipbench.testing.subject import Subject
from clipbench.tuning.feature_bank import FeatureBank
from tests.methods.small import BASE


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 2**31))
def test_a_multiplier_is_the_mean_probability_of_the_class_itself(labels: list[int], seed: int) -> None:
    logits = 3 * torch.randn((len(labels), 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    of, found = torch.tensor(labels), multipliers(logits, torch.tensor(labels))
    for label in range(4):
        own = [float(row.exp()[label] / row.exp().sum()) for row, y in zip(logits, labels, strict=True) if y == label]
        assert float(found[label]) == pytest.approx(sum(own) / max(1, len(own)), abs=1e-12)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    permuted = multipliers(logits[:, order], torch.argsort(order)[of])
    torch.testing.assert_close(permuted, found[order], rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_equal_classes_are_held_equally(classes: int, shots: int, seed: int) -> None:
    rows = torch.randn((shots, 1), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits = rows.repeat(classes, classes)  # the same images and the same sentence in each class
    found = multipliers(logits, torch.arange(classes).repeat_interleave(shots))
    torch.testing.assert_close(found, torch.full_like(found, 1 / classes), rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_formula(make: Callable[..., Method]) -> None:
    method, labels = make(CLAP).double(), torch.tensor([0, 1, 2, 2])
    features = torch.randn((2, 4, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method.hold(FeatureBank(features, labels))
    with torch.no_grad():
        method.difference.copy_(torch.randn((3, 32), generator=torch.Generator().manual_seed(1)))
    classes = method.class_features(BASE)
    t = method.prompts.pretrained_features(BASE)
    alpha = multipliers(method.backbone.logits(features.flatten(0, 1), t), labels.repeat(2))
    held = sum(float(alpha[c]) * sum((x - y) ** 2 for x, y in zip(classes[c].tolist(), t[c].tolist(), strict=True))
               for c in range(3)) / 3  # fmt: skip
    terms = method.losses(method.logits(features[0], classes), labels, classes)
    assert float(terms["penalty"].detach()) == pytest.approx(held, rel=1e-10)
    assert set(terms) == {"cross_entropy", "penalty"}
    third = make(CLAP, penalty=1 / 3).double()
    third.hold(FeatureBank(features, labels))
    with torch.no_grad():
        third.difference.copy_(method.difference)
    held_less = third.losses(third.logits(features[0], classes), labels, classes)["penalty"]
    assert float(held_less.detach()) == pytest.approx(held / 3, rel=1e-10)
    free = make(CLAP, penalty=0.0)
    free.hold(FeatureBank(features.float(), labels))
    assert set(free.losses(torch.zeros(4, 3), labels, classes)) == {"cross_entropy"}


def test_an_epoch_draws_as_many_batches_from_all_rows_as_a_pass_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    logits = CLAP.logits

    def watched(self: CLAP, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append((self.current_epoch, features, self._rows[0]))
        return logits(self, features, classes)

    monkeypatch.setattr(CLAP, "logits", watched)
    with Subject("clap", tmp_path, settings={"model.passes": 3, "data.batch_size": 8}).cli() as cli:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)  # 20 images, two whole batches of eight
        bank = FeatureBank.fill(cli.model.backbone, cli.datamodule, 3).features.flatten(0, 1)
    assert [epoch for epoch, _, _ in seen] == [0, 0, 1, 1]
    assert torch.equal(seen[0][2], bank)
    rows = [[int((bank == row).all(dim=1).nonzero()[0]) for row in features] for _, features, _ in seen]
    assert [len(set(one)) for one in rows] == [8] * 4
    assert not set(rows[0]) & set(rows[1])  # of one permutation
    assert {*rows[0], *rows[1]} != {*rows[2], *rows[3]}


def test_the_loader_of_its_fit_decodes_no_crop(tmp_path: Path) -> None:
    with Subject("clap", tmp_path).cli() as cli:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        batches = list(cli.datamodule.train_dataloader())
        assert [batch.image.shape for batch in batches] == [(10, 3, 0, 0)] * 2
        assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(20))


def test_another_class_is_refused(make: Callable[..., Method]) -> None:
    with pytest.raises(UnknownName, match="class of this CLAP"):
        make(CLAP).class_features(("lake",))


def test_a_penalty_below_zero_is_refused(make: Callable[..., Method]) -> None:
    with pytest.raises(ConfigError, match="penalty of CLAP must not be below 0, it is -1"):
        make(CLAP, penalty=-1.0)
