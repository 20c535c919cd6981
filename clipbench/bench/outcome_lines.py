"""What a trainer has just measured, as lines for people: percent and counts of every split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning as L

from clipbench.data.module import DataModule
from clipbench.data.splits import Item
from clipbench.errors import DataError
from clipbench.methods.base import Method
from clipbench.report.harmonic import harmonic_mean


def has_val(data: DataModule) -> bool:
    """Whether there are val images of the classes that are trained on."""
    return any(item.label in set(data.train_labels) for item in data.draw.val)


def has_tests(data: DataModule) -> bool:
    """Whether there are test images of every test split."""
    return all(data.count_tests().values())


def refuse_empty_val(data: DataModule) -> None:
    """Raise DataError where there is nothing to validate on."""
    if not has_val(data):
        tested = "; `clipbench test` measures on its test images" if data.split.test else ""
        raise DataError(f"'{data.dataset}' has no val images of the classes that are trained on{tested}")


def measured(method: Method, data: DataModule, trainer: L.Trainer) -> list[str]:
    """Run a trainer over what the data has, test images or else val images; the lines to be printed."""
    if has_tests(data):
        trainer.test(method, datamodule=data, verbose=False)
        return list(lines_of(method, data, testing=True))
    if has_val(data):
        trainer.validate(method, datamodule=data, verbose=False)
        return list(lines_of(method, data, testing=False))
    return [f"'{data.dataset}' has neither test nor val images to measure on"]


def test_images(data: DataModule, trainer: L.Trainer) -> int:
    """How many images a test of this trainer measures."""
    return sum(_limited(size, trainer.limit_test_batches, data) for size in data.count_tests().values())


def val_images(data: DataModule, trainer: L.Trainer) -> int:
    """How many images a validation of this trainer measures."""
    return _limited(_count(data.draw.val, data.train_labels), trainer.limit_val_batches, data)


def _limited(images: int, limit: float | None, data: DataModule) -> int:
    if isinstance(limit, float):
        return int(images * limit)
    return images if limit is None else min(images, limit * data.test_batch_size)


def lines_of(method: Method, data: DataModule, testing: bool) -> Iterator[str]:
    """A line for every split of the last test or validation.

    Args:
        method: what was measured.
        data: what it was measured on.
        testing: whether this was a test; else val images.
    """
    shown: dict[str, float] = {}
    whole = data.count_tests() if testing else {"val": _count(data.draw.val, data.train_labels)}
    names = {f"test/{split.name}": split for split in data.task.tests} if testing else {"val/accuracy": None}
    width = max(map(len, names)) + 2
    for name, split in names.items():
        key = split.name if split else "val"
        if key not in method.evaluation.correct:
            yield f"{name:<{width}}not measured: no batch was run"
            continue
        right = method.evaluation.outcome(key)
        shown[key] = 100 * int(right.sum()) / len(right)
        line = f"{name:<{width}}{shown[key]:6.2f} %  ({int(right.sum()):,} of {len(right):,}"
        line += f", a part of {whole[key]:,})" if len(right) != whole[key] else ")"
        if split is not None and method.novel_rule == "frozen" and not set(split.classnames) <= set(method.classnames):
            line += ", zero-shot: there is nothing learned for these classes"
        yield line
    if {"base", "novel"} <= shown.keys():
        yield f"{'H':<{width}}{harmonic_mean(shown['base'], shown['novel']):6.2f} %"
    if testing and (joint := method.evaluation.joint) is not None:
        for half, right in joint.correct().items():
            counts = f"({int(right.sum()):,} of {len(right):,})"
            share = 100 * int(right.sum()) / len(right)
            yield f"{half} among all {len(joint.classnames)} classes {share:6.2f} %  {counts}"
        if joint.correct():
            yield f"OpenworldAUC {joint.pairs().auc:6.2f} %"


def _count(items: Sequence[Item], labels: tuple[int, ...]) -> int:
    wanted = set(labels)
    return sum(item.label in wanted for item in items)
