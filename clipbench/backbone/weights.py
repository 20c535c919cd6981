"""Names and packing: open_clip's tensors to ours and back, bit for bit.

open_clip stacks q, k, v in `attn.in_proj_*`, holds patches as a convolution and calls the MLP `c_fc`, `c_proj`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.backbone.shapes import ImageShape, TextShape
from clipbench.errors import BackboneError

QKV = ("q_proj", "k_proj", "v_proj")
RENAMED = {
    "attn.out_proj": "attn.out_proj",
    "mlp.c_fc": "mlp.fc",
    "mlp.c_proj": "mlp.proj",
    "ln_1": "ln_1",
    "ln_2": "ln_2",
}


def _blocks_from(state: Mapping[str, Tensor], prefix: str, layers: int, layer_scale: bool) -> dict[str, Tensor]:
    """Tensors of all blocks in our names; `prefix` ends in 'transformer.'."""
    out: dict[str, Tensor] = {}
    for i in range(layers):
        theirs, ours = f"{prefix}resblocks.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            packed = state[f"{theirs}attn.in_proj_{kind}"]
            for name, part in zip(QKV, packed.chunk(3), strict=True):
                out[f"{ours}attn.{name}.{kind}"] = part.clone()
            for their_name, our_name in RENAMED.items():
                out[f"{ours}{our_name}.{kind}"] = state[f"{theirs}{their_name}.{kind}"]
        if layer_scale:
            for name in ("ls_1", "ls_2"):
                out[ours + name] = state[f"{theirs}{name}.gamma"]
    return out


def _blocks_to(tensors: Mapping[str, Tensor], prefix: str, layers: int, layer_scale: bool) -> dict[str, Tensor]:
    """The inverse of `_blocks_from`."""
    out: dict[str, Tensor] = {}
    for i in range(layers):
        theirs, ours = f"{prefix}resblocks.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            out[f"{theirs}attn.in_proj_{kind}"] = torch.cat([tensors[f"{ours}attn.{name}.{kind}"] for name in QKV])
            for their_name, our_name in RENAMED.items():
                out[f"{theirs}{their_name}.{kind}"] = tensors[f"{ours}{our_name}.{kind}"]
        if layer_scale:
            for name in ("ls_1", "ls_2"):
                out[f"{theirs}{name}.gamma"] = tensors[ours + name]
    return out


def image_from_open_clip(state: Mapping[str, Tensor], shape: ImageShape) -> dict[str, Tensor]:
    """Tensors of the image tower in our names.

    Args:
        state: open_clip's state dict.
        shape: of the tower; positions of another grid are resampled to it.

    Raises:
        KeyError: a tensor is missing.
    """
    out = _blocks_from(state, "visual.transformer.", shape.blocks.layers, shape.blocks.layer_scale)
    out["patch_embed.weight"] = state["visual.conv1.weight"].flatten(1)
    for name in ("class_embedding", "proj", "ln_post.weight", "ln_post.bias"):
        out[name] = state[f"visual.{name}"]
    if shape.ln_pre:
        out |= {f"ln_pre.{kind}": state[f"visual.ln_pre.{kind}"] for kind in ("weight", "bias")}
    out["positional_embedding"] = resample_positions(state["visual.positional_embedding"], shape.grid)
    return out


def image_to_open_clip(tensors: Mapping[str, Tensor], shape: ImageShape) -> dict[str, Tensor]:
    """The inverse of `image_from_open_clip`."""
    out = _blocks_to(tensors, "visual.transformer.", shape.blocks.layers, shape.blocks.layer_scale)
    out["visual.conv1.weight"] = tensors["patch_embed.weight"].unflatten(1, (3, *shape.patch_size))
    norms = ["ln_post.weight", "ln_post.bias", *(["ln_pre.weight", "ln_pre.bias"] if shape.ln_pre else [])]
    for name in ("class_embedding", "proj", "positional_embedding", *norms):
        out[f"visual.{name}"] = tensors[name]
    return out


def text_from_open_clip(state: Mapping[str, Tensor], shape: TextShape, prefix: str) -> dict[str, Tensor]:
    """Tensors of the text tower in our names.

    Args:
        state: open_clip's state dict.
        shape: of the tower.
        prefix: "" for the class CLIP, "text." for CustomTextCLIP.

    Raises:
        KeyError: a tensor is missing.
    """
    out = _blocks_from(state, f"{prefix}transformer.", shape.blocks.layers, shape.blocks.layer_scale)
    for name in ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"):
        out[name] = state[prefix + name]
    if shape.projection and shape.projection_bias:
        out["proj"] = state[f"{prefix}text_projection.weight"].t().contiguous()
        out["proj_bias"] = state[f"{prefix}text_projection.bias"]
    elif shape.projection:
        out["proj"] = state[f"{prefix}text_projection"]
    return out


def text_to_open_clip(tensors: Mapping[str, Tensor], shape: TextShape, prefix: str) -> dict[str, Tensor]:
    """The inverse of `text_from_open_clip`."""
    out = _blocks_to(tensors, f"{prefix}transformer.", shape.blocks.layers, shape.blocks.layer_scale)
    for name in ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"):
        out[prefix + name] = tensors[name]
    if shape.projection and shape.projection_bias:
        out[f"{prefix}text_projection.weight"] = tensors["proj"].t().contiguous()
        out[f"{prefix}text_projection.bias"] = tensors["proj_bias"]
    elif shape.projection:
        out[f"{prefix}text_projection"] = tensors["proj"]
    return out


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
