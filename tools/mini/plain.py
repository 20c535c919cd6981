"""The mini backbone in plain numpy: both towers written out, in any precision. The oracle that open_clip is held
against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from clipbench.mini.weights import PREPROCESS_CFG, Weights

Array = npt.NDArray[Any]


class PlainClip:
    """Both towers.

    Args:
        weights: what ``load_weights`` gives.
        dtype: precision of every number.
    """

    def __init__(self, weights: Weights, dtype: npt.DTypeLike = np.float64) -> None:
        self.w = {name: values.astype(dtype) for name, values in weights.state.items()}
        self.cfg = weights.config["model_cfg"]
        self.number: Any = np.dtype(dtype).type

    def image(self, pictures: npt.NDArray[np.uint8]) -> Array:
        """(B, 48, 48, 3) uint8 to (B, D) features, not normalised."""
        mean, std = (np.asarray(PREPROCESS_CFG[name], self.number) for name in ("mean", "std"))
        x = (pictures.astype(self.number) / self.number(255) - mean) / std
        b, size, _, _ = x.shape
        p = self.cfg["vision_cfg"]["patch_size"]
        n = size // p
        patches = x.reshape(b, n, p, n, p, 3).transpose(0, 1, 3, 5, 2, 4).reshape(b, n * n, 3 * p * p)
        kernel = self.w["visual.conv1.weight"]
        tokens = patches @ kernel.reshape(len(kernel), -1).T
        first = np.broadcast_to(self.w["visual.class_embedding"], (b, 1, tokens.shape[2]))
        x = np.concatenate([first, tokens], 1) + self.w["visual.positional_embedding"]
        x = self._norm(x, "visual.ln_pre")
        vision = self.cfg["vision_cfg"]
        x = self._blocks(x, "visual.transformer", vision["layers"], vision["width"] // vision["head_width"], None)
        return self._norm(x[:, 0], "visual.ln_post") @ self.w["visual.proj"]

    def text(self, tokens: npt.NDArray[np.int64]) -> Array:
        """(B, L) token ids to (B, D) features, not normalised; pooled at the largest id, the end of text."""
        length = tokens.shape[1]
        x = self.w["token_embedding.weight"][tokens] + self.w["positional_embedding"][:length]
        mask = np.triu(np.full((length, length), -np.inf, self.number), 1)
        text = self.cfg["text_cfg"]
        x = self._blocks(x, "transformer", text["layers"], text["heads"], mask)
        x = self._norm(x, "ln_final")[np.arange(len(x)), tokens.argmax(1)]
        return x @ self.w["text_projection"]

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.number(1e-5))
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def _linear(self, x: Array, weight: str, bias: str) -> Array:
        return x @ self.w[weight].T + self.w[bias]

    def _blocks(self, x: Array, tower: str, layers: int, heads: int, mask: Array | None) -> Array:
        for i in range(layers):
            block = f"{tower}.resblocks.{i}"
            x = x + self._attention(self._norm(x, f"{block}.ln_1"), f"{block}.attn", heads, mask)
            h = self._linear(self._norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc.weight", f"{block}.mlp.c_fc.bias")
            h = h * self.number(0.5) * (1 + erf(h * self.number(np.sqrt(0.5))))
            x = x + self._linear(h, f"{block}.mlp.c_proj.weight", f"{block}.mlp.c_proj.bias")
        return x

    def _attention(self, x: Array, name: str, heads: int, mask: Array | None) -> Array:
        b, length, width = x.shape
        qkv = self._linear(x, f"{name}.in_proj_weight", f"{name}.in_proj_bias")
        q, k, v = qkv.reshape(b, length, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
        score = q @ k.transpose(0, 1, 3, 2) / self.number(np.sqrt(width // heads))
        if mask is not None:
            score = score + mask
        score = np.exp(score - score.max(-1, keepdims=True))
        out = (score / score.sum(-1, keepdims=True)) @ v
        return self._linear(
            out.transpose(0, 2, 1, 3).reshape(b, length, width), f"{name}.out_proj.weight", f"{name}.out_proj.bias"
        )
