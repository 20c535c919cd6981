"""What a tensor's name says: owner, tower, block, and the name inside them. The one parser of such names.

backbone.image.blocks.3.mlp.proj.bias
owner    tower        3 inner
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOWERS = ("image", "text")
NAME = re.compile(r"(?:(.*?)\.)??(image|text)\.(.+)")
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


class TensorName(NamedTuple):
    """A tensor's name, taken apart.

    Attributes:
        owner: what stands before the tower, "" for a tensor of the backbone.
        tower: "image" or "text", or None where the name does not say.
        block: number of the block of our transformer, from the input; None outside the blocks.
        inner: name inside the block, else inside the tower, else all of it.
    """

    owner: str
    tower: str | None
    block: int | None
    inner: str

    @property
    def tower_of_backbone(self) -> str:
        """The tower that the tensor itself is in, "" where it belongs to something else."""
        return "" if self.owner else self.tower or ""


def parse_name(name: str) -> TensorName:
    """Takes the full name of a tensor (or module) apart.

    Args:
        name: for example "text.blocks.3.mlp.proj.bias"; the first word `image` or `text` is the tower.

    Example:
        >>> parse_name("image.blocks.3.ln_2.weight")
        TensorName(owner='', tower='image', block=3, inner='ln_2.weight')
        >>> parse_name("context").tower is None
        True
    """
    found = NAME.fullmatch(name)
    if found is None:
        return TensorName("", None, None, name)
    return TensorName(found[1] or "", found[2], *split_block(found[3]))


def split_block(inside: str) -> tuple[int | None, str]:
    """Number of the block of our transformer, or None, and the name inside it, of a name inside a tower."""
    found = BLOCK.fullmatch(inside)
    return (int(found[1]), found[2]) if found else (None, inside)


def split_number(inside: str) -> tuple[int | None, str]:
    """The first number in a name and what follows it: the block in towers of any family ("trunk.blocks.4.norm2.bias").

    Returns:
        (None, `inside`) where there is no number.
    """
    found = NUMBER.search(inside)
    return (int(found[1]), inside[found.end() :]) if found else (None, inside)


def kind_of(name: str) -> str:
    """What tensors of all blocks and both towers have in common: the name without tower and numbers."""
    return ".".join(part for part in name.split(".") if not part.isdigit() and part not in (*TOWERS, "blocks"))
