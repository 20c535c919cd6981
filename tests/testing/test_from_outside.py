"""A method from outside the repository is tested with the lines that `clipbench.testing` shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import yaml

import clipbench.testing

METHOD = '''
from clipbench.methods.base import Method


class Mine(Method):
    """Zero-shot, written once more."""

    def build(self):
        return {}

    def num_trainable(self):
        return 0

    def class_features(self, classnames):
        return self.prompts.features(classnames)
'''


RUN = ("trained_count", "same_cell_same_record", "saved_and_loaded", "refuses_towers")


def test_the_lines_of_the_docstring_test_a_method_of_ones_own(tmp_path: Path) -> None:
    """All checks are found, and those run that look at where a class comes from; all run on every packaged recipe."""
    (tmp_path / "my_method.py").write_text(METHOD)
    recipe = {"model": {"class_path": "my_method.Mine"}, "trainer": {"max_epochs": 0}}
    (tmp_path / "my_recipe.yaml").write_text(yaml.safe_dump(recipe))
    shown = re.findall(r"^(?: {4}.*\n|\n)+", str(clipbench.testing.__doc__), flags=re.M)
    lines = max((textwrap.dedent(block) for block in shown), key=len)
    (tmp_path / "test_mine.py").write_text("import pytest\n" + lines)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", "-k", " or ".join(RUN)],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:]
    found = re.search(r"(\d+) passed, (\d+) deselected", run.stdout)
    assert found is not None, run.stdout[-2000:]
    assert int(found[1]) == len(RUN)
    assert int(found[1]) + int(found[2]) == len(clipbench.testing.METHOD_CHECKS) > 10


def test_names_come_with_what_they_need_alone() -> None:
    code = "import sys; from clipbench.testing import CARD_CHECKS, check_card; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["False"]
