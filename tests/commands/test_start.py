"""Commands that answer at once: they must not import torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHIPPED = str(Path(__file__).resolve().parents[2] / "results" / "mini" / "records" / "clipfit.jsonl.gz")
LIGHT = [
    ["--help"],
    ["bench", "--help"],
    ["list", "methods"],
    ["list", "datasets"],
    ["list", "suites"],
    ["list", "studies"],
    ["list", "backbones"],
    ["data", "--help"],
    ["data", "draw", "mini/eurosat"],
    ["fit", "--help"],
    ["show", "record", SHIPPED],
    ["show", "--help"],
]
# what no torch is needed to know
WRONG = [
    ["bench", "--method", "clipfti"],
    ["bench", "--method", "clipfit", "--datasets", "eurosatt"],
    ["study", "clipfit_part"],
    ["study", "clipfit_parts", "--variants", "nothing"],
    ["fit", "--config", "clipfti"],
    ["fit", "--config", "clipfit", "--model.lr"],
    ["fit", "--config", "clipfit", "--ckpt_path", "missing.ckpt"],
    ["test", "--weights", "missing.safetensors"],
    ["show", "params", "--config", "clipfti"],
    ["show", "recipe", "clipfti"],
    ["show", "record", "missing.json"],
    ["bench", "--record", "missing.json"],
    ["bench", "--record", SHIPPED, "--datasets", "dtt"],
    ["table", "--suite", "nothing"],
    ["predict", "missing.jpg", "--weights", "missing.safetensors"],
    ["predict", "missing.jpg", "--weights", "missing.safetensors", "--top", "0"],
    ["analyze", "changes", "--config", "clipfti"],
]


def called(words: list[str]) -> tuple[int, list[str]]:
    """Exit status of a call in a process of its own, and the heavy libraries that it imported."""
    code = (
        "import sys, json\nfrom clipbench.commands import main\n"
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
def test_a_wrong_word_is_answered_before_torch_is_imported(words: list[str]) -> None:
    status, heavy = called(words)
    assert status in (1, 2)
    assert heavy == []
