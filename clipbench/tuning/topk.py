"""Which entries are the smallest: exactly so many, ties by index, without a sort and mostly without a whole selection.

A step of an optimiser moves scores a little, so the cut of this step lies near the last one. A band around the last cut
is kept: count what lies below it, select inside it, and only if the cut is not in it select among all entries. Whatever
the band, the outcome is that of a stable sort.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.errors import ConfigError, MethodError

BAND_SHARE = 1 / 128  # of all entries that the band aims to hold
WIDE_SHARE = 1 / 16  # beyond this it is narrowed


def drop_count(keep: float, entries: int) -> int:
    """floor((1 - keep) n) with keep as the decimal fraction that it is written as.

    In floating point 1 - 0.9 is 0.0999..., which gives one too few wherever n is a multiple of 10.

    Args:
        keep: share of the entries that is kept, above 0 and at most 1.
        entries: n, the number of entries of which some are dropped.

    Raises:
        ConfigError: keep is not in (0, 1].
    """
    share = Fraction(str(keep))
    if not 0 < share <= 1:
        raise ConfigError(f"a keep ratio lies above 0 and not above 1, it is {keep}")
    return int((1 - share) * entries)


class ExactCut:
    """Finds the `drop` smallest of many values, again and again while these move slowly.

    Args:
        drop: number of entries that are dropped at every call; 0 keeps all.

    Attributes:
        cut: the largest value that the last call dropped; None before the first call, or where nothing is dropped.
        searches: number of calls in which the band did not hold the cut, so that all entries had to be searched.
    """

    def __init__(self, drop: int) -> None:
        self.drop = drop
        self.cut: float | None = None
        self.searches = 0
        self._half = 0.0

    def keep(self, values: Tensor) -> Tensor:
        """Which entries are kept: all but the `drop` smallest, among equal ones the first are dropped.

        Args:
            values: at least `drop` values, of any shape; on the meta device all are kept.

        Returns:
            A bool tensor of the shape of `values`, False at the dropped entries.

        Raises:
            MethodError: some values are not finite.
        """
        if self.drop == 0 or values.is_meta:
            return torch.ones_like(values, dtype=torch.bool)
        flat = values.detach().reshape(-1)
        cut, below, equal = self._near(flat) or self._anywhere(flat)
        wanted = self.drop - below  # of those equal to the cut
        if not 0 < wanted <= equal:
            raise MethodError("scores of a mask are not finite, so that no share of them can be kept")
        self.cut = cut
        mask = _compare(operator.gt, flat, cut)
        if wanted < equal:
            mask[_compare(operator.eq, flat, cut).nonzero().flatten()[wanted:]] = True
        return mask.view(values.shape)

    def _near(self, flat: Tensor) -> tuple[float, int, int] | None:
        """Cut, entries below it and entries equal to it, if the cut lies in the band."""
        if self.cut is None or self._half == 0.0:
            return None
        under = _compare(operator.lt, flat, self.cut - self._half)
        inside = _compare(operator.le, flat, self.cut + self._half).logical_xor_(under)
        below, band = _count(under), _pick(flat, inside)
        if not below < self.drop <= below + len(band):
            return None
        found = _kth(band, self.drop - below)
        shift = abs(found - self.cut)
        if len(band) > WIDE_SHARE * len(flat):
            self._half /= 2
        elif shift > self._half / 4:
            self._half = 4 * shift
        return found, below + _count(_compare(operator.lt, band, found)), _count(_compare(operator.eq, band, found))

    def _anywhere(self, flat: Tensor) -> tuple[float, int, int]:
        """The same from all entries; sets the width of the band for the next time."""
        self.searches += 1
        found, missed = _kth(flat, self.drop), self.cut
        further = min(self.drop + int(BAND_SHARE / 2 * len(flat)), len(flat))
        self._half = abs(_kth(flat, further) - found)
        if missed is not None:  # the scores move faster than that
            self._half = max(self._half, 2 * abs(found - missed))
        return found, _count(_compare(operator.lt, flat, found)), _count(_compare(operator.eq, flat, found))


# NumPy compares, picks and selects several times faster than torch does on one core of a CPU; elsewhere torch does.


def _seen(values: Tensor) -> np.ndarray | None:
    """The values as NumPy sees them, without a copy; None where it cannot."""
    return values.numpy() if values.device.type == "cpu" and values.dtype != torch.bfloat16 else None


def _compare(is_so: Callable[[Any, Any], Any], values: Tensor, bound: float) -> Tensor:
    array = _seen(values)
    if array is None:
        return is_so(values, bound)
    return torch.from_numpy(is_so(array, array.dtype.type(bound)))


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask)) if _seen(mask) is None else int(np.count_nonzero(mask.numpy()))


def _pick(values: Tensor, mask: Tensor) -> Tensor:
    array = _seen(values)
    return values[mask] if array is None else torch.from_numpy(array[mask.numpy()])


def _kth(values: Tensor, k: int) -> float:
    """The k-th smallest value, k from 1."""
    array = _seen(values)
    if array is None:
        return float(values.kthvalue(k).values)
    return float(np.partition(array, k - 1)[k - 1])
