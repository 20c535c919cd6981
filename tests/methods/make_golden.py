"""Computes golden values anew: `make golden RECIPE=name` for one recipe, `make golden` for all; look at the diff.

One file a recipe, `golden/<recipe>.json`. Beside the values it says how they are made and compared, which is written
once and kept from then on:

- `recipe`: whose values these are. A file of another name than its recipe's is a further case of that recipe.
- `settings`: what is set above the recipe, dotted, where its own values show too little in so few steps.
- `tolerance`: how far a logit may be off, absolute. A method that decides something by comparing numbers (which entries
  are masked) turns rounding into a decision, which moves logits by more than rounding: 0.05 there.
- `relative`, where it is needed: how far losses and moved distances may be off, relative (else `RELATIVE`).

`fisher_adaptune` sets a threshold that no group comes near, and leaves out the biases of the keys: their gradient is
rounding (the softmax does not see them), which enters the score of the small tensors of a block. So it freezes the same
groups whatever the vector instructions of the CPU, and its numbers are near 1e-5 of each other with AVX-512, AVX2 and
SSE 4.1 (ATEN_CPU_CAPABILITY, MKL_CBWR, ONEDNN_MAX_CPU_ISA) and with two threads [measured]. With the recipe's own
threshold and biases they are 0.3 % (losses) and 3 % (distance of the query biases) apart.

Raise the `version` of the method where its values have moved.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipbench.errors import ClipbenchError, UnknownName
from clipbench.recipes.recipe import known_recipes
from clipbench.testing.golden import golden_numbers

FOLDER = Path(__file__).with_name("golden")
KEPT = ("recipe", "settings", "tolerance", "relative")
RELATIVE = {"losses": 1e-3, "moved": 2e-3}


def names() -> list[str]:
    """Every recipe there is, and every further case."""
    return sorted({*known_recipes(), *(path.stem for path in FOLDER.glob("*.json"))})


def how(name: str) -> dict[str, Any]:
    """How a case is made and compared: what its file says, or what holds for a recipe without one.

    Raises:
        UnknownName: neither a file nor a recipe.
    """
    path = FOLDER / f"{name}.json"
    if path.exists():
        content = json.loads(path.read_text())
        return {key: content[key] for key in KEPT if key in content}
    if name not in known_recipes():
        raise UnknownName("recipe", name, names())
    return {"recipe": name, "settings": {}, "tolerance": 0.002}


def make(name: str) -> None:
    """Write the file of one case."""
    case = how(name)
    with tempfile.TemporaryDirectory() as folder:
        numbers = golden_numbers(case["recipe"], Path(folder), case["settings"])
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(case | numbers, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files of the cases named, of all where none is."""
    parser = argparse.ArgumentParser(description="Compute golden values anew.")
    parser.add_argument("names", nargs="*", help="recipes or further cases (default: all there are)")
    for name in parser.parse_args(arguments).names or names():
        try:
            make(name)
        except ClipbenchError as error:
            sys.exit(f"clipbench: {error}")


if __name__ == "__main__":
    main()
