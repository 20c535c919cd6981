"""Numbers that move only together with the version that is part of a record's key."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from clipbench.backbone.version import VERSION
from tests.backbone.make_golden import FILE, numbers


def test_numbers_move_only_with_the_version(tmp_path: Path) -> None:
    stored = json.loads(FILE.read_text())
    assert stored["version"] == VERSION, "the version was raised: run tests/backbone/make_golden.py"
    for name, rows in numbers(tmp_path).items():
        torch.testing.assert_close(
            torch.tensor(rows),
            torch.tensor(stored["numbers"][name]),
            rtol=2e-4,
            atol=2e-4,
            msg=lambda text, name=name: f"{name} moved: raise VERSION in clipbench/backbone/version.py\n{text}",
        )
