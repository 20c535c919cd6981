"""What a protocol is: a rule that divides the classes of a dataset into those trained on and the test splits."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clipbench.errors import UnknownName

PROTOCOLS = {
    "base_to_novel": "clipbench.protocols.base_to_novel:BASE_TO_NOVEL",
    "few_shot": "clipbench.protocols.few_shot:FEW_SHOT",
    "cross_dataset": "clipbench.protocols.cross_dataset:CROSS_DATASET",
}


@dataclass(frozen=True)
class Protocol:
    """A division of classes.

    Attributes:
        name: as on the command line.
        version: raised when a change moves numbers.
        divide: labels in order -> labels trained on, labels of every test split by name.
        has_targets: whether it is tested on other datasets too.
    """

    name: str
    version: int
    divide: Callable[[Sequence[int]], tuple[list[int], dict[str, list[int]]]]
    has_targets: bool = False


def known_protocols() -> list[str]:
    """The names of all protocols."""
    return list(PROTOCOLS)


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in PROTOCOLS:
        raise UnknownName("protocol", name, PROTOCOLS)
    module, _, attribute = PROTOCOLS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
