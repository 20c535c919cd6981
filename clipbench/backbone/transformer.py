"""The one transformer of both towers: pre-norm residual blocks with explicit Linears.

Every weight is a Linear or a LayerNorm with a name, so that a selection, a mask or a low-rank factor is attached by
name; torch's packed attention is not used. Attention itself is the tokens' business (`tokens.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone.shapes import BlockShape
from clipbench.backbone.tokens import Hooks, Tokens, any_marked
from clipbench.errors import BackboneError


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), as OpenAI's CLIP was trained; written as silu(1.702 x) / 1.702, several times faster."""
    return F.silu(x * 1.702).mul_(1 / 1.702)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quickgelu": quick_gelu, "gelu_tanh": gelu_tanh}


class Attention(nn.Module):
    """The four Linears of multi-head attention."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.k_proj = nn.Linear(shape.width, shape.width)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)


class Mlp(nn.Module):
    """fc, activation, proj."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[shape.activation]
        self.fc = nn.Linear(shape.width, shape.mlp_width)
        self.proj = nn.Linear(shape.mlp_width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to (..., W)."""
        return self.proj(self.activation(self.fc(x)))


class Block(nn.Module):
    """One residual block: x + ls_1(attention(ln_1(x))), then x + ls_2(mlp(ln_2(x)))."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.attn = Attention(shape)
        self.ln_2 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.mlp = Mlp(shape)
        self.ls_1 = nn.Parameter(torch.ones(shape.width)) if shape.layer_scale else None
        self.ls_2 = nn.Parameter(torch.ones(shape.width)) if shape.layer_scale else None

    def forward(self, tokens: Tokens, pooled: bool = False) -> Tokens:
        """Tokens through the block.

        Args:
            tokens: hidden states with their geometry.
            pooled: compute only what pooling reads (exact in the last block: keys and values need all rows,
                queries, output and MLP only the pooled ones).
        """
        attn, x = self.attn, tokens.rows
        h = self.ln_1(x)
        k, v = attn.k_proj(h), attn.v_proj(h)
        if pooled:
            x, h = tokens.select(x), tokens.select(h)
        h = attn.out_proj(tokens.attend(attn.q_proj(h), k, v, attn.heads, pooled))
        x = x + (h if self.ls_1 is None else h * self.ls_1)
        h = self.mlp(self.ln_2(x))
        x = x + (h if self.ls_2 is None else h * self.ls_2)
        return tokens.pooled_with(x) if pooled else tokens.with_rows(x)


class Frozen(nn.Module):
    """A module that stays in eval mode: frozen dropout and batch norm must not wake up when a trainer trains."""

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode, whatever is asked for."""
        super().train(False)
        return self


class Transformer(Frozen):
    """A stack of blocks, with hooks between them; base of both towers.

    Args:
        shape: width, depth, heads ... of all blocks.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.width = shape.width
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))

    def run(
        self,
        tokens: Tokens,
        before_block: Hooks | None = None,
        after_block: Hooks | None = None,
        first: int = 0,
        pool: bool = True,
    ) -> Tokens:
        """Tokens through the blocks.

        Args:
            tokens: hidden states in front of block `first`.
            before_block: block number -> hook on what enters it.
            after_block: block number -> hook on what leaves it.
            first: the first block to run, so that stored hidden states can be continued.
            pool: whether the last block may compute the pooled rows only.

        Raises:
            BackboneError: a hook on a block that the tower does not have.
        """
        before, after = before_block or {}, after_block or {}
        depth = len(self.blocks)
        for number in [*before, *after]:
            if not first <= number < depth:
                raise BackboneError(f"there is no block {number} to hook in a run of blocks {first} to {depth - 1}")
        pool = pool and not any_marked(after, "every_position")
        for number in range(first, depth):
            if number in before:
                tokens = before[number](tokens)
            tokens = self.blocks[number](tokens, pooled=pool and number == depth - 1)
            if number in after:
                tokens = after[number](tokens)
        return tokens
