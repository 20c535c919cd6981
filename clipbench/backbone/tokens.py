"""Hidden states between two blocks, and what a hook may do with them: read, replace, insert or drop tokens.

A hook is a function from tokens to tokens, given to a tower as `before_block={i: hook}` or `after_block={i: hook}`.
It may carry two marks (see `hook`): `per_class` where it treats classes differently, so that the text tower shares no
prefix; `every_position` where the last block must be computed for all positions, not only for the pooled one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.errors import BackboneError

Hook = Callable[["Tokens"], "Tokens"]
Hooks = Mapping[int, Hook]
Function = TypeVar("Function", bound=Callable)  # type: ignore[type-arg]


def hook(*, per_class: bool = False, every_position: bool = False) -> Callable[[Function], Function]:
    """Mark a function as a hook of a tower.

    Args:
        per_class: it gives classes different tokens at the same position (text tower: no shared prefix then).
        every_position: after the last block it wants every position, not only the pooled one.
    """

    def mark(function: Function) -> Function:
        function.per_class = per_class  # type: ignore[attr-defined]
        function.every_position = every_position  # type: ignore[attr-defined]
        return function

    return mark


def any_marked(hooks: Hooks | None, mark: str) -> bool:
    """Whether any hook carries a mark."""
    return any(getattr(function, mark, False) for function in (hooks or {}).values())


class Tokens(ABC):
    """Hidden states at one depth of a tower, with the geometry that attention needs.

    Attributes:
        rows: the hidden states; images (B, L, W), text one flat matrix (N, W).
    """

    rows: Tensor

    @abstractmethod
    def with_rows(self, rows: Tensor) -> Tokens:
        """The same geometry with other hidden states of the same shape (for adapters)."""

    @abstractmethod
    def read(self, start: int, count: int) -> Tensor:
        """Hidden states of positions `start ... start + count - 1`."""

    @abstractmethod
    def replace(self, start: int, values: Tensor) -> Tokens:
        """Overwrite positions from `start` by `values`: (n, W) for all, or one (n, W) per image or class."""

    @abstractmethod
    def insert(self, at: int, values: Tensor) -> Tokens:
        """Put `values` in front of position `at`; later positions move on."""

    @abstractmethod
    def drop(self, start: int, count: int) -> Tokens:
        """Remove `count` positions from `start`; later positions move up."""

    @abstractmethod
    def select(self, x: Tensor) -> Tensor:
        """Those rows of `x`, shaped like `rows`, that pooling reads."""

    @abstractmethod
    def pooled_with(self, rows: Tensor) -> Tokens:
        """Tokens of selected rows: all that is left after the last block."""

    def pooled(self) -> Tokens:
        """Only the rows that pooling reads: what an after-hook of the last block sees."""
        return self.pooled_with(self.select(self.rows))

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, pooled: bool) -> Tensor:
        """Attention within this geometry.

        Args:
            q: queries of all rows, or of the pooled rows.
            k: keys of all rows.
            v: values of all rows.
            heads: number of heads.
            pooled: whether `q` holds the pooled rows only.
        """


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., L, W) as (..., heads, L, W / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """(..., heads, L, d) as (..., L, heads * d)."""
    return x.transpose(-3, -2).flatten(-2)


class ImageTokens(Tokens):
    """Tokens of a batch of images.

    Args:
        rows: (B, L, W).
        kept: positions that pooling reads: [0] for a class token, the patches for an average.
    """

    def __init__(self, rows: Tensor, kept: tuple[int, ...]) -> None:
        self.rows, self.kept = rows, kept

    @property
    def length(self) -> int:
        """Number of positions L."""
        return self.rows.shape[1]

    def with_rows(self, rows: Tensor) -> ImageTokens:
        """See `Tokens`."""
        return ImageTokens(rows, self.kept)

    def read(self, start: int, count: int) -> Tensor:
        """(B, count, W)."""
        self._check("read", start, start + count)
        return self.rows[:, start : start + count]

    def _values(self, values: Tensor) -> Tensor:
        """(n, W) or (B, n, W) as (B, n, W) of our dtype."""
        return values.to(self.rows.dtype).expand(self.rows.shape[0], -1, -1)

    def _check(self, what: str, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.length:
            raise BackboneError(f"cannot {what} positions {start} to {end - 1} of {self.length} image tokens")

    def replace(self, start: int, values: Tensor) -> ImageTokens:
        """See `Tokens`."""
        new = self._values(values)
        end = start + new.shape[1]
        self._check("replace", start, end)
        return self.with_rows(torch.cat([self.rows[:, :start], new, self.rows[:, end:]], dim=1))

    def insert(self, at: int, values: Tensor) -> ImageTokens:
        """See `Tokens`; `at = length` appends."""
        new = self._values(values)
        self._check("insert at", at, at)
        rows = torch.cat([self.rows[:, :at], new, self.rows[:, at:]], dim=1)
        return ImageTokens(rows, tuple(p + new.shape[1] * (p >= at) for p in self.kept))

    def drop(self, start: int, count: int) -> ImageTokens:
        """See `Tokens`."""
        end = start + count
        self._check("drop", start, end)
        kept = tuple(p - count * (p >= end) for p in self.kept if not start <= p < end)
        if not kept:
            raise BackboneError(f"cannot drop image tokens {start} to {end - 1}: pooling reads nothing else")
        return ImageTokens(torch.cat([self.rows[:, :start], self.rows[:, end:]], dim=1), kept)

    def select(self, x: Tensor) -> Tensor:
        """Rows of `x` (B, L, W) that pooling reads, (B, n, W)."""
        first, last = self.kept[0], self.kept[-1]
        if last - first + 1 == len(self.kept):
            return x[:, first : last + 1]
        return x[:, list(self.kept)]

    def pooled_with(self, rows: Tensor) -> ImageTokens:
        """See `Tokens`."""
        return ImageTokens(rows, tuple(range(len(self.kept))))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, pooled: bool) -> Tensor:
        """See `Tokens`."""
        return merge_heads(
            F.scaled_dot_product_attention(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads))
        )
