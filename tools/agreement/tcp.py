"""`tcp` against htyao89/Textual-based_Class-aware_prompt_tuning `trainers/tcp.py`: `CustomCLIP` and its text tower.

The official code replaces tokens in its ninth block and knows texts of width 512 alone, so the tiny CLIP has both.
Runs: the sentences of four datasets, one of which keeps words, one of which has no full stop.
"""

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

DATASETS = {"sun397": "SUN397", "dtd": "DescribableTextures", "ucf101": "UCF101", "stanford_cars": "StanfordCars"}
OURS = {
    "ctx": "context.vectors",
    "meta_net.linear1.weight": "meta_net.0.weight", "meta_net.linear1.bias": "meta_net.0.bias",
    "meta_net.linear2.weight": "meta_net.2.weight", "meta_net.linear2.bias": "meta_net.2.bias",
}  # fmt: skip


def config(dataset: str) -> Any:
    """What the official classes read of their config."""
    coop = SimpleNamespace(N_CTX=4, CTX_INIT=False, CSC=False, CLASS_TOKEN_POSITION="end", PREC="fp32", W=1.0)
    return SimpleNamespace(
        TRAINER=SimpleNamespace(COOP=coop, COCOOP=SimpleNamespace(PREC="fp32")),
        INPUT=SimpleNamespace(SIZE=(SIZE, SIZE)), DATASET=SimpleNamespace(NAME=dataset),
    )  # fmt: skip


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny", text_width=512, blocks=10), Bounds()
    with official(checkout, "trainers.tcp", "trainers.clip_text.model") as (tcp, model):
        tcp.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        for ours, theirs in DATASETS.items():
            found.join(one_run(tcp, tower, backbone, ours, theirs))
    return found


def one_run(tcp: Any, tower: nn.Module, backbone: str, ours: str, theirs: str) -> Bounds:
    """One setting."""
    settings = config(theirs)
    torch.manual_seed(3)
    network = tcp.CustomCLIP(settings, list(BASE), tower)
    learner: nn.Module = network.prompt_learner

    def step(images: Tensor, labels: Tensor) -> Step:
        logits, loss = network(images, labels)
        cross_entropy = F.cross_entropy(logits, labels)
        return logits, {"cross_entropy": cross_entropy, "distillation": loss - cross_entropy}

    def answers(images: Tensor, names: Sequence[str]) -> Tensor:
        other = tcp.CustomCLIP(settings, list(names), tower).eval()
        trained = dict(learner.named_parameters())
        for name, parameter in other.prompt_learner.named_parameters():
            parameter.data.copy_(trained[name].detach())
        logits: Tensor = other(images)
        return logits

    return compare(
        our_method("tcp", backbone, ours),
        Official({OURS[name]: parameter for name, parameter in learner.named_parameters()}, step, answers),
        lambda tensors: torch.optim.Adam(tensors, lr=0.002, weight_decay=5e-4, eps=1e-3),
    )


if __name__ == "__main__":
    differences = "float32 instead of half, also for the frozen features"
    run("tcp", "htyao89/Textual-based_Class-aware_prompt_tuning", differences, bounds)
