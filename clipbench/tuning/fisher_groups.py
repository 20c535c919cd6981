"""The groups that FisherAdapTune freezes: which entries of the trained tensors are watched and decided on together.

Two ways to divide: slices of every tensor, as the published code does, and one group per matrix with the small tensors
of a block together, so that no group is too small for a statistic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clipbench.backbone.names import parse_name

SMALLEST = 256  # entries of a group, where there are as many to join
SLICE_FROM = 4096  # entries that a slice of a matrix must have


@dataclass(frozen=True)
class Piece:
    """A contiguous slice of a tensor along one dimension.

    Attributes:
        tensor: name of the tensor that the piece belongs to.
        dim: dimension along which the tensor is cut.
        start: first index of the piece along `dim`.
        stop: index after its last one.
        size: number of entries of the piece.
        whole: whether the piece is all of the tensor.
    """

    tensor: str
    dim: int
    start: int
    stop: int
    size: int
    whole: bool

    def of(self, tensor: Tensor) -> Tensor:
        """The view of the tensor (or of anything of its shape) that the piece means."""
        return tensor if self.whole else tensor.narrow(self.dim, self.start, self.stop - self.start)


@dataclass(frozen=True)
class Group:
    """Entries that are frozen together.

    Attributes:
        name: the tensor's name with the slice, as `text.proj[0:128]`; of joined tensors their place, as
            `text.blocks.0: small tensors`.
        pieces: the pieces of tensors that make up the group.
        tower: "image" or "text"; None where the tensors' names do not say or belong to both.
        block: number of the block, counted from the input; None outside the blocks or where several are joined.
        kind: the tensor's name inside its block or tower, or "small tensors".
    """

    name: str
    pieces: tuple[Piece, ...]
    tower: str | None
    block: int | None
    kind: str

    @property
    def size(self) -> int:
        """Number of entries in all pieces."""
        return sum(piece.size for piece in self.pieces)


def slice_bounds(length: int, slices: int) -> list[tuple[int, int]]:
    """Bounds of contiguous slices: integer parts of linspace(0, length, slices + 1).

    Args:
        length: size of the dimension that is cut, 1 or more.
        slices: wanted number of slices; there are at most `length`.

    Returns:
        First index and index after the last of every slice.
    """
    slices = min(slices, length)
    at = [length * i // slices for i in range(slices + 1)]
    return list(itertools.pairwise(at))


def sliced_groups(
    tensors: Mapping[str, Tensor], slices: int = 4, mode: Literal["row", "column"] = "row"
) -> list[Group]:
    """Every tensor in slices of its own, as published; tensors without a dimension form no group.

    Args:
        tensors: the trained tensors by name.
        slices: number of slices of a tensor; fewer where the dimension is shorter.
        mode: the dimension that is cut: "row", the first, or "column", the second (then a vector is one slice).

    Source: AtlasAnalyticsLab/FisherAdapTune@ebdb854 scripts/fisher_core.py; its cut of a stacked `attn.qkv` in q, k
    and v is what separate Linears give here.
    """
    groups = []
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or tensor.numel() == 0:
            continue
        dim = 0 if mode == "row" else 1
        pieces = _cut(name, tensor, slices, dim) if tensor.ndim > dim else [_whole(name, tensor)]
        groups += [_single(piece) for piece in pieces]
    return groups


def matrix_groups(tensors: Mapping[str, Tensor], slices: int = 1, smallest: int = SMALLEST) -> list[Group]:
    """One group per matrix; all smaller tensors (vectors, or fewer entries than `smallest`) of a block together.

    Args:
        tensors: the trained tensors by name.
        slices: number of slices that a matrix is cut into by rows, where each has 4,096 entries or more; else the
            matrix stays whole.
        smallest: number of entries that a group should have. The small tensors of a block that have fewer together join
            those of the next block of the tower, then what is left of the other tower.
    """
    groups: list[Group] = []
    small: dict[tuple[str | None, int | None], list[Piece]] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or tensor.numel() == 0:
            continue
        if tensor.ndim >= 2 and tensor.numel() >= smallest:
            several = slices if tensor.numel() // slices >= SLICE_FROM and len(tensor) >= slices else 1
            groups += [_single(piece) for piece in _cut(name, tensor, several, 0)]
        else:
            parsed = parse_name(name)
            small.setdefault((parsed.tower, parsed.block), []).append(_whole(name, tensor))
    order = sorted(small, key=lambda place: (str(place[0]), math.inf if place[1] is None else place[1]))
    joined: list[tuple[list[tuple[str | None, int | None]], list[Piece]]] = []
    for place in order:
        last = joined[-1] if joined else None
        if last and (sum(p.size for p in last[1]) < smallest):
            last[0].append(place)
            last[1].extend(small[place])
        else:
            joined.append(([place], list(small[place])))
    if len(joined) > 1 and sum(piece.size for piece in joined[-1][1]) < smallest:
        places, pieces = joined.pop()
        joined[-1][0].extend(places)
        joined[-1][1].extend(pieces)
    return groups + [_together(places, pieces) for places, pieces in joined]


def entries(groups: Iterable[Group]) -> int:
    """Number of entries of all groups together."""
    return sum(group.size for group in groups)


def _cut(name: str, tensor: Tensor, slices: int, dim: int) -> list[Piece]:
    bounds = slice_bounds(tensor.shape[dim], slices)
    each = tensor.numel() // tensor.shape[dim]
    return [Piece(name, dim, start, stop, each * (stop - start), len(bounds) == 1) for start, stop in bounds]


def _whole(name: str, tensor: Tensor) -> Piece:
    return Piece(name, 0, 0, len(tensor), tensor.numel(), True)


def _single(piece: Piece) -> Group:
    where = "" if piece.whole else f"[{':, ' * piece.dim}{piece.start}:{piece.stop}]"
    name = parse_name(piece.tensor)
    return Group(piece.tensor + where, (piece,), name.tower, name.block, name.inner)


def _together(places: Sequence[tuple[str | None, int | None]], pieces: Sequence[Piece]) -> Group:
    if len(pieces) == 1:
        return _single(pieces[0])
    blocks: dict[str | None, list[int | None]] = {}
    for tower, block in places:
        blocks.setdefault(tower, []).append(block)
    name = " and ".join(_named(tower, numbers) for tower, numbers in blocks.items())
    tower = places[0][0] if len(blocks) == 1 else None
    block = places[0][1] if len(places) == 1 else None
    return Group(f"{name}: small tensors", tuple(pieces), tower, block, "small tensors")


def _named(tower: str | None, blocks: Sequence[int | None]) -> str:
    inside = [str(block) for block in blocks if block is not None]
    parts = [f"{tower or 'other'}.blocks.{' and '.join(inside)}"] if inside else []
    return " and ".join(parts + [str(tower or "other")] * (None in blocks))
