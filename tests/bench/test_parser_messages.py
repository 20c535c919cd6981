"""What jsonargparse says about a config, as one sentence with the key and the value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipbench.bench.build import resolved
from clipbench.errors import ConfigError
from clipbench.recipes.recipe import merge
from clipbench.recipes.settings import from_dotted, read_setting


def said(*settings: str) -> str:
    config: dict[str, Any] = {"model": {"class_path": "CLIPFit"}, "data": {"class_path": "FewShotDataModule"}}
    with pytest.raises(ConfigError) as error:
        resolved(merge(config, from_dotted(read_setting(one) for one in settings)))
    return str(error.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["model.lr=["], "model.lr: '[' is not a number"),
        (["model.lr=!!python/object:os.system"], "model.lr: '!!python/object:os.system' is not a number"),
        (["model.lr=a: b: c"], "model.lr: 'a: b: c' is not a number"),
        (["model.lr=nan"], "model.lr: 'nan' is not a number"),
        (["model.lr=.nan"], "model.lr is nan: a setting is a finite number"),
        (["model.lr=1e999"], "model.lr is inf: a setting is a finite number"),
        (["data.crop_scale=[0.1,.inf]"], "data.crop_scale is inf: a setting is a finite number"),
        (["model.lr.x=1"], "model.lr: '{'x': 1}' is not a number"),
        (["model.warmup_epochs=2.0"], "model.warmup_epochs: '2.0' is not a whole number"),
        (["model.text_biases=2"], "model.text_biases: '2' is not true or false"),
        (["model.optimizer=sdg"], "model.optimizer: 'sdg' is not one of sgd, adam, adamw"),
        (["data.crop_scale=[1,2,3]"], "data.crop_scale: '[1, 2, 3]' is not a tuple with 2 elements"),
        (["data.crop_scale=1.0,0.5"], "data.crop_scale: '1.0,0.5' is not a list"),
        (["trainer.max_epochs=many"], "trainer.max_epochs: 'many' is not a whole number"),
        (["trainer.limit_train_batches=all"], "trainer.limit_train_batches: 'all' is not a whole number or a number"),
        (["trainer.logger=CSVLoger"], "trainer.logger: there is no class 'CSVLoger'; did you mean 'CSVLogger'?"),
        (["trainer.callbacks=[TQDMProgresBar]"], "there is no class 'TQDMProgresBar'; did you mean 'TQDMProgressBar'?"),
        (["trainer.callbacks=os.path.join"], "trainer.callbacks: 'os.path.join' is not a Callback"),
        (["trainer.callbacks=nosuch.X"], "trainer 'nosuch.X': there is no module 'nosuch'"),
        (["trainer.logger=CSVLogger"], "trainer.logger: required: save_dir;"),
        (["trainer.logger=CSVLogger", "trainer.logger.dir=a"], "trainer.logger: CSVLogger has no setting 'dir'"),
        (["trainer.logger.save_dir=a"], "settings of a class that is not named: give trainer.logger=CLASS"),
        (["trainer.callbacks=Timer", "trainer.callbacks.duration=x"], "Interval.step"),
        (["trainer.callbacks=ModelCheckpoint", "trainer.callbacks.save_top_k=x"], "'x' is not a whole number"),
        (["trainer.callbacks=ModelCheckpoint", "trainer.callbacks.save_top_k=-5"], "trainer: Invalid value for"),
        (["data=Manifest"], "data: required: path;"),
        (["data=Nosuch"], "unknown data module 'Nosuch'"),
        (["lr=0.1"], "'lr' is no key of a config; did you mean 'model.lr'?"),
        (["shots=1"], "did you mean 'data.shots'?"),
        (["max_epochs=1"], "did you mean 'trainer.max_epochs'?"),
        (["optimizer=Adam"], "model.optimizer"),
        (["seed_everything=1"], "data.seed"),
    ],
)  # fmt: skip
def test_a_wrong_setting(settings: list[str], sentence: str) -> None:
    message = said(*settings)
    assert sentence in message
    assert "\n" not in message
    for noise in ("Parser key", "Subtypes", "class_path", "Namespace", "Expected a <class"):
        assert noise not in message


def test_a_module_that_raises_while_it_is_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_at_import.py").write_text("import os\nvalue = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    for setting in ("trainer.callbacks=breaks_at_import.X", "data=breaks_at_import.X", "model=breaks_at_import.X"):
        message = said(setting)
        assert "breaks_at_import.py:2: ZeroDivisionError: division by zero" in message


@pytest.mark.parametrize("text", ["2024", "no", "null", "[old] photos", "[old]", "#1", "@home", "2024-01-02", "a: {}"])
def test_a_text_option_takes_its_text(text: str) -> None:
    config = {"model": {"class_path": "CLIPFit"}}
    words = ["data=ImageFolder", f"data.root={text}", f"data.template={text}"]
    whole = resolved(merge(config, from_dotted(read_setting(word) for word in words)))["data"]["init_args"]
    assert (whole["root"], whole["template"]) == (text, text)
