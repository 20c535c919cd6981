"""Random weights for `ARCH/random`: for counting, timing and tests; every tensor from a generator of its own name."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clipbench.randomness import torch_generator

SEED = 0


def random_tensors(module: nn.Module, tower: str) -> dict[str, Tensor]:
    """Random tensors for all parameters of a tower, the same on every machine.

    Biases and norms are not trivial either, so that a test that forgets one of them fails.

    Args:
        module: the tower; only names and shapes count, so it may lie on the meta device.
        tower: "image" or "text", part of the key.

    Returns:
        Name and float32 tensor.
    """
    out = {}
    for name, parameter in module.named_parameters():
        generator = torch_generator(SEED, "weights", tower, name)
        mean, deviation = 0.0, _deviation(name, parameter)
        if name.rpartition(".")[2] == "weight" and parameter.ndim == 1:  # the gain of a norm
            mean, deviation = 1.0, 0.1
        elif name.endswith(("ls_1", "ls_2")):
            mean, deviation = 0.5, 0.1
        out[name] = torch.empty(parameter.shape).normal_(mean, deviation, generator=generator)
    return out


def _deviation(name: str, parameter: nn.Parameter) -> float:
    """Standard deviation that keeps activations of order one."""
    if name.startswith("proj") and parameter.ndim == 2:
        return 1 / math.sqrt(parameter.shape[0])
    if name.endswith(("token_embedding.weight", "positional_embedding", "class_embedding")):
        return 0.3
    return 1 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.1
