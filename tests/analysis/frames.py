"""Invented changes: what the summary and the figures are tested on."""

from __future__ import annotations

from typing import Any

from clipbench.analysis.changes import Change
from clipbench.analysis.recorder import row_of

BIASES = [f"text.blocks.{block}.mlp.proj.bias" for block in range(4)]
NORMS = ["image.ln_pre.weight", "image.blocks.0.ln_1.weight", "image.blocks.0.ln_2.weight", "image.ln_post.weight"]
STEPS = (0, 2, 4)


def changes(cells: dict[str, dict[str, float]], paths: dict[str, float] | None = None) -> list[dict[str, Any]]:
    """Rows of fits of four steps; a tensor's sum of squares grows to the number given, its norm is 2, 8 numbers."""
    rows = []
    for cell, ends in cells.items():
        for step in STEPS:
            for name, end in ends.items():
                gradients = {
                    "path_length": (paths or ends)[name] * step / 4,
                    "gradient_squares": end * step,
                    "gradient_cosine": 1 - step / 4 if step else None,
                }
                about = {"cell": cell, "recipe": "clipfit", "backbone": "mini", "shots": 16, "dataset": cell, "seed": 1}
                row = row_of(name, Change(8, end * step / 4, 2.0), added=False)
                rows.append(about | {"step": step, "steps": 4} | row | gradients)
    return rows
