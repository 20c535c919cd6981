"""`prograd` against BeierZhu/Prompt-align: `trainers/prograd.py`, and the update in `dassl/engine/trainer.py`.

The update is taken out of its file alone, as the whole asks for the framework. Runs: the templates of three datasets,
one with a comma, and a projection of 0.8. Gradients are those after the projection.
"""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.methods.base import Method
from tools.agreement.checkout import official, standing_still
from tools.agreement.compare import Measured, Tally, compare, our_method, run
from tools.agreement.learner import context, coop_config
from tools.agreement.side import of_model, sgd
from tools.agreement.tiny import BASE, official_model, write_tiny

ENGINE, UPDATE = "Dassl.ProGrad.pytorch/dassl/engine/trainer.py", "prograd_backward_and_update"
RUNS = (("sun397", "SUN397", 1.0), ("oxford_pets", "OxfordPets", 1.0), ("eurosat", "EuroSAT", 0.8))


def official_update(checkout: Path) -> Any:
    """The official method of its trainer."""
    tree = ast.parse((checkout / ENGINE).read_text())
    tree.body = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == UPDATE]
    space: dict[str, Any] = {"torch": torch}
    exec(compile(tree, ENGINE, "exec"), space)
    return space[UPDATE]


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found, tally = write_tiny(scratch / "tiny"), Measured(), Tally()
    with official(checkout / "ProGrad.public", "trainers.prograd", "clip.model") as (prograd, model):
        prograd.load_clip_to_cpu = lambda cfg: official_model(scratch / "tiny", model.build_model)
        update = official_update(checkout)
        for ours, theirs, strength in RUNS:
            method = our_method("prograd", backbone, ours, projection=strength)
            found.join(one_run(prograd, update, method, theirs, strength, tally))
    found.notes.append(f"{tally['projected']} steps were projected")
    return found


def one_run(prograd: Any, update: Any, method: Method, dataset: str, strength: float, tally: Tally) -> Measured:
    """One setting."""
    settings = coop_config(dataset, N_CTX=16, CTX_INIT=True)
    tower = prograd.load_clip_to_cpu(settings).requires_grad_(False)
    theirs = of_model(lambda names: prograd.CustomCLIP(settings, list(names), tower), context)
    teacher, both = prograd.CLIP(settings, list(BASE)), prograd.ProGradLoss(T=1.0)
    learner: nn.Module = theirs.model.prompt_learner
    trainer = standing_still(SimpleNamespace(), learner, "prompt_learner")

    def project(images: Tensor, labels: Tensor) -> None:
        """The official update, which takes both backward passes itself, without its optimiser's step."""
        before = theirs.gradients()["context.vectors"].clone()
        with torch.no_grad():
            zero_shot = teacher(images)
        update(trainer, *both(theirs.model(images), zero_shot, labels), lambda_=strength)
        moved = not torch.allclose(before, theirs.gradients()["context.vectors"], rtol=1e-3, atol=0)
        tally.see("projected", torch.tensor([moved]))

    theirs.after_backward = project
    return compare(method, theirs, sgd(0.002), after_backward=lambda method: method.on_after_backward())


if __name__ == "__main__":
    differences = (
        "float32 instead of half; the released base-to-novel setting is ResNet-50 with 4 shots, the published row for "
        "ViT-B/16 a re-run of KgCoOp's authors"
    )
    run("prograd", "BeierZhu/Prompt-align", differences, measure)
