"""The image tower: patches, class token, positions, blocks, pooling, projection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipbench.backbone.shapes import ImageShape
from clipbench.backbone.tokens import Hooks, ImageTokens, Tokens
from clipbench.backbone.transformer import Transformer
from clipbench.backbone.weights import Entry, image_table
from clipbench.errors import BackboneError


class ImageTower(Transformer):
    """A vision transformer.

    Args:
        shape: what open_clip's config describes.

    Attributes:
        patch_embed: Linear over the pixels of a patch, channel first: open_clip's convolution, flattened.
        proj: (W, D).
    """

    def __init__(self, shape: ImageShape) -> None:
        super().__init__(shape.blocks)
        width, (rows, columns) = shape.blocks.width, shape.patch_size
        self.shape = shape
        self.patch_embed = nn.Linear(3 * rows * columns, width, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + shape.grid[0] * shape.grid[1], width))
        self.ln_pre = nn.LayerNorm(width, eps=shape.blocks.eps) if shape.ln_pre else None
        self.ln_post = nn.LayerNorm(width, eps=shape.blocks.eps)
        self.proj = nn.Parameter(torch.zeros(width, shape.output))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.positional_embedding.dtype

    def table(self) -> list[Entry]:
        """How open_clip names and packs the tensors of this tower."""
        return image_table(self.shape)

    def patches(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) pixels as (B, patches, 3 * patch height * patch width)."""
        (height, width), (ph, pw), (gh, gw) = self.shape.image_size, self.shape.patch_size, self.shape.grid
        if images.ndim != 4 or images.shape[1:] != (3, height, width):
            shape = "x".join(map(str, images.shape))
            raise BackboneError(f"the image tower takes images of Bx3x{height}x{width}, not {shape}")
        images = images[:, :, : gh * ph, : gw * pw].to(self.dtype)
        cut = images.reshape(-1, 3, gh, ph, gw, pw).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(len(images), gh * gw, 3 * ph * pw)

    def embed(self, images: Tensor) -> ImageTokens:
        """What enters block 0.

        Args:
            images: (B, 3, H, W) normalised pixels.

        Returns:
            Tokens (B, 1 + patches, W); position 0 is the class token.
        """
        x = self.patch_embed(self.patches(images))
        positions = self.positional_embedding
        head = (self.class_embedding + positions[0]).expand(len(x), 1, -1)
        x = torch.cat([head, x + positions[1:]], dim=1)
        if self.ln_pre is not None:
            x = self.ln_pre(x)
        kept = (0,) if self.shape.pool == "tok" else tuple(range(1, x.shape[1]))
        return ImageTokens(x, kept)

    def head(self, tokens: Tokens) -> Tensor:
        """(B, D) features of tokens that left the last block."""
        x = tokens.select(tokens.rows)
        if self.shape.pool == "tok":
            x = self.ln_post(x.squeeze(1))
        elif self.shape.norm_after_pool:
            x = self.ln_post(x.mean(dim=1))
        else:
            x = self.ln_post(x).mean(dim=1)
        return x @ self.proj

    def forward(self, images: Tensor, before_block: Hooks | None = None, after_block: Hooks | None = None) -> Tensor:
        """Features of images.

        Args:
            images: (B, 3, H, W) normalised pixels.
            before_block: block number -> hook on what enters it.
            after_block: block number -> hook on what leaves it.

        Returns:
            (B, D), not normalised.
        """
        tokens = self.run(self.embed(images), before_block, after_block, pool=self.shape.pool == "tok")
        return self.head(tokens)
