"""Computes golden.json anew (`make golden`); look at the diff, and raise a version where numbers moved."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from clipbench.bench.recipe import known_recipes
from clipbench.testing.golden import golden_numbers

FILE = Path(__file__).with_name("golden.json")
FREEZING = {"class_path": "clipbench.methods.fisher_freezing.FisherFreezing", "init_args": {"width": 0.5}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {recipe: (recipe, {}) for recipe in known_recipes()} | {
    "clipfit with FisherFreezing": ("clipfit", {"trainer.callbacks": [FREEZING]})
}
"""Name of a case to its recipe and its settings."""


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = {name: golden_numbers(recipe, Path(folder), extra) for name, (recipe, extra) in CASES.items()}
    FILE.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
