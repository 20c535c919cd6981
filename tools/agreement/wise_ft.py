"""`wise_ft` against mlfoundations/wise-ft `src/wise_ft.py`: `_merge`, after five steps of `full_image` on either side.

Compared is what lies between at alpha 0, 0.25, 0.5, 0.75 and 1: the logits, and the tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clipbench.methods.wiseft import WiSEFT
from tools.agreement.checkout import official, stand_in
from tools.agreement.compare import Measured, run
from tools.agreement.full_image import tuned
from tools.agreement.tiny import BASE, NOVEL, batches, test_images

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, for every alpha."""
    found, file = Measured(), scratch / "tuned.safetensors"
    with (
        tuned(checkout, scratch) as (method, theirs, theta_0, _),
        official(checkout, "src.wise_ft", instead=[stand_in("src.models.finetune", finetune=None)]) as (module,),
        torch.no_grad(),
    ):
        method.save(file)
        theta_1 = {name: tensor.clone() for name, tensor in theirs.model.state_dict().items()}
        for alpha in ALPHAS:
            theirs.model.load_state_dict(module._merge(alpha, theta_0, theta_1, None, 0.0))
            ours: Any = WiSEFT(method.backbone_name, start=str(file), alpha=alpha)
            ours.setup("test", task=method.task)
            for kind, images, names in (
                *(("logits", images, BASE) for images, _ in batches()),
                ("base", test_images(), BASE), ("novel", test_images(), NOVEL),
            ):  # fmt: skip
                expected = theirs.answers(images, names)
                assert expected is not None
                found.see(kind, ours(images, names), expected)
            for name, tensor in theirs.values().items():
                found.see("tensors", ours.trainable[name], tensor)
    return found


if __name__ == "__main__":
    differences = (
        "tensors are those at every alpha, after five steps of `full_image`; the text tower is interpolated as well, "
        "as any method's tensors are; class features come from the text tower instead of a linear head"
    )
    run("wise_ft", "mlfoundations/wise-ft", differences, measure)
