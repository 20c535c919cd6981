"""Commands that answer at once: they must not import torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIGHT = [
    ["--help"],
    ["bench", "--help"],
    ["fit", "--help"],
    ["list", "methods"],
    ["list", "datasets"],
    ["list", "suites"],
    ["list", "backbones"],
    ["list", "studies"],
    ["data", "--help"],
    ["data", "draw", "mini/eurosat"],
    ["data", "status", "mini/eurosat"],
]
FIT = ["fit", "--config", "clipfit"]
BENCH = ["bench", "--method", "clipfit", "--datasets", "dtd"]
WRONG = [
    ["bench", "--method", "clipfti"],
    [*BENCH, "--suite", "mnii"],
    [*BENCH, "--datasets", "eurosatt"],
    [*BENCH, "--protocol", "fewshot"],
    [*BENCH, "--backbone", "ViT-B-61/openai"],
    [*BENCH, "--seeds", "one"],
    [*BENCH, "--set", "modle.lr=1"],
    [*BENCH, "--set", "data.shots=3"],
    [*BENCH, "--jbos", "2"],
    ["fit", "--config", "clipfti"],
    ["test", "--model", "CLIPFti"],
    [*FIT, "--data.dataset", "mini/eurosatt"],
    [*FIT, "--data", "ImageFoldr"],
    [*FIT, "--protocol", "fewshot"],
    [*FIT, "--protocoll", "few_shot"],
    [*FIT, "--ckpt_path", "none.ckpt"],
    ["fit", "--trainer.max_epochs", "1"],
    ["show", "params", "--config", "clipfti"],
    ["study", "clipfit_part"],
    ["analyze", "changes", "--config", "clipfti"],
    ["predict", "none.png", "--weights", "none.safetensors"],
    ["data", "draw", "mini/eurosatt"],
]


def called(words: list[str]) -> tuple[int, list[str]]:
    """Exit status of a command line, and what it has imported of what takes long."""
    code = (
        "import sys, json\nfrom clipbench.cli import main\n"
        f"status = main({words!r})\n"
        "heavy = [name for name in ('torch', 'lightning', 'matplotlib', 'open_clip') if name in sys.modules]\n"
        "print(json.dumps([status, heavy]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, heavy = json.loads(run.stdout.splitlines()[-1])
    return status, heavy


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_no_torch_in_light_commands(words: list[str]) -> None:
    assert called(words) == (0, [])


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_wrong_word_is_answered_without_torch(words: list[str]) -> None:
    status, heavy = called(words)
    assert status in (1, 2)
    assert heavy == []


def test_a_table_imports_neither_torch_nor_lightning() -> None:
    status, heavy = called(["table", "--suite", "none"])
    assert (status, heavy) == (1, [])
