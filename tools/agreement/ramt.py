"""`ramt` against wuw2019/R-AMT `code/trainers/masktuning.py`: `MASKCLIP`, and the update of its trainer.

Runs: regularity 1, 0.3 and 0 at the rate of the configurations; 1 and 0.3 at 2e-3, where masks flip within five steps;
one with the MLP masked. Both sides get the same uniform draws. Gradients are those of L_a, before any is dropped. Where
masks flip, ours takes every step from the official scores: Adam moves a score whose gradient is nothing but rounding by
the learning rate in either direction, and one flipped mask changes all that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.methods.ramt import RAMT
from clipbench.randomness import torch_generator
from tools.agreement.checkout import official
from tools.agreement.compare import Bounds, Official, Step, compare, our_method, our_step, run
from tools.agreement.tiny import BASE, official_model, our_name, write_tiny

RUNS = (
    (1.0, 8e-5, False), (0.3, 8e-5, False), (0.0, 8e-5, False), (1.0, 2e-3, False), (0.3, 2e-3, False),
    (1.0, 8e-5, True),
)  # fmt: skip
PENALTY, THRESHOLD, FLIPS = 1e-4, 5e-3, 1e-3  # masks flip in five steps of this rate and more


def config(gdr_lambda: float, mlp: bool) -> Any:
    """What the official classes read of their config."""
    mask = SimpleNamespace(
        PREC="fp32", INIT="1s", SCALE=1e-2, THRESHOLD_FN="binarizer", THRESHOLD=THRESHOLD, MASK_MLP=mlp,
        GDR_LAMBDA=gdr_lambda,
    )  # fmt: skip
    return SimpleNamespace(MASK=mask, DATASET=SimpleNamespace(NAME="SUN397"))


def as_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores, or what has their shapes, by our names: q, k and v apart, patches as rows."""
    found = {}
    for name, tensor in tensors.items():
        path = our_name(f"visual.{name.removesuffix('.mask_real')}")
        if path == "image.conv1":
            found["image.patch_embed.weight.scores"] = tensor.flatten(1)
        elif path.endswith(".attn"):
            for third, part in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
                found[f"{path}.{third}.weight.scores"] = part
        else:
            found[f"{path}.weight.scores"] = tensor
    return found


@dataclass
class Counts:
    """What is counted over all runs, of how many."""

    drops: list[int] = field(default_factory=lambda: [0, 0])
    scores: list[int] = field(default_factory=lambda: [0, 0])
    gates: list[int] = field(default_factory=lambda: [0, 0])

    def see(self, kind: str, differ: Tensor) -> None:
        """Take in where two sides differ."""
        count = getattr(self, kind)
        count[0] += int(differ.sum())
        count[1] += differ.numel()


def gradient_of(method: Any, name: str) -> Tensor:
    """The gradient of one of our scores."""
    gradient: Tensor = method.trainable[name].grad
    return gradient


@contextmanager
def drawing(draws: Sequence[Tensor]) -> Iterator[None]:
    """Within this context `torch.rand` gives these, one after the other."""
    with mock.patch.object(torch, "rand", side_effect=draws):
        yield


def bounds(checkout: Path, scratch: Path) -> Bounds:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found, counts = write_tiny(scratch / "tiny"), Bounds(), Counts()
    with official(checkout, "trainers.masktuning", "clip.model") as (masks, model):

        def tiny(*config: Any) -> nn.Module:
            return official_model(scratch / "tiny", model.build_model).requires_grad_(False)

        masks.load_clip_to_cpu = tiny
        for gdr_lambda, lr, mlp in RUNS:
            found.join(one_run(masks, tiny, backbone, gdr_lambda, lr, mlp, counts))
    shown = {kind: f"{n:,} of {total:,}" for kind, (n, total) in vars(counts).items()}
    found.notes.append(
        f"at a rate of 2e-3 each step starts from the official scores; of the gates {shown['gates']} differ, of the "
        f"scores {shown['scores']} are off by more than 1e-6 (Adam's steps where the gradient is rounding), of the "
        f"drops {shown['drops']}"
    )
    return found


def one_run(
    masks: Any, tiny: Callable[[], nn.Module], backbone: str, gdr_lambda: float, lr: float, mlp: bool, counts: Counts
) -> Bounds:
    """One setting."""
    settings = config(gdr_lambda, mlp)
    theirs = masks.MASKCLIP(settings, list(BASE), tiny())
    trained = {name: p.requires_grad_(True) for name, p in theirs.shared.named_parameters() if "mask_real" in name}
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_("mask_real" in name)
    theirs.train()
    trainer = masks.MaskTuning()
    trainer._models = {"shared": theirs.shared}
    trainer._optims = {"shared": SimpleNamespace(zero_grad=theirs.zero_grad, step=lambda: None)}
    trainer.get_model_names = lambda names: ["shared"]
    trainer.detect_anomaly = lambda loss: None
    trainer.model_zero_grad = lambda names: theirs.zero_grad()
    l_b = masks.KLLoss(T=1.0)
    batch: list[Tensor] = []
    number = [0]

    def terms(images: Tensor, labels: Tensor) -> Step:
        logits = theirs(images)[0]
        norms = sum(masks.RegLoss(parameter, 2) for parameter in trained.values())
        return logits, {"cross_entropy": F.cross_entropy(logits, labels), "norms": PENALTY * norms}

    def step(images: Tensor, labels: Tensor) -> Step:
        batch[:] = [images, labels]
        return terms(images, labels)

    def draws() -> dict[str, Tensor]:
        return {
            name: torch.rand(p.shape, generator=torch_generator(1, "uniform", name, number[0]))
            for name, p in trained.items()
        }

    def update() -> None:
        """The official one, which takes both backward passes itself, without its optimiser's step."""
        logits, l_a = terms(*batch)
        drawn = list(draws().values())
        with drawing(drawn):
            trainer.graddrop_backward_and_update(
                sum(l_a.values()), l_b(logits, theirs.original_forward(batch[0]), batch[1]), gdr_lambda
            )
        if gdr_lambda:
            for name, gradient in as_ours({name: p.grad for name, p in trained.items() if p.grad is not None}).items():
                ratio = (gradient_of(method, name) / gradient).nan_to_num(1.0)
                counts.see("drops", (ratio - 1).abs() > min(0.5, gdr_lambda / 2))
        number[0] += 1

    def answers(images: Tensor, names: Sequence[str]) -> Tensor:
        other = masks.MASKCLIP(settings, list(names), tiny())
        for name, parameter in other.shared.named_parameters():
            if name in trained:
                parameter.data.copy_(trained[name].detach())
        logits: Tensor = other.eval()(images)
        return logits

    method = our_method("ramt", backbone, gdr_lambda=gdr_lambda, mask_mlp=mlp)
    method.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)

    def ours(method: RAMT, images: Tensor, labels: Tensor) -> Step:
        if lr >= FLIPS:
            with torch.no_grad():
                for name, theirs in as_ours({name: p.detach() for name, p in trained.items()}).items():
                    method.trainable[name].copy_(theirs)
        if gdr_lambda:
            twin = method.backbone.pretrained
            with torch.no_grad():
                features = method.prompts.pretrained_features(method.classnames)
                method._teacher = twin.logits(twin.encode_image(images), features)
        return our_step(method, images, labels)

    def drop(method: RAMT) -> None:
        by_name = as_ours(draws())
        with drawing([by_name[name] for name in method.trainable]):
            method.on_after_backward()

    def count(method: RAMT) -> None:
        for name, theirs in as_ours({name: p.detach() for name, p in trained.items()}).items():
            scores = method.trainable[name].detach()
            counts.see("scores", (scores - theirs).abs() > 1e-6)
            counts.see("gates", (scores > THRESHOLD) != (theirs > THRESHOLD))

    return compare(
        method,
        Official(trained, step, answers, after_backward=update, as_ours=as_ours),
        lambda tensors: torch.optim.Adam(tensors, lr=lr),
        ours=ours,  # type: ignore[arg-type]
        after_backward=drop,  # type: ignore[arg-type]
        finish=count,  # type: ignore[arg-type]
        by_chance=True,
    )


if __name__ == "__main__":
    run("ramt", "wuw2019/R-AMT", "without the regularity the update goes on", bounds, "code")
