"""What the analysis compares: the kind of a tensor and its depth, from where its name says that it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clipbench.backbone.names import parse_name, split_number

BEFORE = re.compile(r"pre|embed|embd|stem|cls_token|conv1|bn1")
NORM = re.compile(r"^(ln_?\w*|\w*norm\w*)$", re.IGNORECASE)
BATCH_NORM = re.compile(r"^bn\w*$", re.IGNORECASE)
ATTENTION = re.compile(r"^\w*att(n|ention)\w*$", re.IGNORECASE)
MLP = re.compile(r"^(mlp|ffn)\w*$", re.IGNORECASE)
SECOND_HALF = 0.5  # of a block: the MLP and the norm in front of it


@dataclass(frozen=True)
class Position:
    """Where a tensor stands.

    Attributes:
        tensor: its name in the backbone, or in the method where it was added.
        tower: "image", "text", or "" outside of both.
        block: number of its block from the input; None outside of the blocks.
        part: its name inside the block, or inside the tower.
        kind: what is comparable: "LayerNorm weight", "MLP bias", "added context" ...
        depth: -1 in front of the blocks, block number (+ 0.5 in its second half), infinity behind them.
    """

    tensor: str
    tower: str
    block: int | None
    part: str
    kind: str
    depth: float

    @property
    def group(self) -> str:
        """Tower and kind, the tensors that are compared over depth."""
        return f"{self.tower} {self.kind}".strip()


def position_of(tensor: str, added: bool = False) -> Position:
    """The place of a tensor.

    Args:
        tensor: for example "text.blocks.3.mlp.proj.bias".
        added: whether a method added it (a context, a factor, an adapter), so that it has no pretrained value.

    Example:
        >>> position_of("image.blocks.3.ln_2.weight").group, position_of("image.blocks.3.ln_2.weight").depth
        ('image LayerNorm weight', 3.5)
    """
    tower = parse_name(tensor).tower_of_backbone
    block, part = split_number(tensor.removeprefix(f"{tower}.") if tower else tensor)
    words = part.split(".")
    if block is None:
        depth = -1.0 if any(BEFORE.search(word) for word in words) else float("inf")
    else:
        second = any(MLP.match(word) for word in words) or words[0] in ("ln_2", "norm2", "ls_2")
        depth = block + SECOND_HALF * second
    kind = f"added {_added(words)}" if added else _kind(words, block is not None)
    return Position(tensor, tower, block, part, kind, depth)


def _added(words: list[str]) -> str:
    """Last word of a name, with its owner where it is a mere weight or bias."""
    owners = [word for word in words[:-1] if not word.isdigit() and word != "default"]
    return f"{owners[-1]}.{words[-1]}" if owners and words[-1] in ("weight", "bias") else words[-1]


def _kind(words: list[str], inside_block: bool) -> str:
    owners, leaf = words[:-1], words[-1]
    for pattern, kind in ((NORM, "LayerNorm"), (BATCH_NORM, "BatchNorm"), (ATTENTION, "attention"), (MLP, "MLP")):
        if any(pattern.match(word) for word in owners):
            return f"{kind} {leaf}"
    return f"other {leaf}" if inside_block else ".".join(words)
