"""`clip_lora` against MaxZanella/CLIP-LoRA: what `apply_lora` puts into its CLIP, with the formulas of `lora.py`.

Runs: as shipped; with B not zero; at a hundred times the rate; on q, k, v and out with rank 4. Both sides drop the same
entries: one mask for every module and step, over positions and items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.data.templates import GENERIC, fill
from clipbench.methods.base import Method
from clipbench.randomness import torch_generator
from clipbench.tuning.low_rank import LowRankLinear
from tools.agreement.bounds import Wider
from tools.agreement.checkout import official
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import Official, Step
from tools.agreement.tiny import BASE, official_model, our_name, write_tiny

DROPOUT = 0.25
POSITIONS = {"text": 77, "image": 17}
LINEARS = {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "o": "attn.out_proj"}
WIDER = {
    "gradients": Wider(3e-4, "at a hundred times the rate, where tensors are already apart"),
    "tensors": Wider(1e-3, "at that rate an entry whose gradient is rounding moves by up to 2e-2 in a step of AdamW"),
}


class Masks:
    """What is kept: (positions, items, W) for a module of ours by name, in the current step."""

    def __init__(self) -> None:
        self.step = 0

    def of(self, name: str, items: int, width: int) -> Tensor:
        """The mask of a module, the same for both sides."""
        generator = torch_generator(1, "dropout", name, self.step)
        return torch.rand((POSITIONS[name.split(".")[0]], items, width), generator=generator) >= DROPOUT


class Replay(nn.Dropout):
    """The official dropout with a given mask; it sees (positions, items, W), or the same flattened."""

    def __init__(self, name: str, masks: Masks) -> None:
        super().__init__(DROPOUT)
        self.name, self.masks = name, masks

    def forward(self, x: Tensor) -> Tensor:
        """x without what is dropped, scaled up."""
        items = x.numel() // (POSITIONS[self.name.split(".")[0]] * x.shape[-1])
        return x * self.masks.of(self.name, items, x.shape[-1]).view(x.shape) / (1 - DROPOUT)


@contextmanager
def replaying(method: Method, masks: Masks) -> Iterator[None]:
    """Within this context the dropout of ours drops what `masks` says."""
    layout = method.backbone.text.pack(method.prompts.plan(BASE), share_prefix=False).geometry.layout  # type: ignore[operator]
    owner, place = torch.from_numpy(layout.class_of).clamp_min(0), torch.from_numpy(layout.position_of)
    now = [""]

    def kept(x: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
        if now[0].startswith("image"):
            return masks.of(now[0], len(x), x.shape[-1]).transpose(0, 1)[:, : x.shape[1]]
        mask = masks.of(now[0], len(BASE), x.shape[-1])
        flat = mask[place, owner]
        return flat if len(flat) == len(x) else flat[torch.from_numpy(layout.pooled_flat)]

    def listen(name: str) -> Callable[..., None]:
        return lambda *arguments: now.__setitem__(0, name)

    handles = [
        module.register_forward_pre_hook(listen(name))
        for name, module in method.backbone.named_modules() if isinstance(module, LowRankLinear)
    ]  # fmt: skip
    with mock.patch("clipbench.tuning.low_rank.keep_mask", kept):
        yield
    for handle in handles:
        handle.remove()


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found = write_tiny(scratch / "tiny"), Measured()
    with official(checkout, "lora", "clip.model", "clip.clip") as (lora, model, clip):
        for rank, targets, zero, lr in ((2, "qkv", True, 2e-4), (2, "qkv", False, 2e-4), (2, "qkv", True, 2e-2),
                                        (4, "qkvo", False, 2e-4)):  # fmt: skip
            theirs = official_model(scratch / "tiny", model.build_model)
            found.join(one_run(lora, theirs, clip.tokenize, backbone, rank, targets, zero, lr))
    return found


def one_run(
    lora: Any, theirs: Any, tokenize: Callable[..., Tensor], backbone: str, rank: int, targets: str, zero: bool,
    lr: float,
) -> Measured:  # fmt: skip
    """One setting: rank, which Linears, whether B begins at zero, and the learning rate."""
    torch.manual_seed(3)
    arguments = SimpleNamespace(encoder="both", position="all", params=list(targets), r=rank, alpha=1,
                                dropout_rate=DROPOUT, backbone="ViT-B/16")  # fmt: skip
    lora.apply_lora(arguments, theirs)
    lora.mark_only_lora_as_trainable(theirs)
    masks, trained = Masks(), {}
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            if not zero and name.endswith("_B"):
                nn.init.normal_(parameter, std=0.05)
            ours = our_name(name).replace("attn.proj.", "attn.out_proj.").replace("w_lora_", "")
            trained[ours] = parameter
    for name, module in theirs.named_modules():
        if hasattr(module, "w_lora_A"):
            module.dropout = Replay(our_name(name).replace("attn.proj", "attn.out_proj"), masks)
    theirs.train()
    scale = theirs.logit_scale.exp().detach()  # 100 in the official `main.py`, and here but for half precision

    def features(images: Tensor, names: Sequence[str]) -> Tensor:
        text = theirs.encode_text(tokenize([fill(GENERIC, name) for name in names]))
        image, text = theirs.encode_image(images), text / text.norm(dim=-1, keepdim=True)
        return scale * (image / image.norm(dim=-1, keepdim=True)) @ text.t()

    def step(images: Tensor, labels: Tensor) -> Step:
        logits = features(images, BASE)
        return logits, {"cross_entropy": F.cross_entropy(logits, labels)}

    def answers(images: Tensor, names: Sequence[str]) -> Tensor:
        theirs.eval()
        return features(images, names)

    linears = " and ".join(LINEARS[target] for target in targets)
    method = our_method("clip_lora", backbone, rank=rank, train=[f"both towers, blocks all, {linears}"])

    def next_step() -> None:
        masks.step += 1

    with replaying(method, masks):
        return compare(
            method,
            Official(trained, step, answers, after_step=next_step),
            lambda tensors: torch.optim.AdamW(tensors, lr=lr, weight_decay=1e-2, betas=(0.9, 0.999)),
        )


if __name__ == "__main__":
    differences = (
        "trained tensors in float32; W is left alone, where the official code without dropout writes B A into it and "
        "takes it out again before the backward pass, which puts gradients off by 3e-2"
    )
    run("clip_lora", "MaxZanella/CLIP-LoRA", differences, measure, wider=WIDER)
