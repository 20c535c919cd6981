"""What a callback monitors must be logged: one sentence with what is, before the fit where that is known."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest

from clipbench.bench.build import resolved
from clipbench.bench.monitors import naming_monitors
from clipbench.commands import main
from clipbench.errors import ConfigError

FIT = [
    "fit", "-c", "clipfit", "--data.dataset", "mini/dtd", "--data.shots", "1", "--trainer.max_epochs", "1",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--trainer.logger", "false",
]  # fmt: skip
LOSSES = "this fit logs train/cross_entropy and train/distillation and train/total and val/accuracy"
UNLOGGED = {
    "nosuch": "this fit logs val/accuracy and each of its losses as train/LOSS",
    "val/loss": "this fit logs val/accuracy and each",
    "test/base": "this fit logs val/accuracy and each",
    "train/loss": LOSSES,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def monitoring(callback: str, monitor: str) -> list[str]:
    return [f"--trainer.callbacks+={callback}", f"--trainer.callbacks.monitor={monitor}"]


@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
@pytest.mark.parametrize("monitor", UNLOGGED)
def test_a_monitor_that_nothing_logs(
    monitor: str, callback: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FIT, *monitoring(callback, monitor)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"clipbench: trainer.callbacks: {callback} monitors '{monitor}', which nothing logs; ")
    assert UNLOGGED[monitor] in said
    assert not [*here.rglob("*.safetensors")]


def test_a_method_of_ones_own_may_log_what_it_likes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "logs_more.py").write_text(
        "from clipbench.methods.clipfit import CLIPFit\n"
        "class LogsMore(CLIPFit):\n"
        "    def on_train_epoch_end(self):\n"
        "        self.log('mine', 1.0)\n"
    )
    own = ["--model", "logs_more.LogsMore"]
    assert main([*FIT, *own, *monitoring("EarlyStopping", "mine")]) == 0
    capsys.readouterr()
    assert main([*FIT, *own, *monitoring("EarlyStopping", "yours")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "EarlyStopping monitors 'yours', which nothing logs; this fit logs train/" in said
    assert said.endswith(" and mine")


def test_what_is_logged_can_be_monitored() -> None:
    words = [word for name in ("val/accuracy", "train/total") for word in monitoring("EarlyStopping", name)]
    assert main([*FIT, *words]) == 0


@pytest.mark.parametrize("how", ["trainer.callbacks", "trainer.callbacks+"])
def test_a_cell_validates_nothing_to_be_monitored(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["bench", "-m", "clipfit", "--datasets", "dtd", "--seeds", "1", "--dry-run"]
    stopping = ["--set", f"{how}=EarlyStopping", "--set", "trainer.callbacks.monitor=val/accuracy"]
    assert main([*grid, *stopping]) == 2
    assert "nothing is validated during this fit (trainer.limit_val_batches 0)" in capsys.readouterr().err
    assert main([*grid, *stopping[:-1], "trainer.callbacks.monitor=train/total"]) == 0


def test_one_callback_is_a_list_of_one() -> None:
    config = {"model": {"class_path": "CLIPFit"}, "data": {"class_path": "FewShotDataModule"}}
    one = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
    alone, listed = (resolved(config | {"trainer": {"callbacks": value}}) for value in (one, [one]))
    assert alone == listed


def test_another_error_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="ours"), naming_monitors(L.Trainer):
        raise RuntimeError("ours")
    with pytest.raises(ConfigError, match="is one"), naming_monitors(L.Trainer):
        raise ConfigError("is one")
