"""Commands that answer at once: they must not import torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIGHT = [
    ["--help"],
    ["bench", "--help"],
    ["list", "methods"],
    ["list", "datasets"],
    ["list", "suites"],
    ["list", "backbones"],
    ["data", "--help"],
    ["bench", "--method", "clipfti"],
]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_no_torch_in_light_commands(words: list[str]) -> None:
    code = (
        "import sys, json\nfrom clipbench.commands import main\n"
        f"status = main({words!r})\n"
        "heavy = [name for name in ('torch', 'lightning', 'matplotlib', 'open_clip') if name in sys.modules]\n"
        "print(json.dumps([status, heavy]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, heavy = json.loads(run.stdout.splitlines()[-1])
    assert heavy == []
    assert status == (2 if "clipfti" in words else 0)
