"""The task: what a protocol hands to a method, class names and nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TestSplit:
    """The classes of one test split.

    Attributes:
        name: "base", "novel", "all" ...
        classnames: in label order; the label space of the split.
        trained: whether these are the classes that were trained on.
    """

    __test__ = False  # not a test case, whatever its name makes pytest think

    name: str
    classnames: tuple[str, ...]
    trained: bool


@dataclass(frozen=True)
class Task:
    """Class names of the train split and of every test split."""

    train: tuple[str, ...]
    tests: tuple[TestSplit, ...]
