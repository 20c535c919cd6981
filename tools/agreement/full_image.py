"""`full_image` against mlfoundations/wise-ft `src/models`: its `ImageClassifier` with the zero-shot head kept fixed.

The loop of `finetune` is a cross-entropy, gradients clipped at 1 and AdamW; both sides do the same. The bias of k has
no influence on the softmax, its gradient is rounding in both, and Adam moves it by the learning rate in either
direction: here ours leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.methods.base import Method
from tools.agreement.checkout import official, stand_in
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import Official, of_model
from tools.agreement.tiny import official_model, our_name, write_tiny

TRAIN = ["image tower, everything, except blocks.*.attn.k_proj.bias"]
TEMPLATES = stand_in("src.templates", one=[lambda name: f"a photo of a {name}."])


def as_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the image tower, or what has their shapes, by our names: q, k and v apart, patches as rows."""
    found = {}
    for theirs, tensor in tensors.items():
        name = our_name(theirs)
        if name == "image.conv1.weight":
            found["image.patch_embed.weight"] = tensor.flatten(1)
        elif "attn.in_proj_" in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace("in_proj_", f"{part}_proj.")] = third
        else:
            found[name] = tensor
    return {name: tensor for name, tensor in found.items() if not name.endswith("k_proj.bias")}


def trained(classifier: Any) -> dict[str, nn.Parameter]:
    """The image tower of an official classifier, by its own names."""
    return {f"visual.{name}": p for name, p in classifier.image_encoder.model.visual.named_parameters()}


@contextmanager
def tuned(checkout: Path, scratch: Path) -> Iterator[tuple[Method, Official, dict[str, Tensor], Measured]]:
    """Both sides after five steps, the official tensors before, and how far the sides are apart."""
    backbone = write_tiny(scratch / "tiny")
    datasets = stand_in("src.datasets", One=lambda *_, classnames, **__: SimpleNamespace(classnames=classnames))
    instead = [TEMPLATES, datasets, stand_in("src.args", parse_arguments=None)]
    instead.append(stand_in("src.models.eval", evaluate=None))
    with official(checkout, "src.models.modeling", "src.models.zeroshot", "clip.model", instead=instead) as modules:
        modeling, zeroshot, model = modules
        modeling.clip.load = lambda *_, **__: (official_model(scratch / "tiny", model.build_model), None, None)

        def build(names: Sequence[str]) -> Any:
            settings = SimpleNamespace(
                model="", device="cpu", cache_dir=None, template="one", train_dataset="One", data_location="",
                batch_size=1, classnames=list(names),
            )  # fmt: skip
            encoder = modeling.ImageEncoder(settings, keep_lang=True)
            head = zeroshot.get_zeroshot_classifier(settings, encoder.model).requires_grad_(False)
            return modeling.ImageClassifier(encoder, head)

        theirs = of_model(build, trained)
        theirs.as_ours = as_ours
        theirs.after_backward = lambda *_: clip(theirs.trained.values())
        method = our_method("full_image", backbone, train=TRAIN)
        before = {name: tensor.clone() for name, tensor in theirs.model.state_dict().items()}
        found = compare(
            method, theirs, lambda tensors: torch.optim.AdamW(tensors, lr=3e-5, weight_decay=0.1),
            after_backward=lambda method: clip(method.trainable.values()),
        )  # fmt: skip
        yield method, theirs, before, found


def clip(tensors: Any) -> None:
    """What the official loop does with gradients."""
    nn.utils.clip_grad_norm_(list(tensors), 1.0)


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    with tuned(checkout, scratch) as (_, _, _, found):
        return found


if __name__ == "__main__":
    differences = (
        "class features come from the text tower instead of a linear head that is trained as well; compared without "
        "the bias of k, whose gradient is rounding in both; epochs and warm-up are ours"
    )
    run("full_image", "mlfoundations/wise-ft", differences, measure)
