"""Where every token lies when the text tower runs: one shared prefix, then the suffixes of the classes in rows.

A flat matrix holds the prefix first, then `rows x row_length` positions. Attention of a suffix sees the prefix and,
causally, its own class. Layouts are plain NumPy; inserting, dropping and replacing tokens gives a new layout and the
index that carries the old matrix over.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from clipbench.errors import BackboneError

Index = npt.NDArray[np.int64]


def first_fit(lengths: Index, row_length: int) -> tuple[Index, Index, int]:
    """Put pieces into rows, longest first, each into the first row with room.

    Args:
        lengths: (C,) positions each piece needs, at most `row_length`.
        row_length: positions of a row.

    Returns:
        Row of each piece (C,), its first position there (C,), and the number of rows.
    """
    row, start = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    used: list[int] = []
    first_open = 0
    smallest = int(lengths.min())
    for piece in np.argsort(-lengths, kind="stable"):
        need = int(lengths[piece])
        while first_open < len(used) and used[first_open] + smallest > row_length:
            first_open += 1  # full for ever
        home = next((r for r in range(first_open, len(used)) if used[r] + need <= row_length), len(used))
        if home == len(used):
            used.append(0)
        row[piece], start[piece] = home, used[home]
        used[home] += need
    return row, start, len(used)


class Layout:
    """Where the tokens of every class lie.

    Args:
        lengths: (C,) positions of each class, the prefix counted.
        pooled: (C,) the position whose output is the class's feature.
        prefix: leading positions that all classes share, stored once.
        row_length: wished length of a row.
        causal: whether a token sees only earlier ones.

    Attributes:
        rows, row_length: size of the packed part.
        size: rows of the flat matrix, `prefix + rows * row_length`.
        start: (C,) flat index of each class's first own token.
    """

    def __init__(self, lengths: Index, pooled: Index, prefix: int, row_length: int, causal: bool) -> None:
        self.lengths, self.pooled, self.prefix, self.causal = lengths, pooled, prefix, causal
        self.wished_row_length = row_length
        own = lengths - prefix
        self.row_length = max(row_length, int(own.max()))
        self.row, first, self.rows = first_fit(own, self.row_length)
        self.start = prefix + self.row * self.row_length + first
        self.size = prefix + self.rows * self.row_length
        self.edited = lru_cache(maxsize=64)(self._edited)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.lengths)

    @cached_property
    def table(self) -> Index:
        """(C, longest) flat index of every position of every class; -1 behind its end."""
        position = np.arange(int(self.lengths.max()))
        flat = np.where(position < self.prefix, position, self.start[:, None] + position - self.prefix)
        return np.where(position < self.lengths[:, None], flat, -1)

    @cached_property
    def class_of(self) -> Index:
        """(size,) class of every flat position; -1 for the prefix and for padding."""
        out = np.full(self.size, -1, np.int64)
        for c in range(self.classes):
            out[self.start[c] : self.start[c] + self.lengths[c] - self.prefix] = c
        return out

    @cached_property
    def position_of(self) -> Index:
        """(size,) position in its sequence of every flat position; 0 for padding."""
        out = np.zeros(self.size, np.int64)
        out[: self.prefix] = np.arange(self.prefix)
        for c in range(self.classes):
            own = self.lengths[c] - self.prefix
            out[self.start[c] : self.start[c] + own] = self.prefix + np.arange(own)
        return out

    @cached_property
    def pooled_flat(self) -> Index:
        """(C,) flat index of each class's pooled token."""
        return self.table[np.arange(self.classes), self.pooled]

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(rows, row_length, prefix + row_length) whether a packed position sees a key; padding sees itself."""
        classes = self.class_of[self.prefix :].reshape(self.rows, self.row_length)
        same = (classes[:, :, None] == classes[:, None, :]) & (classes[:, :, None] >= 0)
        if self.causal:
            same &= np.tril(np.ones((self.row_length, self.row_length), bool))
        same |= np.eye(self.row_length, dtype=bool)
        return np.concatenate([np.ones((self.rows, self.row_length, self.prefix), bool), same], axis=2)

    @cached_property
    def slots(self) -> tuple[Index, Index, npt.NDArray[np.bool_]]:
        """For the last block, which asks only for pooled tokens: a few query slots for every row.

        Returns:
            Class in each slot (rows * m,), slot of each class (C,), mask (rows, m, prefix + row_length).
        """
        members: list[list[int]] = [[] for _ in range(self.rows)]
        for c in range(self.classes):
            members[self.row[c]].append(c)
        most = max(map(len, members))
        filled = np.array([group + group[:1] * (most - len(group)) for group in members], np.int64)
        slot_of = np.zeros(self.classes, np.int64)
        for r, group in enumerate(members):
            slot_of[group] = r * most + np.arange(len(group))
        inside = self.pooled_flat[filled] - self.prefix - np.arange(self.rows)[:, None] * self.row_length
        return filled.reshape(-1), slot_of, self.mask[np.arange(self.rows)[:, None], inside]

    def values_index(self, tokens: npt.NDArray[np.int64]) -> Index:
        """Spread (C, longest) values over the flat matrix; padding gets the value of the first token."""
        out = np.full(self.size, tokens[0, 0], np.int64)
        held = self.table >= 0
        out[self.table[held]] = tokens[held]
        return out

    def _edited(self, kind: str, at: int, count: int, per_class: bool) -> tuple[Layout, Index]:
        """A layout after one edit, and where each of its rows comes from.

        Args:
            kind: "replace", "insert" or "drop".
            at: first position.
            count: number of positions.
            per_class: whether the new values differ by class.

        Returns:
            The new layout and (size,) indices into the old rows followed by the new values
            (`count` of them, or `C * count` when they differ by class).

        Raises:
            BackboneError: positions that some class does not have, the pooled token dropped, or values per class
                for positions that all classes share.
        """
        shortest = int(self.lengths.min())
        end = at if kind == "insert" else at + count
        if at < 0 or count < 1 or end > shortest:
            raise BackboneError(f"cannot {kind} {count} tokens at position {at}: the shortest class has {shortest}")
        if per_class and at < self.prefix and kind != "drop":
            raise BackboneError(
                f"cannot {kind} tokens per class at position {at}, which all classes share: declare the hook per class"
            )
        values = self.size + np.arange(count * (self.classes if per_class else 1))
        values = values.reshape(-1, count).repeat(1 if per_class else self.classes, axis=0)
        if kind == "replace":
            table = self.table.copy()
            table[:, at:end] = values
            return self, self.values_index(table)
        if kind == "insert":
            if self.causal and at > int(self.pooled.min()):
                raise BackboneError(f"tokens inserted at position {at} come after an end of text and cannot be seen")
            table = np.concatenate([self.table[:, :at], values, self.table[:, at:]], axis=1)
            shared = not per_class and at <= self.prefix
            lengths, pooled = self.lengths + count, self.pooled + count * (self.pooled >= at)
            prefix = self.prefix + (count if shared else 0)
        else:
            if ((self.pooled >= at) & (self.pooled < end)).any():
                raise BackboneError(f"cannot drop positions {at} to {end - 1}: one is the token that is pooled")
            table = np.delete(self.table, np.s_[at:end], axis=1)
            lengths, pooled = self.lengths - count, self.pooled - count * (self.pooled >= end)
            prefix = self.prefix - max(0, min(end, self.prefix) - at)
        layout = Layout(lengths, pooled, prefix, self.wished_row_length, self.causal)
        return layout, layout.values_index(table)
