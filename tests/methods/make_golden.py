"""Computes golden.json anew (`make golden`); look at the diff, and raise a version where numbers moved."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from clipbench.bench.recipe import known_recipes
from clipbench.testing.golden import golden_numbers

FILE = Path(__file__).with_name("golden.json")


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = {recipe: golden_numbers(recipe, Path(folder)) for recipe in known_recipes()}
    FILE.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
