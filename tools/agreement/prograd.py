"""`prograd` against BeierZhu/Prompt-align: `trainers/prograd.py`, and the update in `dassl/engine/trainer.py`.

The update is taken out of its file alone, as the whole asks for the framework. Runs: the templates of three datasets,
one with a comma, and a projection of 0.8. Gradients are those after the projection.
"""

from __future__ import annotations

import ast
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

ENGINE, UPDATE = "Dassl.ProGrad.pytorch/dassl/engine/trainer.py", "prograd_backward_and_update"
RUNS = (("sun397", "SUN397", 1.0), ("oxford_pets", "OxfordPets", 1.0), ("eurosat", "EuroSAT", 0.8))


def config(dataset: str) -> Any:
    """What the official classes read of their config."""
    coop = SimpleNamespace(N_CTX=16, CTX_INIT=True, CSC=False, CLASS_TOKEN_POSITION="end", PREC="fp32")
    return SimpleNamespace(
        TRAINER=SimpleNamespace(COOP=coop), INPUT=SimpleNamespace(SIZE=(SIZE, SIZE)),
        DATASET=SimpleNamespace(NAME=dataset), MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(NAME="tiny")),
    )  # fmt: skip


def official_update(checkout: Path) -> Any:
    """The official method of its trainer."""
    tree = ast.parse((checkout / ENGINE).read_text())
    tree.body = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == UPDATE]
    space: dict[str, Any] = {"torch": torch}
    exec(compile(tree, ENGINE, "exec"), space)
    return space[UPDATE]


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny"), Bounds()
    projections = [0, 0]
    with official(checkout / "ProGrad.public", "trainers.prograd", "clip.model") as (prograd, model):
        prograd.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        update = official_update(checkout)
        for ours, theirs, strength in RUNS:
            found.join(one_run(prograd, update, backbone, ours, theirs, strength, projections))
    found.notes.append(f"{projections[0]} of {projections[1]} steps were projected")
    return found


def one_run(
    prograd: Any, update: Any, backbone: str, ours: str, theirs: str, strength: float, projections: list[int]
) -> Bounds:
    """One setting."""
    settings = config(theirs)
    tower = prograd.load_clip_to_cpu(settings).requires_grad_(False)
    network, teacher = prograd.CustomCLIP(settings, list(BASE), tower), prograd.CLIP(settings, list(BASE))
    context: nn.Parameter = network.prompt_learner.ctx
    both = prograd.ProGradLoss(T=1.0)
    batch: list[Tensor] = []
    trainer = SimpleNamespace(
        _models={"prompt_learner": network.prompt_learner},
        _optims={"prompt_learner": SimpleNamespace(zero_grad=network.zero_grad, step=lambda: None)},
        get_model_names=lambda names: ["prompt_learner"], detect_anomaly=lambda loss: None,
        model_zero_grad=lambda names: network.zero_grad(),
    )  # fmt: skip

    def step(images: Tensor, labels: Tensor) -> Step:
        batch[:] = [images, labels]
        logits = network(images)
        return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

    def project() -> None:
        """The official update, which takes both backward passes itself, without its optimiser's step."""
        assert context.grad is not None
        before = context.grad.clone()
        with torch.no_grad():
            zero_shot = teacher(batch[0])
        update(trainer, *both(network(batch[0]), zero_shot, batch[1]), lambda_=strength)
        projections[0] += not torch.allclose(before, context.grad, rtol=1e-3, atol=0)
        projections[1] += 1

    def answers(images: Tensor, names: Sequence[str]) -> Tensor:
        other = prograd.CustomCLIP(settings, list(names), tower)
        other.prompt_learner.ctx.data.copy_(context.detach())
        logits: Tensor = other(images)
        return logits

    return compare(
        our_method("prograd", backbone, ours, projection=strength),
        Official({"context.vectors": context}, step, answers, after_backward=project),
        lambda tensors: torch.optim.SGD(tensors, lr=0.002, momentum=0.9, weight_decay=5e-4),
        after_backward=lambda method: method.on_after_backward(),
    )


if __name__ == "__main__":
    differences = (
        "float32 instead of half; the released base-to-novel setting is ResNet-50 with 4 shots, the published row for "
        "ViT-B/16 a re-run of KgCoOp's authors"
    )
    run("prograd", "BeierZhu/Prompt-align", differences, bounds)
