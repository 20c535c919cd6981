"""The text tower: runs on exactly the tokens that matter, the shared prefix once, the end of text alone at the end."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipbench.backbone.packing import Layout
from clipbench.backbone.prompts import PromptPlan
from clipbench.backbone.shapes import TextShape
from clipbench.backbone.text_tokens import Geometry, TextTokens
from clipbench.backbone.tokens import Hooks, Tokens, any_marked
from clipbench.backbone.transformer import Transformer
from clipbench.backbone.weights import Entry, text_table
from clipbench.errors import BackboneError

CHUNK = 512  # classes encoded together without gradient: bounds memory, costs nothing
BUDGET = 2 * 2**30  # bytes of activations at a time, where every image has prompts of its own


class _Packed:
    """A plan laid out for one tower: flat token ids, positions, and where learned rows go."""

    def __init__(self, sequences: list[tuple[int, ...]], layout: Layout, vocabulary: int, device: torch.device) -> None:
        longest = int(layout.lengths.max())
        dense = np.zeros((len(sequences), longest), np.int64)
        for c, sequence in enumerate(sequences):
            dense[c, : len(sequence)] = sequence
        ids = layout.values_index(dense)
        learned = np.flatnonzero(ids >= vocabulary)
        self.extra_rows = int(ids.max()) - vocabulary + 1
        self.geometry = Geometry(layout, device)
        self.ids = torch.from_numpy(np.where(ids < vocabulary, ids, 0)).to(device)
        self.positions = torch.from_numpy(layout.position_of).to(device)
        self.learned_at = torch.from_numpy(learned).to(device)
        self.learned_row = torch.from_numpy(ids[learned] - vocabulary).to(device)


class TextTower(Transformer):
    """A text transformer.

    Args:
        shape: what open_clip's config describes.
        prefix: of this tower's tensors in open_clip's state dict, "" or "text.".

    Attributes:
        proj: (W, D), or None.
        proj_bias: (D,), or None.
        pad: id that fills a sequence up where padding matters (towers that are not causal).
    """

    def __init__(self, shape: TextShape, prefix: str = "") -> None:
        super().__init__(shape.blocks)
        self.prefix = prefix
        width = shape.blocks.width
        self.shape = shape
        self.pad = shape.pad
        # not drawn at random: that would load torch's compiler when described on the meta device
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(shape.vocab_size, width))
        self.positional_embedding = nn.Parameter(torch.zeros(shape.context_length, width))
        self.ln_final = nn.LayerNorm(width, eps=shape.blocks.eps)
        self.proj = nn.Parameter(torch.zeros(width, shape.output)) if shape.projection else None
        self.proj_bias = nn.Parameter(torch.zeros(shape.output)) if shape.projection_bias else None

    def table(self) -> list[Entry]:
        """How open_clip names and packs the tensors of this tower."""
        return text_table(self.shape, self.prefix)

    @property
    def context_length(self) -> int:
        """Most tokens of a prompt."""
        return self.shape.context_length

    def pack(self, plan: PromptPlan, share_prefix: bool) -> _Packed:
        """Lay a plan out for this tower; kept with the plan.

        Raises:
            BackboneError: a class has more tokens than the tower has positions.
        """
        shape, device = self.shape, self.positional_embedding.device
        share_prefix = share_prefix and shape.packed and plan.prefix > 0
        key = (shape, self.pad, share_prefix, device)

        def make() -> _Packed:
            sequences = list(plan.sequences)
            lengths = np.array([len(sequence) for sequence in sequences], np.int64)
            if lengths.max() > shape.context_length:
                worst = int(lengths.argmax())
                raise BackboneError(
                    f"class {worst} of the prompt plan has {lengths[worst]} tokens, but the text tower takes"
                    f" {shape.context_length}"
                )
            pooled, row_length = lengths - 1, plan.row_length
            if not shape.packed:
                row_length = shape.context_length
                sequences = [s + (self.pad,) * (row_length - len(s)) for s in sequences]
                lengths = np.full(len(sequences), row_length, np.int64)
                pooled = {"first": np.zeros_like(lengths), "last": lengths - 1}.get(shape.pool, pooled)
            layout = Layout(lengths, pooled, plan.prefix if share_prefix else 0, row_length, shape.causal)
            return _Packed(sequences, layout, shape.vocab_size, device)

        packed: _Packed = plan.derived(key, make)
        return packed

    def embed(self, plan: PromptPlan, extra: Tensor | None = None, share_prefix: bool = True) -> TextTokens:
        """What enters block 0.

        Args:
            plan: the prompts of C classes.
            extra: (E, W) learned rows, named by ids at or above the vocabulary size; (B, E, W): rows of each image.
            share_prefix: compute the common prefix once (exact unless something treats classes differently).

        Returns:
            Tokens, positions added.

        Raises:
            BackboneError: the plan names more learned rows than `extra` has.
        """
        packed = self.pack(plan, share_prefix)
        have = 0 if extra is None else extra.shape[-2]
        if packed.extra_rows > have:
            raise BackboneError(f"the prompt plan names {packed.extra_rows} learned rows, but {have} were given")
        x = F.embedding(packed.ids, self.token_embedding.weight)
        if extra is not None and extra.ndim == 3:
            learned = extra.index_select(1, packed.learned_row).to(x.dtype)
            x = x.expand(len(extra), -1, -1).index_copy(1, packed.learned_at, learned)
        elif extra is not None and packed.extra_rows > 0:
            x = x.index_put((packed.learned_at,), extra.index_select(0, packed.learned_row).to(x.dtype))
        return TextTokens(x + self.positional_embedding.index_select(0, packed.positions), packed.geometry)

    def head(self, tokens: Tokens) -> Tensor:
        """(C, D) features of tokens that left the last block; (B, C, D) where every image has prompts of its own."""
        x = self.ln_final(tokens.select(tokens.rows))
        if self.proj is not None:
            x = x @ self.proj
        return x if self.proj_bias is None else x + self.proj_bias

    def forward(
        self,
        plan: PromptPlan,
        extra: Tensor | None = None,
        before_block: Hooks | None = None,
        after_block: Hooks | None = None,
        share_prefix: bool = True,
    ) -> Tensor:
        """Features of classes.

        Args:
            plan: the prompts of C classes.
            extra: (E, W) learned rows; or (B, E, W), rows of each of B images, whose prompts then differ.
            before_block: block number -> hook on what enters it.
            after_block: block number -> hook on what leaves it; after the last block it sees end-of-text rows only.
            share_prefix: False where classes must not share noise (dropout inside the tower); hooks per class
                switch it off by themselves.

        Returns:
            (C, D), not normalised; (B, C, D) for the rows of B images.

        Raises:
            BackboneError: hooks where every image has prompts of its own, or a tower that takes none.
        """
        if extra is not None and extra.ndim == 3:
            if before_block or after_block or not self.shape.packed:
                raise BackboneError("prompts of each image's own need a causal text tower and take no hooks")
            return self._per_image(plan, extra, share_prefix)
        if not (before_block or after_block or torch.is_grad_enabled()):
            features = [self.head(self.run(self.embed(part, extra, share_prefix))) for part in plan.parts(CHUNK)]
            return features[0] if len(features) == 1 else torch.cat(features)
        apart = any_marked(before_block, "per_class") or any_marked(after_block, "per_class")
        tokens = self.embed(plan, extra, share_prefix and not apart)
        return self.head(self.run(tokens, before_block, after_block))

    def _per_image(self, plan: PromptPlan, extra: Tensor, share_prefix: bool) -> Tensor:
        """(B, C, D) of prompts that differ by image: as many images, and classes, at a time as the budget holds.

        With gradient each part is computed again in the backward pass, if there are several, so that the activations of
        one alone are held.
        """
        saved = torch.is_grad_enabled()
        blocks = len(self.blocks) if saved else 1
        per_token = 14 * self.width * self.positional_embedding.element_size() * blocks
        tokens = max(1, BUDGET // per_token)
        size = self.pack(plan, share_prefix).geometry.layout.size
        images = max(1, tokens // size)
        classes = len(plan) if size <= tokens else max(1, len(plan) * tokens // size)
        parts = [(part, rows) for rows in extra.split(images) for part in plan.parts(classes)]

        def features(part: PromptPlan, rows: Tensor) -> Tensor:
            return self.head(self.run(self.embed(part, rows, share_prefix)))

        again = saved and len(parts) > 1
        out = [
            checkpoint(features, part, rows, use_reentrant=False) if again else features(part, rows)
            for part, rows in parts
        ]
        per_rows = -(-len(plan) // classes)
        whole = [torch.cat(out[i : i + per_rows], dim=1) for i in range(0, len(out), per_rows)]
        return torch.cat(whole)
