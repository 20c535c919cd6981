"""The learning rate against the published schedule, printed by the official scheduler (protocol.md 2.5)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipbench.tuning.schedule import learning_rate, learning_rate_of_step

FIFTY = {
    0: 1.0e-05, 1: 2.0e-03, 2: 1.9980e-03, 5: 1.9686e-03, 9: 1.8763e-03, 10: 1.8443e-03, 20: 1.3681e-03, 26: 1.0e-03,
    30: 7.5131e-04, 40: 2.2949e-04, 49: 7.8853e-06,
}  # fmt: skip
TEN = [1e-5, 2.0e-3, 1.9511e-3, 1.8090e-3, 1.5878e-3, 1.3090e-3, 1.0e-3, 6.9098e-4, 4.1221e-4, 1.9098e-4]


def test_table_of_fifty_epochs() -> None:
    for epoch, expected in FIFTY.items():
        assert learning_rate(epoch, 50, 0.002) == pytest.approx(expected, rel=3e-5)


def test_table_of_ten_epochs() -> None:
    assert [learning_rate(epoch, 10, 0.002) for epoch in range(10)] == pytest.approx(TEN, rel=3e-5)


def test_last_epoch_is_not_at_zero() -> None:
    assert learning_rate(4, 5, 1.0) == pytest.approx(0.345, abs=5e-4)
    assert learning_rate(19, 20, 1.0) == pytest.approx(0.024, abs=5e-4)


def test_one_epoch_stays_at_the_warm_up_rate() -> None:
    assert learning_rate(0, 1, 0.002) == 1e-5


def test_without_warm_up_the_cosine_starts_at_once() -> None:
    assert learning_rate(0, 10, 0.002, warmup_epochs=0) == 0.002


def test_constant_schedule_keeps_its_rate_after_the_warm_up() -> None:
    rates = [learning_rate(epoch, 4, 0.5, schedule="constant") for epoch in range(4)]
    assert rates == [1e-5, 0.5, 0.5, 0.5]


def test_the_cosine_per_step_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=1e-6)
    for step in range(40):
        ours = learning_rate_of_step(step, 40, 0.3, final_lr=1e-6)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_warm_up_of_steps_is_linear_and_the_cosine_spans_the_rest() -> None:
    rates = [learning_rate_of_step(step, 10, 1.0, warmup_steps=4) for step in range(11)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
