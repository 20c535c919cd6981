"""A fit that is tried out before it begins says how long it takes, and learns what it would have learned without."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from clipbench.bench import expected_time, trial
from clipbench.bench.build import build
from clipbench.bench.expected_time import time_lines
from clipbench.bench.trial import Trial, _Seconds
from clipbench.commands import main

EARLY = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/accuracy"]
SAID = re.compile(r"clipbench: the fit takes about (\d+ s|\d+ min): (.*)")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, to work in."""
    monkeypatch.chdir(tmp_path)


class Losses(L.Callback):
    """The losses of all steps, and what had been said when the first one began."""

    def __init__(self, said: list[str]) -> None:
        self.said, self.losses, self.before = said, [], None

    def on_train_batch_start(self, *_: Any) -> None:
        self.before = self.before or [*self.said]

    def on_train_batch_end(self, trainer: Any, method: Any, *_: Any) -> None:
        self.losses.append({name: float(term) for name, term in method.last_losses.items()})


def fitted(own_images: Path, recipe: dict[str, Any], tried: bool, **trainer: Any) -> tuple[Any, Losses, Any]:
    """A method after a fit of 12 steps, what its steps were, and its trainer."""
    cli = build({
        "model": {"class_path": recipe["method"],
                  "init_args": {"backbone": f"local-dir:{own_images / 'small'}", **recipe.get("settings", {})}},
        "data": {"class_path": "ImageFolder", "init_args": {"root": str(own_images / "shapes"), "batch_size": 4}},
        "trainer": {"max_epochs": 4, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
                    "enable_model_summary": False, "num_sanity_val_steps": 0, "precision": "32-true",
                    "accelerator": "cpu", "callbacks": recipe.get("callbacks"), **trainer},
    })  # fmt: skip
    said: list[str] = []
    losses = Losses(said)
    lines = time_lines(cli.trainer, cli.config_init["trainer"])
    lines[0].say = said.append  # type: ignore[attr-defined]
    cli.trainer.callbacks += [*(lines if tried else []), losses]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return cli.model, losses, cli.trainer


KINDS: dict[str, dict[str, Any]] = {
    "context": {"method": "CoOp", "settings": {"lr": 0.01}},
    "low rank and dropout": {"method": "LoRA", "settings": {"lr": 0.01, "dropout": 0.25}},
    "masks": {"method": "MFT", "settings": {"train": ["image tower, last 2 blocks, Linears"]}},
    "gradients of two losses": {"method": "RAMT", "settings": {"lr": 0.01}},
    "everything": {"method": "FineTuning", "settings": {"lr": 0.001}},
    "freezing": {"method": "FisherAdapTune", "settings": {"lr": 0.001}},
    "freezing callback": {
        "method": "CLIPFit", "settings": {"lr": 0.01},
        "callbacks": [{"class_path": "clipbench.methods.fisher_freezing.FisherFreezing"}],
    },
    "no steps": {"method": "LinearProbe"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_moves_nothing(own_images: Path, kind: str) -> None:
    state = torch.get_rng_state()
    tried, steps, trainer = fitted(own_images, KINDS[kind], tried=True)
    assert torch.equal(state, torch.get_rng_state())
    alone, expected, _ = fitted(own_images, KINDS[kind], tried=False)
    assert steps.losses == expected.losses
    assert steps.losses
    learned = alone.adapter_state_dict()
    assert learned.keys() == tried.adapter_state_dict().keys()
    assert all(torch.equal(tensor, learned[name]) for name, tensor in tried.adapter_state_dict().items())
    assert tried.diagnostics == alone.diagnostics
    assert (steps.before, expected.before) != ([], None)
    (line,) = steps.before
    assert re.match(r"the fit takes about \d+ s: (12 steps of|one look at \d+ images)", line)
    assert re.search(r"; then 24 test images, about \d+ s", line)
    assert trainer.datamodule.trainer is trainer


def typed(
    own_images: Path, capsys: pytest.CaptureFixture[str], *words: str, recipe: str = "clipfit"
) -> tuple[int, Any]:
    """The status of a fit and what it said."""
    small = ["--data", "ImageFolder", "--data.root", str(own_images / "shapes"), "--data.batch_size", "4"]
    backbone = ["--backbone", f"local-dir:{own_images / 'small'}", "--trainer.enable_model_summary", "false"]
    capsys.readouterr()
    status = main(["fit", "--config", recipe, *small, *backbone, *words])
    return status, capsys.readouterr()


@pytest.mark.parametrize("bar", ["true", "false"])
def test_the_time_is_said_on_the_error_stream(own_images: Path, capsys: pytest.CaptureFixture[str], bar: str) -> None:
    status, said = typed(own_images, capsys, "--trainer.max_epochs", "4", "--trainer.enable_progress_bar", bar)
    assert status == 0
    assert "the fit takes" not in said.out
    found = SAID.search(" ".join(said.err.split()))
    assert found is not None
    assert found[2].startswith("12 steps of ")


def test_a_resumed_fit_says_what_is_left(own_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "5"]
    stop = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]
    assert typed(own_images, capsys, *quiet, *stop)[0] == 0
    (first,) = Path().rglob("epoch=0*.ckpt")
    status, said = typed(own_images, capsys, *quiet, "--ckpt_path", str(first))
    assert status == 0
    assert "12 steps of" in said.err


@pytest.mark.parametrize("words", [("--trainer.fast_dev_run", "true"), ("--trainer.max_epochs", "1")])
def test_a_handful_of_steps_is_not_tried(
    own_images: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected_time, "try_out", lambda *_: pytest.fail("it was tried"))
    status, said = typed(own_images, capsys, *words, "--trainer.enable_progress_bar", "false")
    assert status == 0
    assert "the fit takes" not in said.err


def test_ctrl_c_in_a_trial_is_ctrl_c(
    own_images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Seconds, "on_train_batch_end", stopped)
    status, said = typed(own_images, capsys, "--trainer.max_epochs", "4", "--trainer.enable_progress_bar", "false")
    assert status == 130
    assert "Traceback" not in said.err
    assert not [*Path().rglob("*.safetensors")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--trainer.max_epochs=4", "--trainer.accumulate_grad_batches=2"], " s: 12 batches of"),
        (["--trainer.max_steps=11", "--trainer.max_epochs=-1"], " s: 11 steps of"),
        (["--trainer.max_epochs=6", "--trainer.limit_train_batches=2"], " s: 12 steps of"),
        (["--trainer.max_epochs=400000", "--trainer.max_time=00:00:00:01"], "ends after 1 s (max_time)"),
        (["--trainer.max_epochs=4", *EARLY], "the fit takes at most about "),
        (["--trainer.max_epochs=4", "--trainer.limit_test_batches=1", "--data.test_batch_size=5"], "then 10 test"),
        (["--trainer.max_epochs=4", "--trainer.limit_val_batches=0"], " s; then 24 test images"),
        (["--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=2"], ", 2 validations of"),
    ],
)  # fmt: skip
def test_settings_of_the_trainer_are_in_the_estimate(
    own_images: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    status, said = typed(own_images, capsys, *words, "--trainer.enable_progress_bar=false")
    assert status == 0, said.err
    assert says in said.err


@pytest.mark.parametrize(
    ("seconds", "steps", "found"),
    [([9, 0.1, 0.3, 0.5], 1, 9), ([2, 0.7, 0.1, 0.1], 2, 0.7), ([2, 0.4, 0.1, 0.2], 4, 0.15), ([0.1] * 4, 4, 0.1)],
)
def test_long_steps_are_few(seconds: list[float], steps: int, found: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(trial, "now", lambda trainer: clock[0])
    looked: list[float] = []
    monkeypatch.setattr(_Seconds, "_look", lambda self, step, *_: looked.append(step))
    callback, fit = _Seconds(steps=True), SimpleNamespace(should_stop=False)
    callback.on_train_start(fit, None)  # type: ignore[arg-type]
    done = 0
    while not fit.should_stop:
        clock[0] += seconds[done]
        callback.on_train_batch_end(fit, None)  # type: ignore[arg-type]
        done += 1
    assert (done, looked) == (steps, [pytest.approx(found)])


def test_seconds_of_a_split() -> None:
    one = Trial(step=1.0, classes=0.5, read=0.1, image=0.01)
    assert math.isclose(one.split(100), 0.5 + 11)
    assert math.isclose(one.split(100, kept=True), 0.5 + 1)
    assert one.split(0) == 0
