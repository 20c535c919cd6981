"""Optimiser and rates: each choice reads its own settings, and the schedule spans what the trainer does."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipbench.errors import ConfigError, MethodError, UnknownName, UnreadSetting
from clipbench.tuning.optimisation import Optimisation, step_of
from clipbench.tuning.schedule import learning_rate, learning_rate_of_step

BATCHES = 6


class Probe(L.LightningModule):
    """A module that learns one number and notes the rate of every step."""

    def __init__(self, optimisation: Optimisation) -> None:
        super().__init__()
        self.optimisation, self.number = optimisation, nn.Parameter(torch.zeros(1))
        self.rates: list[float] = []
        self.planned: list[float] = []
        self.noise: list[tuple[int, ...]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.noise.append(step_of(self.trainer, batch_idx))
        return (self.number - batch).square().mean()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        self.planned = list(self.optimisation.planned_rates(self.trainer))
        return self.optimisation.configure(self.trainer, [self.number])


def fit(optimisation: Optimisation, **trainer: Any) -> Probe:
    probe = Probe(optimisation)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(**quiet, enable_model_summary=False, **trainer).fit(probe, DataLoader(torch.ones(BATCHES, 1)))
    return probe


def optimizer_of(optimisation: Optimisation) -> torch.optim.Optimizer:
    probe = fit(optimisation, max_epochs=1)
    found = probe.optimizers(use_pl_optimizer=False)
    assert isinstance(found, torch.optim.Optimizer)
    return found


# Which settings are read


def test_defaults_of_the_field() -> None:
    optimizer = optimizer_of(Optimisation())
    assert type(optimizer) is torch.optim.SGD
    assert {name: optimizer.defaults[name] for name in ("momentum", "nesterov", "weight_decay", "dampening")} == {
        "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "dampening": 0,
    }  # fmt: skip
    assert Optimisation().lr == 0.002


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_others_have_no_momentum(name: Any, kind: type) -> None:
    optimizer = optimizer_of(Optimisation(name, lr=0.1, weight_decay=0.3))
    assert type(optimizer) is kind
    assert optimizer.defaults["weight_decay"] == 0.3
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    for momentum in (0.9, 0.0):
        with pytest.raises(UnreadSetting, match=rf"momentum={momentum} is read by nothing: optimizer {name} has none"):
            Optimisation(name, momentum=momentum)
    assert optimizer_of(Optimisation("sgd", momentum=0.5)).defaults["momentum"] == 0.5


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_eps_is_theirs_and_torchs_unless_given(name: Any) -> None:
    assert optimizer_of(Optimisation(name)).defaults["eps"] == 1e-8
    assert optimizer_of(Optimisation(name, eps=1e-3)).defaults["eps"] == 1e-3
    with pytest.raises(UnreadSetting, match=r"eps=0\.001 is read by nothing: optimizer sgd has none"):
        Optimisation("sgd", eps=1e-3)
    with pytest.raises(ConfigError, match=f"eps of {name} must be above 0, it is 0"):
        Optimisation(name, eps=0.0)


@pytest.mark.parametrize(
    ("schedule", "read"),
    [
        ("cosine", {"warmup_epochs": 3, "warmup_lr": 1e-3}),
        ("constant", {"warmup_epochs": 0, "warmup_lr": 1e-3}),
        ("cosine_per_step", {"warmup_steps": 3, "final_lr": 1e-3}),
    ],
)
def test_a_schedule_reads_its_own_settings_and_refuses_the_others(schedule: Any, read: dict[str, Any]) -> None:
    assert Optimisation(schedule=schedule, **read).rates == read
    every = {"warmup_epochs": 1, "warmup_lr": 1e-5, "warmup_steps": 0, "final_lr": 0.0}
    for name in every.keys() - read.keys():
        with pytest.raises(UnreadSetting, match=f"^{name}=.* is read by nothing: schedule {schedule} has none"):
            Optimisation(schedule=schedule, **{name: every[name]})


def test_unknown_names_and_impossible_values_are_refused() -> None:
    with pytest.raises(UnknownName, match=r"unknown optimizer 'adamm'; did you mean 'adam'"):
        Optimisation("adamm")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match=r"unknown schedule 'cosin'; did you mean 'cosine'"):
        Optimisation(schedule="cosin")  # type: ignore[arg-type]
    impossible: list[dict[str, Any]] = [
        {"lr": 0.0}, {"lr": -1.0}, {"momentum": -0.1}, {"weight_decay": -1e-3}, {"warmup_epochs": -1},
        {"schedule": "cosine_per_step", "final_lr": -1e-9},
    ]  # fmt: skip
    for settings in impossible:
        with pytest.raises(ConfigError, match="lr must be above 0"):
            Optimisation(**settings)


# What the schedule spans


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_rates_by_epoch_are_those_of_the_schedule_and_those_that_were_planned(schedule: Any, accumulate: int) -> None:
    probe = fit(Optimisation(lr=0.1, schedule=schedule), max_epochs=4, accumulate_grad_batches=accumulate)
    steps = -(-BATCHES // accumulate)
    expected = [learning_rate(epoch, 4, 0.1, schedule=schedule) for epoch in range(4) for _ in range(steps)]
    assert probe.rates == pytest.approx(expected, rel=1e-12)
    assert probe.planned == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 11}])
def test_rates_by_step_span_the_steps(limit: dict[str, int]) -> None:
    settings = {"warmup_steps": 4, "final_lr": 0.01}
    probe = fit(Optimisation(lr=0.1, schedule="cosine_per_step", **settings), **limit)  # type: ignore[arg-type]
    steps = limit.get("max_steps", 3 * BATCHES)
    expected = [learning_rate_of_step(step, steps, 0.1, 4, 0.01) for step in range(steps)]
    assert probe.rates == pytest.approx(expected, rel=1e-12)
    assert probe.planned == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("steps", "epochs", "accumulate"), [(12, 2, 1), (13, 3, 1), (1, 1, 1), (5, 3, 4), (6, 3, 4)])
def test_with_max_steps_alone_the_cosine_spans_the_epochs_that_they_fill(
    steps: int, epochs: int, accumulate: int
) -> None:
    probe = fit(Optimisation(lr=0.1), max_steps=steps, accumulate_grad_batches=accumulate)
    expected = [learning_rate(step // -(-BATCHES // accumulate), epochs, 0.1) for step in range(steps)]
    assert probe.rates == pytest.approx(expected, rel=1e-12)
    assert probe.planned == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "cosine_per_step"])
def test_a_fit_without_end_is_refused(schedule: Any) -> None:
    with pytest.raises(ConfigError, match=r"max_epochs"):
        fit(Optimisation(schedule=schedule), max_epochs=-1)


def test_a_resumed_fit_must_span_the_same() -> None:
    optimisation = Optimisation()
    span = optimisation.span(L.Trainer(max_epochs=5, logger=False, accelerator="cpu"))
    optimisation.refuse_other_span(L.Trainer(max_epochs=5, logger=False, accelerator="cpu"), span)
    for other in ({"max_epochs": 6}, {"max_epochs": 5, "max_steps": 9}, {"max_steps": 9}):
        with pytest.raises(MethodError, match=r"the checkpoint span other epochs \(max_epochs=5, here"):
            optimisation.refuse_other_span(L.Trainer(**other, logger=False, accelerator="cpu"), span)
    constant = Optimisation(schedule="constant")
    constant.refuse_other_span(
        L.Trainer(max_epochs=9, logger=False, accelerator="cpu"),
        constant.span(L.Trainer(max_epochs=2, logger=False, accelerator="cpu")),
    )


def test_noise_goes_by_the_step_and_by_the_batch_in_it() -> None:
    assert fit(Optimisation(), max_epochs=1).noise == [(step,) for step in range(BATCHES)]
    probe = fit(Optimisation(), max_epochs=1, accumulate_grad_batches=4)
    assert probe.noise == [(0,), (0, 1), (0, 2), (0, 3), (1,), (1, 1)]
