"""`clipbench fit`, `validate`, `test`, `predict` and `show` as a user types them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from clipbench.bench.build import resolved
from clipbench.commands import main
from clipbench.commands.fit import merged_config
from clipbench.methods.weights_file import read_header
from clipbench.recipes.arguments import read_words
from clipbench.recipes.recipe import known_recipes

FAST = ["--trainer.max_epochs", "2", "--data.shots", "2", "--trainer.enable_progress_bar", "false"]


def fit(tmp_path: Path, *words: str) -> Path:
    """Fit a packaged recipe; returns what was learned."""
    assert main(["fit", *words, *FAST, "--trainer.default_root_dir", str(tmp_path)]) == 0
    return next(tmp_path.rglob("weights.safetensors"))


def test_a_packaged_recipe_runs_alone_and_is_tested_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = fit(tmp_path, "--config", "clipfit")
    saved = yaml.safe_load((weights.parent / "config.yaml").read_text())
    assert saved["model"]["init_args"]["distillation_weight"] == 8.0
    said = capsys.readouterr().out
    for command in ("test --weights", "predict IMAGES --weights"):
        assert f"clipbench {command} {weights}" in said
    measured = [line for line in said.splitlines() if line.startswith("test/")]
    assert all(re.fullmatch(r"test/(base|novel) +\d+\.\d\d %  \(\d+ of 200\)", line) for line in measured)
    assert len(measured) == 2
    assert main(["test", "--weights", str(weights), "--trainer.logger", "false"]) == 0
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if line.startswith("test/")] == measured
    assert "DataLoader" not in again, "Lightning's table"
    config = str(weights.parent / "config.yaml")
    assert main(["validate", "--config", config, "--weights", str(weights), "--trainer.logger", "false"]) == 0
    assert "val/accuracy" in capsys.readouterr().out


def resume(tmp_path: Path, checkpoint: Path, *words: str) -> int:
    """Go on from a checkpoint of two epochs to three."""
    fast = [*FAST, *words, "--trainer.max_epochs", "3"]
    folder = ["--trainer.default_root_dir", str(tmp_path)]
    return main(["fit", "--config", "coop", *fast, *folder, "--ckpt_path", str(checkpoint)])


def test_a_checkpoint_holds_what_is_trained_and_resumes(tmp_path: Path) -> None:
    import torch

    constant = ["--model.schedule", "constant"]
    fit(tmp_path, "--config", "coop", *constant)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    stored = torch.load(checkpoint, weights_only=True)
    assert list(stored["state_dict"]) == ["context.vectors"]
    assert checkpoint.stat().st_size < 50_000
    again = tmp_path / "again"
    assert resume(again, checkpoint, *constant) == 0
    (resumed,) = again.rglob("*.ckpt")
    assert torch.load(resumed, weights_only=True)["epoch"] == 2


def test_a_schedule_that_spans_other_epochs_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, "--config", "coop")
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert resume(tmp_path / "again", checkpoint) == 1
    assert "span other epochs" in capsys.readouterr().err


def test_predict_on_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = fit(tmp_path, "--config", "clipfit")
    Image.new("RGB", (60, 50), (20, 200, 30)).save(tmp_path / "a.png")
    capsys.readouterr()
    classes = "river in green land beside a sea,houses in gray land beside a town"
    words = ["predict", str(tmp_path / "a.png"), "--weights", str(weights), "--format", "json"]
    assert main([*words, "--classes", classes]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {name for name, _ in row["classes"]} == set(classes.split(","))
    assert sum(share for _, share in row["classes"]) == pytest.approx(1, abs=1e-4)
    trained = read_header(weights).classnames
    assert main([*words, "--top", str(len(trained))]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {name for name, _ in row["classes"]} == set(trained)


def test_a_manifest_without_its_file_is_one_short_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "clipfit", "--data", "Manifest"]) == 2
    shown = capsys.readouterr().err.strip()
    assert "required: path" in shown
    assert len(shown) < 200


def test_own_folder_of_images_without_code(tmp_path: Path) -> None:
    from clipbench.testing.backbones import write_transformer
    from clipbench.testing.folders import suite_of_folder

    suite_of_folder(tmp_path / "images", "mini")
    backbone = write_transformer(tmp_path / "small")
    words = [
        "--config",
        "clipfit",
        "--data",
        "ImageFolder",
        "--data.root",
        str(tmp_path / "images"),
        "--model.backbone",
        backbone,
    ]
    assert fit(tmp_path / "run", *words).stat().st_size > 0


@pytest.mark.parametrize("first", known_recipes())
@pytest.mark.parametrize("second", known_recipes())
def test_a_second_recipe_equals_that_recipe_alone(first: str, second: str) -> None:
    both, alone = (
        merged_config(read_words(["--config", first, "--config", second])),
        merged_config(read_words(["--config", second])),
    )
    assert resolved(both[0]) == resolved(alone[0])


@pytest.mark.parametrize("data", ["ImageFolder", "Manifest"])
def test_another_data_module_carries_nothing_over(data: str, tmp_path: Path) -> None:
    place = "root" if data == "ImageFolder" else "path"
    words = ["--config", "clipfit", "--data.batch_size", "7", "--data", data, f"--data.{place}", str(tmp_path)]
    config = resolved(merged_config(read_words(words))[0])
    assert config["data"]["class_path"].endswith(data)
    assert "dataset" not in config["data"]["init_args"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config", "clipfti"], "did you mean 'clipfit'"),
        (["--config", "clipfit", "--model.distilation_weight", "1"], "did you mean 'distillation_weight'"),
        (["--config", "clipfit", "--data.dataset", "mini/eurosatt"], "did you mean 'mini/eurosat'"),
        (["--config", "clipfit", "--model", "CLIPFti"], "did you mean 'CLIPFit'"),
        (["--config", "clipfit", "--trainer.max_epochs", "many"], "max_epochs"),
        (["--config", "clipfit", "--protocoll", "few_shot"], "did you mean '--protocol'"),
        (["--config", "clipfit", "--protocol", "fewshot"], "did you mean 'few_shot'"),
        (["--trainer.max_epochs", "1"], "no method is named"),
    ],
)
def test_wrong_calls(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "backbone"),
    [
        (["--data.dataset", "mini/dtd"], "mini"),
        (["--data.dataset", "dtd"], "ViT-B-16/openai"),
        (["--data", "ImageFolder", "--data.root", "photos"], "ViT-B-16/openai"),
        (["--data.dataset", "dtd", "--model.backbone", "RN50/openai"], "RN50/openai"),
    ],
)
def test_the_backbone_is_the_suite_s_unless_named(words: list[str], backbone: str) -> None:
    config, _ = merged_config(read_words(["--config", "clipfit", *words]))
    assert config["model"]["init_args"]["backbone"] == backbone


def test_the_protocol_is_the_datas_and_overrides_match_on_it() -> None:
    words = ["--config", "clipfit", "--data.dataset", "dtd"]
    for short in (["--protocol", "few_shot"], ["--data.protocol", "few_shot"]):
        config, _ = merged_config(read_words([*words, *short]))
        assert config["data"]["init_args"]["protocol"] == "few_shot"
        assert config["model"]["init_args"]["distillation_weight"] == 8.0
        assert "protocol" not in resolved(config)
    assert resolved(merged_config(read_words(words))[0])["data"]["init_args"]["protocol"] == "base_to_novel"


def test_print_config_is_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "clipfit", "--data.dataset", "mini/dtd", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["max_epochs"] == 20
    assert config["data"]["init_args"]["dataset"] == "mini/dtd"


def test_show_params(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "params", "--config", "clipfit", "--backbone", "ViT-B-16/openai", "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trained_parameters"] == 46_080
    assert facts["backbone_parameters"] == 149_620_737
    assert facts["share"] == pytest.approx(0.0308, abs=1e-4)
    assert main(["show", "params", "--config", "coop"]) == 0
    assert "512 trained" in capsys.readouterr().out


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, "--config", "coop")
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    words = ["test", "--config", "clipfit", "--data.shots", "2", "--trainer.logger", "false"]
    assert main([*words, "--ckpt_path", str(checkpoint)]) == 1
    assert "learned by CoOp, not by CLIPFit" in capsys.readouterr().err
    assert main([*words, "--ckpt_path", str(tmp_path / "none.ckpt")]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err


def test_ctrl_c_in_a_fit_ends_with_130(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "clipbench", "fit", "--config", "clipfit", "--trainer.max_epochs", "500"]
    words += ["--trainer.default_root_dir", str(tmp_path), "--trainer.enable_progress_bar", "false"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.rglob("*.ckpt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "stopped" in said
