"""What a protocol is: a rule that divides the classes of a dataset into those trained on and the test splits."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipbench.errors import UnknownName

if TYPE_CHECKING:
    from clipbench.data.module import DataModule
    from clipbench.methods.base import Method

PROTOCOLS = {
    "base_to_novel": "clipbench.protocols.base_to_novel:BASE_TO_NOVEL",
    "few_shot": "clipbench.protocols.few_shot:FEW_SHOT",
}


@dataclass(frozen=True)
class Protocol:
    """A division of classes.

    Attributes:
        name: as on the command line.
        version: raised when a change moves numbers.
        divide: labels in order -> labels trained on, labels of every test split by name.
    """

    name: str
    version: int
    divide: Callable[[Sequence[int]], tuple[list[int], dict[str, list[int]]]]


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


def assign(name: str, data: DataModule, method: Method) -> None:
    """Divide the classes of the data by the protocol and hand the method its task, templates and seed."""
    from clipbench.backbone.spec import resolve_spec
    from clipbench.methods.task import Task, TestSplit

    train, tests = protocol(name).divide(range(len(data.classnames)))
    data.assign(train, tests)
    data.preprocessing = resolve_spec(method.backbone_name).preprocessing

    def names(labels: Sequence[int]) -> tuple[str, ...]:
        return tuple(data.classnames[label] for label in labels)

    splits = tuple(TestSplit(split, names(labels), trained=labels == train) for split, labels in tests.items())
    method.bind(Task(names(train), splits), data.templates(method.template_set), data.train_seed)
