"""Write `golden.json` anew (`python tests/backbone/make_golden.py`), after raising the VERSION of the backbone."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

FILE = Path(__file__).with_name("golden.json")


def numbers(folder: Path) -> dict[str, list[list[float]]]:
    """Features and logits of a tiny random backbone; inputs and weights come from no file."""
    from clipbench.backbone import PromptPlan, build_backbone
    from tests.backbone.tiny_backbones import TEXT, VISION, write_folder

    out = {}
    for name, model in (("gelu", {}), ("quickgelu", {"quick_gelu": True})):
        backbone = build_backbone(write_folder(folder / name, VISION, TEXT, **model))
        pixels = (torch.arange(2 * 3 * 16 * 16) * 37 % 256).to(torch.uint8).view(2, 3, 16, 16)
        extra = torch.sin(torch.arange(2 * 16.0)).view(2, 16)
        plan = PromptPlan([[62, 64, 65, 7, 63], [62, 64, 65, 8, 9, 10, 63], [62, 64, 65, 9, 63]])
        image, text = backbone.encode_image(backbone.normalise(pixels)), backbone.encode_text(plan, extra)
        out |= {f"{name} image": image.tolist(), f"{name} text": text.tolist()}
        out[f"{name} logits"] = backbone.logits(image, text).tolist()
    return {name: [[round(x, 6) for x in row] for row in rows] for name, rows in out.items()}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from clipbench.backbone.version import VERSION

    with tempfile.TemporaryDirectory() as folder:
        stored = {"version": VERSION, "torch": torch.__version__, "numbers": numbers(Path(folder))}
    FILE.write_text(json.dumps(stored) + "\n")
