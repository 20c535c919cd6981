"""Selections: which tensors or Linears of the backbone are meant, said in sentences and checked against the towers.

    text tower, blocks all, mlp.proj.bias
    image tower, last 4 blocks, attn.* and mlp.*, except attn.k_proj
    both towers, LayerNorm

A sentence names a tower, perhaps blocks, and what: patterns of names inside the blocks, or inside the tower where no
blocks are named; or a kind: LayerNorm (by type, since families name theirs differently), biases, weights, Linears,
everything.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import nn

from clipbench.backbone.clip import Backbone
from clipbench.backbone.names import split_block
from clipbench.errors import ConfigError

T = TypeVar("T")
EXAMPLE = "'text tower, blocks all, mlp.proj.bias' or 'image tower, last 4 blocks, attn.* and mlp.*'"
TOWERS = {"text tower": ("text",), "image tower": ("image",), "both towers": ("image", "text")}
KINDS: dict[str, Callable[[str, nn.Module], bool]] = {
    "everything": lambda name, owner: True,
    "LayerNorm": lambda name, owner: isinstance(owner, nn.LayerNorm),
    "biases": lambda name, owner: name.rpartition(".")[2] == "bias" or name.endswith("_bias"),
    "weights": lambda name, owner: name.rpartition(".")[2] == "weight",
    "Linears": lambda name, owner: isinstance(owner, nn.Linear),
}


@dataclass(frozen=True)
class Sentence:
    """A sentence, taken apart.

    Attributes:
        text: the sentence as it was written.
        towers: the towers that it names: "image", "text" or both.
        blocks: the part that names blocks, as "last 4 blocks"; None where the sentence names none.
        wanted: patterns of names and kinds that it selects.
        unwanted: patterns and kinds after `except`, which it leaves out.
    """

    text: str
    towers: tuple[str, ...]
    blocks: str | None
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]


class Part(NamedTuple):
    """Something of a tower that a sentence can mean.

    Attributes:
        name: its name as the sentence sees it: inside its block where blocks are named, else inside the tower.
        block: number of its block, counted from the input; None outside the blocks.
        owner: the module that it belongs to.
    """

    name: str
    block: int | None
    owner: nn.Module


def read_sentence(text: str) -> Sentence:
    """Take a sentence apart.

    Args:
        text: a sentence as in the head of this file; how many blanks there are makes no difference.

    Raises:
        ConfigError: it is not one.
    """
    before, _, unwanted = " ".join(str(text).split()).partition("except ")
    parts = [part.strip() for part in before.strip().removesuffix(",").split(",")]
    if parts[0] not in TOWERS:
        near = difflib.get_close_matches(parts[0], TOWERS, n=1, cutoff=0.3) or list(TOWERS)
        raise ConfigError(f"selection '{text}' begins with no tower (near: {near}); it reads like {EXAMPLE}")
    blocks = parts[1] if len(parts) == 3 else None
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(f"selection '{text}' cannot be read; it reads like {EXAMPLE}")
    return Sentence(text, TOWERS[parts[0]], blocks, _listed(parts[-1]), _listed(unwanted) if unwanted else ())


def needs_of(sentences: Sequence[str]) -> dict[str, set[str]]:
    """What a selection needs of the towers: blocks are those of our transformers, and so are their bare projections.

    Raises:
        ConfigError: a sentence cannot be read.
    """
    if isinstance(sentences, str):
        raise ConfigError(f"a selection is a list of sentences, not '{sentences}'; write ['{sentences}']")
    read = [(read_sentence(text), means_projection(text)) for text in sentences]
    towers = {tower for sentence, bare in read if sentence.blocks is not None or bare for tower in sentence.towers}
    return {tower: {"transformer"} for tower in sorted(towers)}


def means_projection(text: str) -> bool:
    """Whether a sentence means the bare projection of a tower: "image tower, proj"."""
    sentence = read_sentence(text)
    return sentence.blocks is None and sentence.wanted == ("proj",)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in re.split(r"\s+and\s+", text))


def select_tensors(backbone: Backbone, sentences: Sequence[str]) -> dict[str, nn.Parameter]:
    """The tensors that the sentences mean.

    Args:
        backbone: the CLIP whose towers are searched, before any of its modules has been replaced.
        sentences: at least one sentence as in the head of this file; together they select what any of them means.

    Returns:
        Full name to tensor, in the order of the towers.

    Raises:
        ConfigError: a sentence cannot be read, means nothing (near matches are listed), or names a block too many.
    """

    def tensors(tower: nn.Module) -> dict[str, tuple[nn.Module, nn.Parameter]]:
        owners = dict(tower.named_modules())
        return {name: (owners[name.rpartition(".")[0]], tensor) for name, tensor in tower.named_parameters()}

    return _select(backbone, sentences, tensors, "tensor")


def select_linears(backbone: Backbone, sentences: Sequence[str]) -> dict[str, nn.Linear]:
    """The Linears that the sentences mean; patterns are of their names, as `attn.q_proj and mlp.*`.

    Args:
        backbone: the CLIP whose towers are searched, before any of its modules has been replaced.
        sentences: at least one sentence as in the head of this file; together they select what any of them means.

    Returns:
        Full name to Linear, in the order of the towers.

    Raises:
        ConfigError: as `select_tensors`.
    """

    def linears(tower: nn.Module) -> dict[str, tuple[nn.Module, nn.Linear]]:
        return {name: (m, m) for name, m in tower.named_modules() if isinstance(m, nn.Linear)}

    return _select(backbone, sentences, linears, "Linear")


def _select(
    backbone: Backbone,
    sentences: Sequence[str],
    contents: Callable[[nn.Module], dict[str, tuple[nn.Module, T]]],
    what: str,
) -> dict[str, T]:
    if isinstance(sentences, str) or not sentences:
        raise ConfigError(f"a selection is a list of sentences like {EXAMPLE}, not {sentences!r}")
    meant: dict[str, T] = {}
    everything: dict[str, T] = {}
    for tower in ("image", "text"):
        found = contents(getattr(backbone, tower))
        everything |= {f"{tower}.{name}": item for name, (_, item) in found.items()}
    for text in sentences:
        sentence = read_sentence(text)
        matched: dict[str, T] = {}
        known: list[str] = []
        for tower in sentence.towers:
            found = contents(getattr(backbone, tower))
            parts = {name: _part(name, owner, sentence) for name, (owner, _) in found.items()}
            if sentence.blocks is not None:
                count = 1 + max((part.block for part in parts.values() if part.block is not None), default=-1)
                numbers = _blocks(sentence, tower, count)
                parts = {name: part for name, part in parts.items() if part.block in numbers}
            known += [part.name for part in parts.values()]
            for pattern in sentence.unwanted:
                if sentence.towers[-1] == tower and not any(_means(pattern, name) for name in known):
                    _refuse(sentence, pattern, known, what)
            for name, part in parts.items():
                if _says(sentence.wanted, part) and not _says(sentence.unwanted, part):
                    matched[f"{tower}.{name}"] = found[name][1]
        for pattern in sentence.wanted:
            if pattern not in KINDS and not any(_means(pattern, name) for name in known):
                _refuse(sentence, pattern, known, what)
        if not matched:
            _refuse(sentence, " and ".join(sentence.wanted), known, what)
        meant |= matched
    return {name: item for name, item in everything.items() if name in meant}


def _part(name: str, owner: nn.Module, sentence: Sentence) -> Part:
    block, inner = split_block(name)
    return Part(name if sentence.blocks is None else inner, block, owner)


def _means(pattern: str, name: str) -> bool:
    return pattern in KINDS or fnmatch.fnmatchcase(name, pattern)


def _says(words: tuple[str, ...], part: Part) -> bool:
    return any(
        KINDS[word](part.name, part.owner) if word in KINDS else fnmatch.fnmatchcase(part.name, word) for word in words
    )


def _refuse(sentence: Sentence, pattern: str, known: Sequence[str], what: str) -> None:
    names = list(dict.fromkeys([*known, *KINDS]))
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
    raise ConfigError(f"selection '{sentence.text}': '{pattern}' matches no {what} there (near: {near})")


def _blocks(sentence: Sentence, tower: str, count: int) -> set[int]:
    """The block numbers that a sentence names, in a tower of `count` blocks."""
    text = sentence.blocks or ""
    if count == 0:
        raise ConfigError(f"selection '{sentence.text}': the {tower} tower has no blocks of ours; leave them out")
    if text in ("blocks all", "all blocks"):
        return set(range(count))
    if found := re.fullmatch(r"(first|last) (\d+) blocks?", text):
        some = int(found[2])
        if not 1 <= some <= count:
            raise ConfigError(f"selection '{sentence.text}': the {tower} tower has {count} blocks")
        return set(range(some)) if found[1] == "first" else set(range(count - some, count))
    if found := re.fullmatch(r"blocks? (-?\d+) to (-?\d+)", text):
        first, last = (_block(int(number), count, tower) for number in found.groups())
        if first > last:
            raise ConfigError(f"selection '{sentence.text}': block {first} comes after block {last}")
        return set(range(first, last + 1))
    if found := re.fullmatch(r"blocks? (-?\d+(?: and -?\d+)*)", text):
        return {_block(int(number), count, tower) for number in found[1].split(" and ")}
    raise ConfigError(
        f"selection '{sentence.text}': '{text}' names no blocks; say 'blocks all', 'block 3', 'blocks 0 to 3', "
        "'blocks 0 and 5', 'first 2 blocks' or 'last 4 blocks'"
    )


def _block(number: int, count: int, tower: str) -> int:
    """The block's number counted from the input; negative numbers count from the output."""
    if not -count <= number < count:
        raise ConfigError(f"the {tower} tower has blocks 0 to {count - 1}, there is no block {number}")
    return number % count
