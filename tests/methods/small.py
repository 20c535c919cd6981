"""What the tests of methods on the small backbone share: class names, images, other values for what is trained."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.backbone.clip import Backbone
from clipbench.bench.plan import make_plan
from clipbench.bench.run import run_cell
from clipbench.data.task import TestSplit
from clipbench.methods.base import Method
from clipbench.records.store import Record
from clipbench.testing.subject import Subject

BASE = ("annual crop land", "forest", "golden retriever")
NOVEL = ("2012 acura rl sedan", "sea_or_lake")
TESTS = (TestSplit("base", BASE, True), TestSplit("novel", NOVEL, False))


def pixels(count: int = 3, size: int = 32, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random normalised images (count, 3, size, size)."""
    return torch.randn((count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=dtype)


def images(method: Method, dtype: torch.dtype = torch.float32) -> Tensor:
    """Two of them, of the size and for the dtype of a method."""
    return pixels(2, method.backbone.spec.image_size, torch.float32).to(dtype)


@torch.no_grad()
def scores(method: Method, dtype: torch.dtype = torch.float32) -> Tensor:
    """Logits of these for the classes that were trained on."""
    return method.eval().logits(method.image_features(images(method, dtype)), method.class_features(method.classnames))


def learn(method: Method, size: float = 0.1) -> Method:
    """Give every trained tensor other values."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in method.trainable.values():
            tensor.add_(size * torch.randn(tensor.shape, generator=generator))
    return method


def cosine_logits(backbone: Backbone, v: Tensor, t: Tensor) -> Tensor:
    """s cos(v, t), (B, C), of image features (B, D) and class features (C, D)."""
    return backbone.logit_scale.exp() * F.normalize(v, dim=1) @ F.normalize(t, dim=1).T


def distillation(t: Tensor, t0: Tensor, weight: float) -> float:
    """weight (1 - mean_c cos(t_c, t0_c)), class by class."""
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(t.detach(), t0.detach(), strict=True)]
    return weight * (1 - sum(cosines) / len(cosines))


def record_of_one_shot(subject: Subject) -> Record:
    """The record of its cell with one image a class."""
    request = subject.request()
    (planned,) = make_plan(dataclasses.replace(request, shots=1), subject.folder / "runs").cells
    record = run_cell(planned, subject.folder / "runs").record
    assert record is not None
    assert record.ok, record.error
    return record
