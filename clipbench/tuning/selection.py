"""Selections: which tensors of the backbone are trained, said in the words of the towers and checked against them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from torch import nn

from clipbench.backbone.clip import Backbone
from clipbench.errors import ConfigError


def select(
    backbone: Backbone, tower: str, tensors: Sequence[str], blocks: Sequence[int] | str = "all"
) -> dict[str, nn.Parameter]:
    """The tensors of a tower's blocks whose name inside the block matches a pattern.

    Args:
        backbone: where to look.
        tower: "image" or "text".
        tensors: patterns of names inside a block, for example `["mlp.proj.bias"]` or `["attn.*.bias"]`.
        blocks: block numbers from the input, or "all"; negative numbers count from the output.

    Returns:
        Full name to tensor, in the order of the tower.

    Raises:
        ConfigError: a pattern matches nothing (near matches are listed) or a block does not exist.
    """
    prefix = f"{tower}.blocks."
    inside: dict[int, dict[str, nn.Parameter]] = {}
    for name, parameter in backbone.named_parameters():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            inside.setdefault(int(number), {})[rest] = parameter
    wanted = sorted(inside) if blocks == "all" else [_block(int(b), len(inside), tower) for b in blocks]
    known = list(dict.fromkeys(name for number in wanted for name in inside[number]))
    for pattern in tensors:
        if not fnmatch.filter(known, pattern):
            near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3)
            raise ConfigError(f"selection '{pattern}' matches no tensor in the {tower} tower's blocks (near: {near})")
    return {
        f"{prefix}{number}.{name}": parameter
        for number in wanted
        for name, parameter in inside[number].items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in tensors)
    }


def _block(number: int, count: int, tower: str) -> int:
    """The block's number counted from the input."""
    if not -count <= number < count:
        raise ConfigError(f"the {tower} tower has blocks 0 to {count - 1}, there is no block {number}")
    return number % count


def select_modules(backbone: Backbone, tower: str, kind: type[nn.Module]) -> dict[str, nn.Parameter]:
    """All tensors of a tower's modules of one type; by type, since towers of other families use other names.

    Returns:
        Full name to tensor in the order of the tower; empty where the tower has no such module.
    """
    return {
        f"{tower}.{path}.{name}": parameter
        for path, module in getattr(backbone, tower).named_modules()
        if isinstance(module, kind)
        for name, parameter in module.named_parameters(recurse=False)
    }
