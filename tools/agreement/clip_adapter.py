"""`clip_adapter` against gaopengcuhk/CLIP-Adapter `clip_adapter.py`: `CustomCLIP`, whose adapter is 1024 wide.

Its repository brings no CLIP: the towers are open_clip's, with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.agreement.checkout import official, stand_in
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.tiny import BASE, write_tiny


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on a tiny CLIP with 1024 features."""
    backbone = write_tiny(scratch / "tiny", embed=1024)
    tower: Any = open_clip.create_model(backbone).eval().requires_grad_(False)
    tower.dtype = torch.float32
    clip = stand_in("clip", clip=SimpleNamespace(tokenize=open_clip.tokenize))
    tokenizer = stand_in("clip.simple_tokenizer", SimpleTokenizer=object)
    config = SimpleNamespace(DATASET=SimpleNamespace(NAME="SUN397"))
    with official(checkout, "clip_adapter", instead=(clip, tokenizer)) as (module,):
        clip.tokenize = clip.clip.tokenize  # type: ignore[attr-defined]
        theirs = module.CustomCLIP(config, BASE, tower)

        def step(images: Tensor, labels: Tensor) -> Step:
            logits = theirs(images)
            return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = module.CustomCLIP(config, names, tower)
            other.adapter = theirs.adapter
            logits: Tensor = other(images)
            return logits

        trained = {name.replace("fc.", "adapter."): tensor for name, tensor in theirs.adapter.named_parameters()}
        return compare(
            our_method("clip_adapter", backbone),
            Official(trained, step, answers),
            lambda tensors: torch.optim.SGD(tensors, lr=0.0035, momentum=0.9, weight_decay=5e-4),
        )


if __name__ == "__main__":
    run("clip_adapter", "gaopengcuhk/CLIP-Adapter", "the width follows the backbone instead of 1024", bounds)
