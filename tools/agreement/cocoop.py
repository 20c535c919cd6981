"""`cocoop` against KaiyangZhou/CoOp `trainers/cocoop.py`: `CustomCLIP` with its prompt learner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.checkout import official
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, run
from tools.agreement.tiny import BASE, SIZE, official_model, write_tiny

OURS = {
    "ctx": "context.vectors",
    "meta_net.linear1.weight": "meta_net.0.weight", "meta_net.linear1.bias": "meta_net.0.bias",
    "meta_net.linear2.weight": "meta_net.2.weight", "meta_net.linear2.bias": "meta_net.2.bias",
}  # fmt: skip


def config() -> Any:
    """What the official classes read of their config."""
    cocoop = SimpleNamespace(N_CTX=4, CTX_INIT="a photo of a", PREC="fp32")
    return SimpleNamespace(TRAINER=SimpleNamespace(COCOOP=cocoop), INPUT=SimpleNamespace(SIZE=(SIZE, SIZE)))


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP."""
    backbone = write_tiny(scratch / "tiny")
    with official(checkout, "trainers.cocoop", "clip.model") as (cocoop, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        theirs = cocoop.CustomCLIP(config(), list(BASE), tower)
        learner: nn.Module = theirs.prompt_learner

        def step(images: Tensor, labels: Tensor) -> Step:
            learner.eval()  # in train mode it returns the loss alone
            logits = theirs(images)
            return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

        def answers(images: Tensor, names: Sequence[str]) -> Tensor:
            other = cocoop.CustomCLIP(config(), list(names), tower).eval()
            trained = dict(learner.named_parameters())
            for name, parameter in other.prompt_learner.named_parameters():
                parameter.data.copy_(trained[name].detach())
            logits: Tensor = other(images)
            return logits

        return compare(
            our_method("cocoop", backbone),
            Official({OURS[name]: parameter for name, parameter in learner.named_parameters()}, step, answers),
            lambda tensors: torch.optim.SGD(tensors, lr=0.002, momentum=0.9, weight_decay=5e-4),
        )


if __name__ == "__main__":
    run("cocoop", "KaiyangZhou/CoOp", "float32 instead of half", bounds)
