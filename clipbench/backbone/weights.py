"""Names and packing: open_clip's tensors to ours and back, bit for bit, by one table for each tower.

open_clip stacks q, k, v in `attn.in_proj_*`, holds patches as a convolution and calls the MLP `c_fc`, `c_proj`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.backbone.shapes import BlockShape, ImageShape, TextShape
from clipbench.errors import BackboneError

QKV = ("q_proj", "k_proj", "v_proj")
SAME = {
    "attn.out_proj": "attn.out_proj",
    "mlp.fc": "mlp.c_fc",
    "mlp.proj": "mlp.c_proj",
    "ln_1": "ln_1",
    "ln_2": "ln_2",
}
KINDS = ("weight", "bias")


@dataclass(frozen=True)
class Entry:
    """One tensor of ours: its name there, and how it lies there.

    Attributes:
        ours: name inside the tower.
        open_clip_name: its name there.
        third: 0, 1, 2 where it is that third of a stacked tensor.
        patch: height and width of a patch where open_clip's is a convolution and ours its flattened rows.
        transposed: whether open_clip's is the transpose.
    """

    ours: str
    open_clip_name: str
    third: int | None = None
    patch: tuple[int, int] | None = None
    transposed: bool = False

    def unpack(self, packed: Tensor) -> Tensor:
        """Our tensor out of open_clip's."""
        if self.third is not None:
            return packed.chunk(3)[self.third].clone()
        if self.patch is not None:
            return packed.flatten(1)
        return packed.t().contiguous() if self.transposed else packed


def _blocks(prefix: str, shape: BlockShape) -> Iterable[Entry]:
    """Entries of all blocks."""
    for i in range(shape.layers):
        ours, there = f"blocks.{i}.", f"{prefix}transformer.resblocks.{i}."
        for kind in KINDS:
            for third, name in enumerate(QKV):
                yield Entry(f"{ours}attn.{name}.{kind}", f"{there}attn.in_proj_{kind}", third=third)
            for name, name_there in SAME.items():
                yield Entry(f"{ours}{name}.{kind}", f"{there}{name_there}.{kind}")
        if shape.layer_scale:
            for name in ("ls_1", "ls_2"):
                yield Entry(ours + name, f"{there}{name}.gamma")


def image_table(shape: ImageShape) -> list[Entry]:
    """All tensors of an image tower."""
    plain = ["class_embedding", "positional_embedding", "proj", *(f"ln_post.{kind}" for kind in KINDS)]
    plain += [f"ln_pre.{kind}" for kind in KINDS] if shape.ln_pre else []
    return [
        *_blocks("visual.", shape.blocks),
        Entry("patch_embed.weight", "visual.conv1.weight", patch=shape.patch_size),
        *(Entry(name, f"visual.{name}") for name in plain),
    ]


def text_table(shape: TextShape, prefix: str) -> list[Entry]:
    """All tensors of a text tower.

    Args:
        shape: of the tower.
        prefix: "" for the class CLIP, "text." for CustomTextCLIP.
    """
    plain = ["token_embedding.weight", "positional_embedding", *(f"ln_final.{kind}" for kind in KINDS)]
    entries = [*_blocks(prefix, shape.blocks), *(Entry(name, prefix + name) for name in plain)]
    if shape.projection and shape.projection_bias:
        entries.append(Entry("proj", f"{prefix}text_projection.weight", transposed=True))
        entries.append(Entry("proj_bias", f"{prefix}text_projection.bias"))
    elif shape.projection:
        entries.append(Entry("proj", f"{prefix}text_projection"))
    return entries


def from_open_clip(state: Mapping[str, Tensor], table: Iterable[Entry]) -> dict[str, Tensor]:
    """Tensors of a tower in our names.

    Raises:
        KeyError: a tensor is missing.
    """
    return {entry.ours: entry.unpack(state[entry.open_clip_name]) for entry in table}


def to_open_clip(tensors: Mapping[str, Tensor], table: Iterable[Entry]) -> dict[str, Tensor]:
    """The inverse of `from_open_clip`."""
    out: dict[str, Tensor] = {}
    thirds: dict[str, list[Tensor]] = {}
    for entry in table:
        tensor = tensors[entry.ours]
        if entry.third is not None:
            thirds.setdefault(entry.open_clip_name, []).append(tensor)
        elif entry.patch is not None:
            out[entry.open_clip_name] = tensor.unflatten(1, (3, *entry.patch))
        else:
            out[entry.open_clip_name] = tensor.t().contiguous() if entry.transposed else tensor
    return out | {name: torch.cat(parts) for name, parts in thirds.items()}


def with_text_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The state dict with its text tower below `prefix`, wherever it was: "" or "text."."""
    there = "text." if any(name.startswith("text.") for name in state) else ""
    if there == prefix:
        return dict(state)
    apart = ("visual.", "logit_", "text_decoder.")
    return {
        name if name.startswith(apart) else prefix + name.removeprefix(there): tensor for name, tensor in state.items()
    }


def resample_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positional embeddings for another grid of patches, as open_clip's `force_image_size` does.

    Args:
        positions: (1 + old patches, W), the class token first; the old grid is a square.
        grid: patches in height and width.

    Returns:
        (1 + patches, W); the same tensor where nothing changes.

    Source: open_clip 3.3.0 `model.py`, `resize_pos_embed`: bicubic, antialiased, corners not aligned.
    """
    if len(positions) == 1 + grid[0] * grid[1]:
        return positions
    head, patches = positions[:1], positions[1:]
    side = round(len(patches) ** 0.5)
    if side * side != len(patches):
        raise BackboneError(f"cannot resample {len(patches)} patch positions that do not form a square")
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([head, resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)])
