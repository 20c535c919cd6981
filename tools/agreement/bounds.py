"""What is accepted: one bound for each column of the table, and a wider one where a recipe states why.

Both sides compute in float32 and sum in different orders, so each operation may be off by 6e-8 on either side. What
becomes of that on the way through the blocks was measured on the official code alone ("How much of it is rounding" in
docs/agreement.md): images off by 1e-7 put its logits off by 1e-6 and its gradients by 2e-5. Gradients pass the blocks
twice, and tensors after five steps carry the errors of all five.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

COLUMNS = {
    "logits": "logits",
    "terms": "loss terms",
    "gradients": "gradients",
    "tensors": "after five steps",
    "base": "base after",
    "novel": "novel after",
}
BOUNDS = {"logits": 5e-5, "terms": 2e-5, "gradients": 1e-4, "tensors": 1e-4, "base": 5e-5, "novel": 5e-5}


class Wider(NamedTuple):
    """The bound of one recipe in a column, instead of that of all recipes, and why; its row says so."""

    bound: float
    reason: str


def in_words(wider: Mapping[str, Wider]) -> list[str]:
    """What a row says about its own bounds."""
    return [f"{COLUMNS[kind]} bounded by {bound:.1e}: {reason}" for kind, (bound, reason) in wider.items()]


def check(recipe: str, largest: Mapping[str, float], wider: Mapping[str, Wider]) -> None:
    """Accept the differences of a recipe.

    Args:
        recipe: its name.
        largest: the largest difference of each kind that was compared.
        wider: its own bounds by kind.

    Raises:
        SystemExit: one is beyond its bound, or no number.
    """
    bounds = BOUNDS | {kind: own.bound for kind, own in wider.items()}
    beyond = [
        f"{COLUMNS[kind]} {found:.1e}, bounded by {bounds[kind]:.1e}"
        for kind, found in largest.items()
        if not found <= bounds[kind]
    ]
    if beyond:
        raise SystemExit(f"'{recipe}' is too far from the official code for its row: {'; '.join(beyond)}")
