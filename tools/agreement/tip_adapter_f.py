"""`tip_adapter_f` against gaopengcuhk/Tip-Adapter `main.py` and `utils.py`.

`build_cache_model` makes the keys of both sides' images, `run_tip_adapter_F` takes each step: its own loop over one
batch, with an optimiser that does not move, so that both sides can be moved alike. The search of alpha and beta is left
out, half precision is float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipbench.tuning.feature_bank import FeatureBank, encoded
from tools.agreement.checkout import official, stand_in
from tools.agreement.compare import Measured, compare, our_method, run
from tools.agreement.side import Official, Step
from tools.agreement.tiny import BASE, SIZE, official_model, write_tiny

PASSES, SHOTS, ALPHA, BETA = 10, 3, 1.17, 1.0
TEMPLATE = ("a photo of a {}.",)


class Cached:
    """The images of the cache, draw order, a fresh crop a pass: uint8 for ours, floats in [0, 1] for theirs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        shape = (PASSES, SHOTS * len(BASE), 3, SIZE, SIZE)
        self.pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        self.labels = torch.arange(len(BASE)).repeat_interleave(SHOTS)
        self._next = 0

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass, as the official loader gives it."""
        pixels, self._next = self.pixels[self._next], self._next + 1
        yield pixels.float() / 255, self.labels

    def ours(self) -> list[Any]:
        """All passes, as ours does."""
        return [SimpleNamespace(image=pixels, label=self.labels) for pixels in self.pixels]


class Adapter:
    """Stands in for the Linear that holds the keys: the same product, with keys that stay between the calls."""

    def __init__(self, keys: nn.Parameter) -> None:
        self.keys, self.weight = keys, keys

    to = cuda = train = eval = lambda self, *_: self

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser takes."""
        return [self.keys]

    def __call__(self, features: Tensor) -> Tensor:
        """The affinities of features."""
        return F.linear(features, self.keys.flatten(0, 1))


class Still:
    """An optimiser and a schedule that do nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.param_groups = [{"lr": 0.0}]

    step = zero_grad = lambda self: None

    def get_last_lr(self) -> list[float]:
        """What is printed."""
        return [0.0]


class Theirs:
    """The official functions on the tiny CLIP.

    Attributes:
        keys: (C, S, D), trained.
        seen: logits that were counted, in order.
    """

    def __init__(self, main: Any, tower: nn.Module, cache: Cached, folder: Path) -> None:
        self.main, self.tower = main, tower
        self.seen: list[Tensor] = []
        self.losses: list[tuple[Tensor, Tensor]] = []
        self.config = {"load_cache": False, "augment_epoch": PASSES, "cache_dir": str(folder), "shots": SHOTS}
        self.config |= {"lr": 0.0, "train_epoch": 1, "init_beta": BETA, "init_alpha": ALPHA}
        with mock.patch.object(Tensor, "half", Tensor.float):
            keys, self.values = main.build_cache_model(self.config, tower, cache)
        self.keys = nn.Parameter(keys.T.unflatten(0, (len(BASE), SHOTS)).clone())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """The loss and all logits are noted; what would move or search does not."""
        losses = SimpleNamespace(**{**vars(F), "cross_entropy": self._loss})
        linear = SimpleNamespace(Linear=lambda *_, **__: Adapter(self.keys), Parameter=lambda keys: self.keys)
        with (
            mock.patch.object(self.main, "F", losses),
            mock.patch.object(self.main, "nn", linear),
            mock.patch.object(self.main, "cls_acc", self._count),
            mock.patch.object(self.main, "search_hp", return_value=(BETA, ALPHA)),
            mock.patch.object(torch.optim, "AdamW", Still),
            mock.patch.object(torch.optim.lr_scheduler, "CosineAnnealingLR", Still),
            mock.patch.object(torch, "save"),
            mock.patch.object(torch, "load", return_value=self.keys),
        ):
            yield

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.losses.append((logits, F.cross_entropy(logits, labels)))
        return torch.zeros((), requires_grad=True)  # its own backward pass goes nowhere: `compare` takes it

    def _count(self, logits: Tensor, labels: Tensor) -> float:
        self.seen.append(logits)
        return 1.0

    def _unit(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.tower.encode_image(images)  # type: ignore[operator]
            unit: Tensor = features / features.norm(dim=-1, keepdim=True)
        return unit

    def step(self, images: Tensor, labels: Tensor) -> Step:
        """One batch of `run_tip_adapter_F`."""
        weights, nothing = self.main.clip_classifier(list(BASE), TEMPLATE, self.tower), self._unit(images)
        keys = self.keys.detach().flatten(0, 1).T
        with self._watched():
            self.main.run_tip_adapter_F(
                self.config, keys, self.values, nothing, labels, nothing, labels, weights, self.tower,
                [(images, labels)],
            )  # fmt: skip
        logits, loss = self.losses[-1]
        return logits, {"cross_entropy": loss}

    def answers(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Of `run_tip_adapter` with the keys of now; for other classes its zero-shot CLIP."""
        weights, unit = self.main.clip_classifier(list(names), TEMPLATE, self.tower), self._unit(images)
        base = tuple(names) == BASE
        values = self.values if base else torch.zeros(len(self.values), len(names))
        self.seen.clear()
        with self._watched():
            keys = self.keys.detach().flatten(0, 1).T
            self.main.run_tip_adapter(self.config, keys, values, unit, None, unit, None, weights)
        return self.seen[-1] if base else self.seen[0]


def write_with_scale_100(folder: Path) -> str:
    """The tiny CLIP with the scale that the official code has as a number."""
    name, file = write_tiny(folder), folder / "open_clip_model.safetensors"
    save_file(load_file(file) | {"logit_scale": torch.tensor(math.log(100))}, file)
    return name


@contextmanager
def both(checkout: Path, scratch: Path, recipe: str) -> Iterator[tuple[Any, Theirs, Measured]]:
    """Ours and theirs, each with the cache that it made itself, and how far these are apart."""
    method: Any = our_method(recipe, write_with_scale_100(scratch / "tiny"), alpha=ALPHA, beta=BETA, cache_size=SHOTS)
    datasets = (stand_in("datasets", build_dataset=None), stand_in("datasets.utils", build_data_loader=None))
    with official(checkout, "main", "clip.model", instead=datasets) as (main, model):
        tower = official_model(scratch / "tiny", model.build_model).requires_grad_(False)
        cache, found = Cached(), Measured()
        theirs = Theirs(main, tower, cache, scratch)
        features, labels = encoded(method.backbone, cache.ours())
        method.fill(FeatureBank(features.unflatten(0, (PASSES, -1)), labels[: len(cache.labels)]))
        found.see("tensors", method.keys, theirs.keys)
        yield method, theirs, found


def measure(checkout: Path, scratch: Path) -> Measured:
    """Both sides on the tiny CLIP."""
    with both(checkout, scratch, "tip_adapter_f") as (method, theirs, found):
        found.join(
            compare(
                method,
                Official({"keys": theirs.keys}, theirs.step, theirs.answers),
                lambda tensors: torch.optim.AdamW(tensors, lr=1e-3, eps=1e-4),
            )
        )
    return found


if __name__ == "__main__":
    run(
        "tip_adapter_f",
        "gaopengcuhk/Tip-Adapter",
        "the last epoch, not the best one on test images; no search of alpha and beta on val images; a short "
        "last batch is dropped; float32 instead of half; CLIP's scale instead of the number 100; zero-shot for "
        "novel classes",
        measure,
    )
