"""`tip_adapter` against gaopengcuhk/Tip-Adapter `main.py` and `utils.py`; nothing is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from tools.agreement.compare import Measured, run
from tools.agreement.tiny import BASE, NOVEL, batches, test_images
from tools.agreement.tip_adapter_f import both


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    with both(checkout, scratch, "tip_adapter") as (method, theirs, found), torch.no_grad():
        method.eval()
        for images, _ in batches():
            found.see("logits", method(images, BASE), theirs.answers(images, BASE))
        for kind, names in (("base", BASE), ("novel", NOVEL)):
            found.see(kind, method(test_images(), names), theirs.answers(test_images(), names))
    return found


if __name__ == "__main__":
    run(
        "tip_adapter",
        "gaopengcuhk/Tip-Adapter",
        "nothing is trained: the keys stand under tensors; no search of alpha and beta on val images; float32 instead "
        "of half; CLIP's scale instead of the number 100; zero-shot for novel classes",
        measure,
    )
