"""`layer_norm` against FarinaMatteo/rethinking_fewshot_vlms: what `trainable_norm_params` selects, `fs/ln_only.py`.

The loop itself asks for CUDA's gradient scaler; its lines are logits of unit features and a cross-entropy. Runs: the
LayerNorms that the code trains (it selects all, and freezes those outside the blocks again), and all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import Official, Step
from tools.agreement.tiny import BASE, official_model, our_name, write_tiny

RUNS = {"both towers, blocks all, LayerNorm": False, "both towers, LayerNorm": True}  # ours to whether all are trained


def logits_of(model: Any, tokenize: Callable[..., Tensor], images: Tensor, names: Sequence[str]) -> Tensor:
    """The logits of the official loop, with its sentence."""
    unit = [F.normalize(x, dim=-1) for x in (
        model.encode_image(images), model.encode_text(tokenize([f"a photo of a {name}." for name in names]))
    )]  # fmt: skip
    logits: Tensor = model.logit_scale.exp() * unit[0] @ unit[1].t()
    return logits


def one_run(model: Any, tokenize: Callable[..., Tensor], recipe: str, backbone: str, train: Sequence[str]) -> Measured:
    """One selection; what the official model trains is what has a gradient."""
    trained = {our_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    trained = {name.replace("attn.proj.", "attn.out_proj."): p for name, p in trained.items()}
    answers = partial(logits_of, model, tokenize)

    def step(images: Tensor, labels: Tensor) -> Step:
        logits = answers(images, BASE)
        return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

    return compare(
        our_method(recipe, backbone, train=list(train)),
        Official(trained, step, answers),
        lambda tensors: torch.optim.AdamW(tensors, lr=2e-4, weight_decay=0.01, betas=(0.9, 0.999)),
    )


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in both runs."""
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    with official(checkout, "fs.utils.model_utils", "clip.model", "clip.clip") as (utils, model, clip):
        for train, everywhere in RUNS.items():
            theirs = official_model(scratch / "tiny", model.build_model)
            selected = utils.trainable_norm_params(theirs)
            if everywhere:
                nn.ParameterList(selected).requires_grad_()
            found.join(one_run(theirs, clip.tokenize, "layer_norm", backbone, [train]))
    return found


if __name__ == "__main__":
    differences = "all LayerNorms, of which the official code freezes three again; float32 instead of mixed precision"
    run("layer_norm", "FarinaMatteo/rethinking_fewshot_vlms", differences, measure)
