"""Whether tensors still have the values that they had: what was computed from them is kept for as long."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, MutableMapping

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_NUMBERS: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
_COUNT = itertools.count()


def state_of(tensors: Iterable[Tensor]) -> tuple[tuple[int, int, int], ...]:
    """Equal as long as these are the same tensors with the values that they had.

    Of each a number of its own (an address alone is given again once its tensor is gone), its address, and torch's
    version counter.
    """
    return tuple((_number(t), 0 if t.is_meta else t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def _number(tensor: Tensor) -> int:
    if tensor not in _NUMBERS:
        _NUMBERS[tensor] = next(_COUNT)
    return _NUMBERS[tensor]
