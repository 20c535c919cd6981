"""The hash of the loaded tensors: what a record knows a backbone by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, independent of their order.

    Args:
        tensors: name and tensor; name, type, shape and bytes count.

    Returns:
        64 hexadecimal digits.
    """
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        data = tensor.detach().cpu().contiguous()
        whole.update(f"{name}\x1f{data.dtype}\x1f{tuple(data.shape)}\x1f".encode())
        whole.update(data.reshape(-1).view(torch.uint8).numpy().data if data.numel() else b"")
    return whole.hexdigest()
