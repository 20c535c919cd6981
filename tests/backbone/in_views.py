"""Modules and measures for tests of views."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone

PLAN = PromptPlan([[62, 1, 2, 63], [62, 1, 3, 4, 63], [62, 1, 5, 63]])
NAMES = ["text.blocks.0.mlp.proj.bias", "image.ln_post.weight", "image.blocks.1.attn.q_proj.weight", "logit_scale"]


class Scaled(nn.Module):
    """A Linear with a trained factor and optional dropout."""

    def __init__(self, linear: nn.Linear, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.linear(self.dropout(x))


class Doubled(nn.Module):
    """A Linear at twice its outputs, which can be written as a Linear; counts how often it was."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.factor, self.written = linear, nn.Parameter(torch.tensor(2.0)), 0

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.linear(x)

    def merged(self) -> nn.Linear:
        self.written += 1
        plain = copy.deepcopy(self.linear)
        with torch.no_grad():
            plain.weight.mul_(self.factor)
            plain.bias.mul_(self.factor)
        return plain


class Halved(nn.Module):
    """A tensor seen at half its size, by a trained factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, tensor: Tensor) -> Tensor:
        return tensor * self.factor


def pixels(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def features(backbone: Backbone) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return backbone.encode_image(pixels(backbone.spec.image_size)), backbone.encode_text(PLAN)


def equal(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def train(backbone: Backbone, parameters: list[nn.Parameter], steps: int = 3) -> None:
    """Steps that move everything trained."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.01)
    images = pixels(backbone.spec.image_size)
    for _ in range(steps):
        logits = backbone.logits(backbone.encode_image(images), backbone.encode_text(PLAN))
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.tensor([0, 2])).backward()
        optimizer.step()
