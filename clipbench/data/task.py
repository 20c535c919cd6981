"""The task: what a data module tells a method, class names and what templates are chosen by; no image, no path."""

from __future__ import annotations

from dataclasses import dataclass

from clipbench.data.classnames import as_prompted


@dataclass(frozen=True)
class TestSplit:
    """The classes of one test split.

    Attributes:
        name: "base", "novel", "all" ...
        classnames: in label order; the label space of the split.
        trained: whether these are the classes that were trained on.
        dataset: of a split of another dataset than the task's: its key; None for the task's own.
        template: of such a split: its own template, as `Task.template`.
    """

    __test__ = False  # not a test case, whatever its name makes pytest think

    name: str
    classnames: tuple[str, ...]
    trained: bool
    dataset: str | None = None
    template: str | None = None


@dataclass(frozen=True)
class Task:
    """Class names of the train split and of every test split.

    Attributes:
        dataset: the card's key, by which a template set lists its templates.
        template: the card's own template (rendered or own data), used under every set; None where there is none.
        train: the classes that are trained on, in label order.
        tests: the test splits, in the order of the test loaders.
    """

    dataset: str
    template: str | None
    train: tuple[str, ...]
    tests: tuple[TestSplit, ...]

    @property
    def halves(self) -> tuple[TestSplit, TestSplit] | None:
        """The split of the trained classes and that of the new ones, where the tests are two such halves of one set.

        None also where a class of one has the prompt of one of the other: nothing could tell the two over all classes.
        """
        return None if self.in_both_halves else self._halves

    @property
    def in_both_halves(self) -> tuple[str, ...]:
        """The class names of the first half that give a prompt of the second, in their order."""
        base, novel = self._halves or (None, None)
        if base is None or novel is None:
            return ()
        others = set(map(as_prompted, novel.classnames))
        return tuple(name for name in base.classnames if as_prompted(name) in others)

    @property
    def _halves(self) -> tuple[TestSplit, TestSplit] | None:
        if [split.trained for split in self.tests] != [True, False] or self.tests[1].dataset:
            return None
        base, novel = self.tests
        return base, novel
