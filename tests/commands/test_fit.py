"""`clipbench fit` and its like as a command line: LightningCLI's forms work, or a sentence says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clipbench.commands import main

DTD = ["--config", "clipfit", "--data.dataset", "mini/dtd"]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    def of(*words: str) -> str:
        capsys.readouterr()
        assert main([*words]) == 0
        return capsys.readouterr().out

    return of


@pytest.mark.parametrize("flags", ["", "=skip_null,skip_default"])
def test_what_print_config_prints_is_read_again_as_the_same(flags: str, printed, tmp_path: Path) -> None:
    added = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    whole = printed("fit", *DTD, "--data.shots", "3", "--trainer.precision", "32", *added, "--print_config")
    (tmp_path / "again.yaml").write_text(printed("fit", *DTD, "--data.shots", "3", *added, f"--print_config{flags}"))
    assert printed("fit", "--config", str(tmp_path / "again.yaml"), "--trainer.precision=32", "--print_config") == whole


def test_forms_of_lightning_s_own_documents(printed) -> None:
    config = yaml.safe_load(
        printed(
            "fit", "-c", "clipfit", "--model", "CLIPFit", "--model.lr", "1", "--model.start", "None",
            "--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=epoch",
            "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last", "true",
            "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "2024", "--trainer.precision", "bf16",
            "--print_config",
        )
    )  # fmt: skip
    first, second = config["trainer"]["callbacks"]
    assert first["init_args"]["logging_interval"] == "epoch"
    assert second["init_args"]["save_last"] is True
    assert config["trainer"]["logger"]["init_args"]["save_dir"] == "2024"
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert (config["model"]["init_args"]["lr"], config["model"]["init_args"]["start"]) == (1.0, None)


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (["--model.help", "CLIPFit"], ["--model.distillation_weight", "lambda; 8 in base-to-novel", "type: float"]),
        (["--config", "lora", "--model.help"], ["--model.rank"]),
        (["--data.help"], ["--data.dataset"]),
        (["--data.help", "Manifest"], ["--data.path", "the CSV file"]),
        (["--trainer.help"], ["--trainer.max_epochs"]),
        (["--trainer.logger.help", "CSVLogger"], ["--trainer.logger.save_dir"]),
        (["--help"], ["--trainer.callbacks+=CLASS", "--print_config"]),
    ],
)
def test_help(words: list[str], shows: list[str], printed) -> None:
    out = printed("fit", *words)
    for word in shows:
        assert word in out


WRONG = {
    "--model.help Nosuch": "unknown method 'Nosuch'",
    "--data.help Nosuch": "unknown data module 'Nosuch'",
    "--nosuch.help x": "unknown option with a help of its own 'nosuch'",
    "--trainer.logger.help Nosuch": "Nosuch",
    "--print_config=all": "unknown flag of --print_config 'all'",
    "--print_config=comments": "ruamel.yaml",
    "--ckpt_path last": "give its file",
    "--ckpt_path none.ckpt": "there is no checkpoint",
    "--optimizer Adam": "model.optimizer",
    "--seed_everything 3": "data.seed",
    "--method clipfit": "--config NAME",
    "--lr 0.1": "there is no option --lr; did you mean '--model.lr'?",
    "--max_epoch 3": "there is no option --max_epoch; did you mean '--trainer.max_epochs'?",
    "--confg x": "did you mean '--config'?",
    "--weight x": "did you mean '--weights'?",
    "--weights=": "needs the name of a file",
    "--weights_only false": "weights_only is always true",
    "clipfit": "did you mean --config clipfit?",
    "-c nosuch.yaml": "unknown recipe or config file 'nosuch.yaml'",
    "--model.lr": "needs a value",
    "--model..lr 1": "has an empty part",
    "--model.class 1": "unknown setting of CLIPFit 'class'",
    "--model.lr 0": "lr must be above 0",
    "--model.backbone ViT-B-99": "ViT-B-99",
    "--data.shots 0": "data.shots must be at least 1",
    "--data.root \udcff": "is not UTF-8",
    "--trainer.precision 64": "trainer.precision",
    "--trainer.devices 2": "one device",
    "--trainer.val_check_interval 7.5": "trainer.val_check_interval 7.5",
    "--model builtins.print": "is not a method",
    "--model [CoOp]": "at model.class_path",
    "--model.init_args 2": "at model.init_args",
    "--data {class_path:5}": "settings of data stand below data.init_args",
    "--trainer 2": "at trainer",
    "--trainer.callbacks [[Timer]]": "trainer.callbacks: '['Timer']' is no class",
    "--trainer.callbacks=[5]": "trainer.callbacks: '5' is no class; give the name of one",
    "--trainer.callbacks=[null]": "trainer.callbacks: 'None' is no class",
    "--trainer.callbacks=": "trainer.callbacks: no class is named; give its name, as trainer.callbacks=CLASS",
    "--trainer.callbacks+=": "trainer.callbacks: no class is named",
    "--trainer.callbacks+=null": "null adds nothing",
    "--trainer.callbacks+=/etc/passwd": "trainer.callbacks: '/etc/passwd' is no class",
    "--trainer.callbacks+=5": "trainer.callbacks: '5' is no class",
    "--trainer.callbacks+=RichProgressBar --trainer.callbacks.refresh_rate=null": "refresh_rate takes no null",
    "--trainer null": "a section is never null; a setting looks like trainer.KEY",
    "--model null": "a section is never null; a setting looks like model.KEY",
    "--trainer trainer.yaml": "--trainer takes no file: 'trainer.yaml' is for --config",
    "--trainer.callbacks+=Nonsense": "trainer.callbacks: there is no class 'Nonsense' (Lightning's own: ",
    "--trainer.callbacks+=EarlyStoping": "trainer.callbacks: there is no class 'EarlyStoping'; did you mean",
    "--trainer.logger+=Nonsense": "one of yours is module.Class",
    "--trainer.max_epochs+=5": "nothing is added to trainer.max_epochs, only to trainer.callbacks",
    "--trainer+=5": "nothing is added to trainer, only",
    "--trainer.callbacks.x 1": "settings of a class that is not named",
    "--verbose true": "no option --verbose of fit",
    "--model.lr.help": "unknown option with a help of its own 'model.lr'",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_word_is_one_sentence(
    words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *DTD, *words.split()]) == 2
    out, err = capsys.readouterr()
    assert WRONG[words] in err
    assert err.startswith("clipbench: ")
    assert (out, err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("key", "section"), [("lr", "model"), ("rank", "model"), ("shots", "data"), ("max_epochs", "trainer")]
)
@pytest.mark.parametrize("begin", ["fit", "fit -c clipfit", "test -c clipfit", "validate --weights F", "bench"])
def test_a_setting_without_its_section(
    begin: str, key: str, section: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*begin.split(), f"--{key}", "1"]
    if begin == "bench":
        words = ["bench", "-m", "clipfit", "--results", str(tmp_path), "--dry-run", "--set", f"{key}=1"]
    assert main(words) == 2
    assert f"did you mean '{'' if begin == 'bench' else '--'}{section}.{key}'?" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["max_steps", "devices", "accelerator", "accumulate_grad_batches", "barebones"])
def test_a_null_that_lightning_would_stumble_over(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *DTD, f"--trainer.{key}=null"]) == 2
    assert f"trainer.{key} takes no null" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["max_epochs=null"], "max_epochs null is no length (Lightning would take 1,000 epochs)"),
        (["max_epochs=-1"], "max_epochs -1 has no end"),
        (["max_epochs=null", "max_steps=3"], ""),
        (["max_epochs=-1", "max_steps=3"], ""),
    ],
)
def test_a_cell_has_an_end(settings: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [word for one in settings for word in ("--set", f"trainer.{one}")]
    grid = ["bench", "-m", "clipfit", "--datasets", "dtd", "--results", str(tmp_path), "--dry-run"]
    assert main([*grid, *words]) == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_brackets_without_end_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--model.lr", "--data.root", "--trainer.callbacks"):
        assert main(["fit", *DTD, option, "[" * 3000]) == 2
        assert "more than 50 levels of nesting" in capsys.readouterr().err
