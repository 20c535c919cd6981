"""The plain twin of the towers: every class at all positions, every token through every block, attention by hand.

Slow and obvious, in any float type; it uses the backbone's own modules (also those that replace Linears) and accepts
the same hooks. Tests and the conformance suite compare the fast path with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.backbone.image import ImageTower
from clipbench.backbone.model import Backbone
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.text import TextTower
from clipbench.backbone.tokens import Hooks, Tokens
from clipbench.backbone.transformer import Block


class PlainTokens(Tokens):
    """Dense tokens of B sequences.

    Args:
        rows: (B, L, W).
        pool: (B,) the position that is pooled, or None for all but position 0.
        causal: whether a token sees only earlier ones.
    """

    def __init__(self, rows: Tensor, pool: Tensor | None, causal: bool) -> None:
        self.rows, self.pool, self.causal = rows, pool, causal

    def with_rows(self, rows: Tensor) -> PlainTokens:
        """See `Tokens`."""
        return PlainTokens(rows, self.pool, self.causal)

    def read(self, start: int, count: int) -> Tensor:
        """(B, count, W)."""
        return self.rows[:, start : start + count]

    def _with(self, before: Tensor, values: Tensor | None, after: Tensor, at: int, moved: int) -> PlainTokens:
        parts = [before, after]
        if values is not None:
            parts.insert(1, values.expand(len(self.rows), -1, -1))
        pool = None if self.pool is None else self.pool + moved * (self.pool >= at)
        return PlainTokens(torch.cat(parts, dim=1), pool, self.causal)

    def replace(self, start: int, values: Tensor) -> PlainTokens:
        """See `Tokens`."""
        end = start + values.shape[-2]
        return self._with(self.rows[:, :start], values, self.rows[:, end:], start, 0)

    def insert(self, at: int, values: Tensor) -> PlainTokens:
        """See `Tokens`; averaged pooling is not followed."""
        return self._with(self.rows[:, :at], values, self.rows[:, at:], at, values.shape[-2])

    def drop(self, start: int, count: int) -> PlainTokens:
        """See `Tokens`; averaged pooling is not followed."""
        return self._with(self.rows[:, :start], None, self.rows[:, start + count :], start + count, -count)

    def select(self, x: Tensor) -> Tensor:
        """Pooled rows of `x`, (B, W), or (B, L - 1, W) for averages."""
        return x[:, 1:] if self.pool is None else x[torch.arange(len(x)), self.pool]

    def pooled_with(self, rows: Tensor) -> PlainTokens:
        """See `Tokens`."""
        return PlainTokens(rows.unsqueeze(1), torch.zeros(len(rows), dtype=torch.long), self.causal)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, pooled: bool) -> Tensor:
        """Softmax of scaled products, written out."""
        split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v)]
        scores = split[0] @ split[1].transpose(-1, -2) / split[0].shape[-1] ** 0.5
        if self.causal:
            length = scores.shape[-1]
            future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)


def _activation(name: str, x: Tensor) -> Tensor:
    if name == "quickgelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


def _block(block: Block, activation: str, tokens: Tokens) -> Tokens:
    """One block on all tokens."""
    x = tokens.rows
    h = block.ln_1(x)
    attn = block.attn
    h = tokens.attend(attn.q_proj(h), attn.k_proj(h), attn.v_proj(h), attn.heads, pooled=False)
    h = attn.out_proj(h)
    x = x + (h if block.ls_1 is None else h * block.ls_1)
    h = block.mlp.proj(_activation(activation, block.mlp.fc(block.ln_2(x))))
    return tokens.with_rows(x + (h if block.ls_2 is None else h * block.ls_2))


def _run(tower: ImageTower | TextTower, tokens: Tokens, before: Hooks | None, after: Hooks | None) -> Tokens:
    for number, block in enumerate(tower.blocks):
        tokens = (before or {}).get(number, lambda t: t)(tokens)
        tokens = _block(block, tower.shape.blocks.activation, tokens)  # type: ignore[arg-type]
        tokens = (after or {}).get(number, lambda t: t)(tokens)
    return tokens


def encode_text(
    backbone: Backbone,
    plan: PromptPlan,
    extra: Tensor | None = None,
    before_block: Hooks | None = None,
    after_block: Hooks | None = None,
) -> Tensor:
    """Class features by the plain path: the whole context of every class through every block.

    Args:
        backbone: its text tower is ours.
        plan: prompts of C classes.
        extra: (E, W) learned rows; (B, E, W): those of each image.
        before_block: hooks; they get dense tokens.
        after_block: hooks; after the last block too they get all positions.

    Returns:
        (C, D), not normalised; (B, C, D) for the rows of images.
    """
    tower = backbone.text
    assert isinstance(tower, TextTower)
    if extra is not None and extra.ndim == 3:
        return torch.stack([encode_text(backbone, plan, rows, before_block, after_block) for rows in extra])
    length, width = tower.shape.context_length, tower.shape.blocks.width
    rows = []
    for sequence in plan.sequences:
        vectors = []
        for token in [*sequence, *[tower.pad] * (length - len(sequence))]:
            if token >= tower.shape.vocab_size:
                assert extra is not None
                vectors.append(extra[token - tower.shape.vocab_size])
            else:
                vectors.append(tower.token_embedding.weight[token])
        rows.append(torch.stack(vectors))
    x = torch.stack(rows) + tower.positional_embedding
    assert x.shape == (len(plan), length, width)
    end = torch.tensor([len(sequence) - 1 for sequence in plan.sequences])
    pool = {"first": torch.zeros_like(end), "last": torch.full_like(end, length - 1)}.get(tower.shape.pool, end)
    tokens = _run(tower, PlainTokens(x, pool.to(x.device), tower.shape.causal), before_block, after_block)
    out = tokens.select(tower.ln_final(tokens.rows))
    out = out if tower.proj is None else out @ tower.proj
    return out if tower.proj_bias is None else out + tower.proj_bias


def encode_image(
    backbone: Backbone, images: Tensor, before_block: Hooks | None = None, after_block: Hooks | None = None
) -> Tensor:
    """Image features by the plain path: a convolution, every token through every block.

    Args:
        backbone: its image tower is ours.
        images: (B, 3, H, W) normalised pixels.
        before_block: hooks; they get dense tokens.
        after_block: hooks; after the last block too they get all positions.

    Returns:
        (B, D), not normalised.
    """
    tower = backbone.image
    assert isinstance(tower, ImageTower)
    shape = tower.shape
    kernel = tower.patch_embed.weight.unflatten(1, (3, *shape.patch_size))
    patches = F.conv2d(images.to(kernel.dtype), kernel, stride=shape.patch_size).flatten(2).transpose(1, 2)
    head = tower.class_embedding.expand(len(images), 1, -1)
    x = torch.cat([head, patches], dim=1) + tower.positional_embedding
    x = x if tower.ln_pre is None else tower.ln_pre(x)
    pool = torch.zeros(len(x), dtype=torch.long, device=x.device) if shape.pool == "tok" else None
    tokens = _run(tower, PlainTokens(x, pool, causal=False), before_block, after_block)
    if shape.pool == "avg":
        tokens = tokens.with_rows(tokens.rows[:, : x.shape[1]])  # what was appended is not averaged
    if shape.pool == "avg" and shape.norm_after_pool:
        return tower.ln_post(tokens.select(tokens.rows).mean(1)) @ tower.proj
    out = tokens.select(tower.ln_post(tokens.rows))
    return (out if shape.pool == "tok" else out.mean(1)) @ tower.proj


@contextmanager
def _replaced(backbone: Backbone, name: str, function: Any) -> Iterator[None]:
    object.__setattr__(backbone, name, lambda *a, **k: function(backbone, *a, **k))
    try:
        yield
    finally:
        object.__delattr__(backbone, name)


@contextmanager
def plain_text(backbone: Backbone) -> Iterator[None]:
    """Within this context `backbone.encode_text` takes the plain path."""
    with _replaced(backbone, "encode_text", encode_text):
        yield


@contextmanager
def plain_image(backbone: Backbone) -> Iterator[None]:
    """Within this context `backbone.encode_image` takes the plain path."""
    with _replaced(backbone, "encode_image", encode_image):
        yield
