"""Tokens of a class list: one shared prefix and packed suffixes, and attention over them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.backbone.packing import Layout
from clipbench.backbone.tokens import Tokens, merge_heads, split_heads
from clipbench.errors import BackboneError


class Geometry:
    """A layout as tensors of one device; kept with the plan or with the layout that an edit gave."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout, self.device = layout, device
        self._made: dict[Any, Any] = {}

    def index(self, name: str) -> Tensor:
        """An index array of the layout as a tensor."""
        if name not in self._made:
            if name in ("slot_class", "slot_of"):
                array = self.layout.slots[name == "slot_of"]
            else:
                array = getattr(self.layout, name)
            self._made[name] = torch.from_numpy(array).to(self.device)
        return self._made[name]

    def mask(self, pooled: bool, dtype: torch.dtype) -> Tensor | None:
        """(rows, 1, queries, keys) additive mask, or None where everything is seen."""
        key = ("mask", pooled, dtype)
        if key not in self._made:
            seen = self.layout.slots[2] if pooled else self.layout.mask
            additive = None
            if not seen.all():
                zero = torch.zeros(seen.shape, dtype=dtype, device=self.device)
                additive = zero.masked_fill_(~torch.from_numpy(seen).to(self.device), float("-inf")).unsqueeze(1)
            self._made[key] = additive
        return self._made[key]

    def edited(self, kind: str, at: int, count: int, per_class: bool) -> tuple[Geometry, Tensor]:
        """The geometry after an edit, and the index that carries the rows over."""
        key = (kind, at, count, per_class)
        if key not in self._made:
            layout, index = self.layout.edited(kind, at, count, per_class)
            geometry = self if layout is self.layout else Geometry(layout, self.device)
            self._made[key] = geometry, torch.from_numpy(index).to(self.device)
        return self._made[key]


class TextTokens(Tokens):
    """Tokens of a class list: the shared prefix first, then the suffixes packed into rows.

    Args:
        rows: (N, W), `layout.prefix` rows of the prefix, then `layout.rows * layout.row_length` packed positions; or
            (B, N, W), the class list once for each of B images whose prompts differ. These can be read, not edited.
        geometry: where what lies.
    """

    def __init__(self, rows: Tensor, geometry: Geometry) -> None:
        self.rows, self.geometry = rows, geometry

    @property
    def layout(self) -> Layout:
        """Prefix, class and position of each row (`class_of`, `position_of`)."""
        return self.geometry.layout

    def with_rows(self, rows: Tensor) -> TextTokens:
        """See `Tokens`."""
        return TextTokens(rows, self.geometry)

    def read(self, start: int, count: int) -> Tensor:
        """(count, W) where all classes share the positions, else (C, count, W); each with B in front for B images."""
        layout = self.layout
        if not 0 <= start < start + count <= int(layout.lengths.min()):
            raise BackboneError(
                f"cannot read {count} text tokens at {start}: the shortest class has {layout.lengths.min()}"
            )
        if start + count <= layout.prefix:
            return self.rows[..., start : start + count, :]
        return self.rows[..., self.geometry.index("table")[:, start : start + count], :]

    def _edit(self, kind: str, at: int, count: int, values: Tensor | None) -> TextTokens:
        if self.rows.ndim == 3:
            raise BackboneError(f"cannot {kind} text tokens where every image has prompts of its own")
        geometry, index = self.geometry.edited(kind, at, count, values is not None and values.ndim == 3)
        rows = self.rows
        if values is not None:
            if values.ndim == 3 and values.shape[0] != self.layout.classes:
                raise BackboneError(
                    f"values for {values.shape[0]} classes were given, but there are {self.layout.classes}"
                )
            rows = torch.cat([rows, values.reshape(-1, values.shape[-1]).to(rows.dtype)])
        return TextTokens(rows.index_select(0, index), geometry)

    def replace(self, start: int, values: Tensor) -> TextTokens:
        """See `Tokens`; values of (C, n, W) need a hook declared per class."""
        return self._edit("replace", start, values.shape[-2], values)

    def insert(self, at: int, values: Tensor) -> TextTokens:
        """See `Tokens`; the position of the end of text moves with it."""
        return self._edit("insert", at, values.shape[-2], values)

    def drop(self, start: int, count: int) -> TextTokens:
        """See `Tokens`."""
        return self._edit("drop", start, count, None)

    def select(self, x: Tensor) -> Tensor:
        """Rows of `x` (N, W) that pooling reads, (C, W) in class order; with B in front for B images."""
        return x.index_select(-2, self.geometry.index("pooled_flat"))

    def pooled_with(self, rows: Tensor) -> PooledText:
        """See `Tokens`."""
        return PooledText(rows)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, pooled: bool) -> Tensor:
        """See `Tokens`."""
        layout, p = self.layout, self.layout.prefix
        keys, values = (self._with_prefix(x, heads) for x in (k, v))
        if pooled:
            slots = q.index_select(-2, self.geometry.index("slot_class")).unflatten(-2, (layout.rows, -1))
            out = self._attention(split_heads(slots, heads), keys, values, self.geometry.mask(True, q.dtype))
            return out.index_select(-2, self.geometry.index("slot_of"))
        packed = split_heads(q[..., p:, :].unflatten(-2, (layout.rows, layout.row_length)), heads)
        out = self._attention(packed, keys, values, self.geometry.mask(False, q.dtype))
        if not p:
            return out
        hq, hk, hv = (split_heads(x[..., :p, :].reshape(-1, p, x.shape[-1]), heads) for x in (q, k, v))
        head = merge_heads(F.scaled_dot_product_attention(hq, hk, hv, is_causal=True))
        return torch.cat([head.reshape(*q.shape[:-2], p, -1), out], dim=-2)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Within packed rows: (rows, heads, L, d), with B in front for B images, to (rows * L, W)."""
        if q.ndim == 4:
            return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)).flatten(0, 1)
        images = q.shape[0]
        if mask is not None:
            mask = mask.expand(images, *mask.shape).flatten(0, 1)
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return merge_heads(out).unflatten(0, (images, -1)).flatten(1, 2)

    def _with_prefix(self, x: Tensor, heads: int) -> Tensor:
        """Keys or values of every row, (rows, heads, prefix + row_length, d), with B in front for B images."""
        layout, p = self.layout, self.layout.prefix
        own = split_heads(x[..., p:, :].unflatten(-2, (layout.rows, layout.row_length)), heads)
        if not p:
            return own
        shared = split_heads(x[..., :p, :], heads).unsqueeze(-4)
        return torch.cat([shared.expand(*own.shape[:-2], p, -1), own], dim=-2)


class PooledText(Tokens):
    """End-of-text rows (C, W) in class order: all that is left after the last block of the text tower."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def with_rows(self, rows: Tensor) -> PooledText:
        """See `Tokens`."""
        return PooledText(rows)

    def pooled_with(self, rows: Tensor) -> PooledText:
        """The same kind."""
        return PooledText(rows)

    def select(self, x: Tensor) -> Tensor:
        """All rows."""
        return x

    def _refuse(self) -> BackboneError:
        return BackboneError(
            "after the last block of the text tower only the end-of-text rows are left; hook before it,"
            " or mark the hook every_position"
        )

    def read(self, start: int, count: int) -> Tensor:
        """Not possible any more."""
        raise self._refuse()

    def replace(self, start: int, values: Tensor) -> Tokens:
        """Not possible any more."""
        raise self._refuse()

    def insert(self, at: int, values: Tensor) -> Tokens:
        """Not possible any more."""
        raise self._refuse()

    def drop(self, start: int, count: int) -> Tokens:
        """Not possible any more."""
        raise self._refuse()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, pooled: bool) -> Tensor:
        """Not possible any more."""
        raise self._refuse()
