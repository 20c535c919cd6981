"""`tcp` against htyao89/Textual-based_Class-aware_prompt_tuning `trainers/tcp.py`: `CustomCLIP` and its text tower.

The official code replaces tokens in its ninth block and knows texts of width 512 alone, so the tiny CLIP has both.
Runs: the sentences of four datasets, one of which keeps words, one of which has no full stop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.agreement.bounds import Wider
from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.learner import context_and_network, coop_config
from tools.agreement.side import Step, of_model
from tools.agreement.tiny import official_model, write_tiny

DATASETS = {"sun397": "SUN397", "dtd": "DescribableTextures", "ucf101": "UCF101", "stanford_cars": "StanfordCars"}
WIDER = {
    "tensors": Wider(3e-4, "Adam divides by the size of the gradient, so rounding counts for more where that is small")
}


def step(model: Any, images: Tensor, labels: Tensor) -> Step:
    """The cross-entropy, and the rest of the official loss."""
    logits, loss = model(images, labels)
    cross_entropy = F.cross_entropy(logits, labels)
    return logits, {"cross_entropy": cross_entropy, "distillation": loss - cross_entropy}


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny", text_width=512, blocks=10), Measured()
    with official(checkout, "trainers.tcp", "trainers.clip_text.model") as (tcp, model):
        tcp.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        for ours, theirs in DATASETS.items():
            found.join(one_run(tcp, tower, backbone, ours, theirs))
    return found


def one_run(tcp: Any, tower: nn.Module, backbone: str, ours: str, theirs: str) -> Measured:
    """One setting."""
    settings = coop_config(theirs, CTX_INIT=False, W=1.0)
    torch.manual_seed(3)
    return compare(
        our_method("tcp", backbone, ours),
        of_model(lambda names: tcp.CustomCLIP(settings, list(names), tower), context_and_network, step),
        lambda tensors: torch.optim.Adam(tensors, lr=0.002, weight_decay=5e-4, eps=1e-3),
    )


if __name__ == "__main__":
    differences = "float32 instead of half, also for the frozen features"
    run("tcp", "htyao89/Textual-based_Class-aware_prompt_tuning", differences, measure, wider=WIDER)
