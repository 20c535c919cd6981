"""`clip_adapter` against gaopengcuhk/CLIP-Adapter `clip_adapter.py`: `CustomCLIP`, whose adapter is 1024 wide.

Its repository brings no CLIP: the towers are open_clip's, with the same weights.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from torch import nn

from tools.agreement.checkout import config, official, stand_in
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import of_model, sgd
from tools.agreement.tiny import write_tiny


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Its trained tensors by our names."""
    return {name.replace("fc.", "adapter."): tensor for name, tensor in model.adapter.named_parameters()}


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on a tiny CLIP with 1024 features."""
    backbone = write_tiny(scratch / "tiny", embed=1024)
    tower: Any = open_clip.create_model(backbone).eval().requires_grad_(False)
    tower.dtype = torch.float32
    clip = stand_in("clip", clip=SimpleNamespace(tokenize=open_clip.tokenize))
    tokenizer = stand_in("clip.simple_tokenizer", SimpleTokenizer=object)
    settings = config(DATASET={"NAME": "SUN397"})
    with official(checkout, "clip_adapter", instead=(clip, tokenizer)) as (module,):
        clip.tokenize = clip.clip.tokenize  # type: ignore[attr-defined]
        theirs = of_model(lambda names: module.CustomCLIP(settings, names, tower), trained)
        return compare(our_method("clip_adapter", backbone), theirs, sgd(0.0035))


if __name__ == "__main__":
    run("clip_adapter", "gaopengcuhk/CLIP-Adapter", "the width follows the backbone instead of 1024", measure)
