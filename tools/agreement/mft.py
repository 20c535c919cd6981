"""`mft` against Ming-K9/MFT `modeling_llama.py`: its masked Linear, which there stands in a language model.

The two classes are taken out of that file, which as a whole needs the repository's own copy of Transformers, and put in
the place of the Linears of our towers; the other side has our masks there. Runs: normal scores, keep 0.9 and 0.7, in
the image tower and in both, AdamW at 2e-5 and 1e-3.
"""

from __future__ import annotations

import ast
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clipbench.methods.mft import targets
from clipbench.randomness import torch_generator
from tools.agreement.compare import Measured, Tally, compare, our_method, our_step, run
from tools.agreement.side import Official
from tools.agreement.tiny import write_tiny

FILE = "transformers/src/transformers/models/llama/modeling_llama.py"
CLASSES = ("GetSubnetSparsity", "SupermaskLinearSparsity")
IMAGE, BOTH = "image tower, blocks all, Linears", "both towers, blocks all, Linears"
RUNS = ((0.9, 2e-5, IMAGE), (0.7, 2e-5, BOTH), (0.9, 1e-3, IMAGE), (0.7, 1e-3, BOTH))


def masked_linear(checkout: Path) -> Any:
    """The official class."""
    tree = ast.parse((checkout / FILE).read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in CLASSES]
    space: dict[str, Any] = {"autograd": torch.autograd, "nn": nn, "F": F, "torch": torch, "math": math}
    exec(compile(tree, FILE, "exec"), space)
    return space[CLASSES[1]]


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP, in every run."""
    backbone, found, tally = write_tiny(scratch / "tiny"), Measured(), Tally()
    kind = masked_linear(checkout)
    for keep, lr, train in RUNS:
        found.join(one_run(kind, backbone, keep, lr, train, tally))
    found.notes.append(
        f"the masked Linear alone is official, in our towers: of the gates {tally['turned']} turned, "
        f"{tally['differ']} differ"
    )
    return found


def one_run(kind: Any, backbone: str, keep: float, lr: float, train: str, tally: Tally) -> Measured:
    """One setting; counts gates that turned and gates that differ."""
    frame, modules = our_method("zero_shot", backbone), dict[str, Any]()
    linears, _ = targets(frame.backbone, [train])
    for name, linear in linears.items():
        put = kind(linear.in_features, linear.out_features, sparsity=keep)
        put.weight.data.copy_(linear.weight)
        put.bias.data.copy_(linear.bias)
        put.bias.requires_grad_(False)
        put.scores.data.normal_(0, 0.02, generator=torch_generator(1, name))
        modules[f"{name}.weight.scores"] = put
        frame.backbone.replace_linear(name, lambda old: put)  # noqa: B023 - called at once
    first = {name: module.get_subnet_mask().bool() for name, module in modules.items()}

    def count(method: Any) -> None:
        for name, module in modules.items():
            gate = module.get_subnet_mask().bool()
            tally.see("turned", gate != first[name])
            tally.see("differ", gate != method.masks.masks[name.removesuffix(".scores")].gate().bool())

    trained = {name: module.scores for name, module in modules.items()}
    return compare(
        our_method("mft", backbone, train=[train], keep=keep),
        Official(trained, partial(our_step, frame), frame),
        lambda tensors: torch.optim.AdamW(tensors, lr=lr, weight_decay=0.0),
        finish=count,
    )


if __name__ == "__main__":
    differences = (
        "the papers tune language models, CLIP is ours; exactly floor((1 - keep) n) entries are dropped, where the "
        "official code drops one too few for some n; ties are resolved by index"
    )
    run("mft", "Ming-K9/MFT", differences, measure)
