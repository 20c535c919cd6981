"""What a validation or test measures: micro accuracy of every split, and which images were right."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from clipbench.data.task import Task, TestSplit
from clipbench.errors import ConfigError, MethodError
from clipbench.methods.joint import Joint


class FiniteAccuracy(MulticlassAccuracy):
    """Micro accuracy that is a MethodError where a logit was not finite: torch would count it as the first class.

    The check stays on the device; it is read where the accuracy is.
    """

    not_finite: Tensor

    def __init__(self, split: str, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, average="micro")
        self.split = split
        self.add_state("not_finite", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch of logits (B, C) and labels (B,)."""
        super().update(preds, target)
        self.not_finite = self.not_finite + (~torch.isfinite(preds)).any(dim=-1).sum()

    def compute(self) -> Tensor:
        """The accuracy in [0, 1]; MethodError where an image has no finite logits."""
        if wrong := int(self.not_finite):
            images = "image has" if wrong == 1 else "images have"
            raise MethodError(f"{wrong} {images} logits that are not finite in split '{self.split}': no accuracy")
        return super().compute()


class Evaluation(nn.Module):
    """The accuracies of one run over some splits.

    Attributes:
        metrics: name of a split to its metric; a module, so that Lightning finds and moves it.
        correct: name of a test split to the correctness of its batches, in the order of its images.
        joint: what is measured over both halves at once, where the task has such halves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict()
        self.correct: dict[str, list[Tensor]] = {}
        self.joint: Joint | None = None

    def begin(self, task: Task, seen: Set[str] = frozenset(), stage: str | None = None) -> None:
        """Forget the last run; make this one's metrics, which Lightning looks for before the first log.

        Args:
            task: what will be measured.
            seen: the classes that were trained on before.
            stage: Lightning's.

        Raises:
            MethodError: a split whose classes are said to be new holds some that were trained on; one that is only
                measured and said to be trained on holds some, but not only such.
        """
        refuse_seen(task, seen)
        if stage in ("validate", "test"):
            refuse_mixed(task, seen)
        splits = [_validated(task), *task.tests]
        # one class alone is a degenerate task that torchmetrics refuses
        sizes = {split.name: max(2, len(split.classnames)) for split in splits}
        self.metrics = nn.ModuleDict({name: FiniteAccuracy(name, size) for name, size in sizes.items()}).train(
            self.training
        )
        self.correct = {}
        self.joint = Joint(*task.halves) if task.halves else None

    def update(self, split: TestSplit, logits: Tensor, labels: Tensor, testing: bool) -> tuple[MulticlassAccuracy, str]:
        """Take a batch; returns the split's metric, in [0, 1], and the name that it is logged by ("test/base" ...).

        Args:
            split: of the batch.
            logits: (B, C).
            labels: (B,), counted inside the split.
            testing: whether this is a test; else it validates.
        """
        accuracy: Any = self.metrics[split.name]
        accuracy.update(logits, labels)
        self.correct.setdefault(split.name, []).append((logits.argmax(dim=-1) == labels).cpu())
        return accuracy, "val/accuracy" if split.name == "val" else f"{'test' if testing else 'val'}/{split.name}"

    @staticmethod
    def finite(probabilities: Tensor, method: str) -> Tensor:
        """The same; MethodError where one is not finite."""
        if not torch.isfinite(probabilities).all():
            raise MethodError(
                f"{method} gives probabilities that are not finite: what it learned or an input is spoilt"
            )
        return probabilities

    def outcome(self, split: str) -> Tensor:
        """Which images of a split were right, (N,) bool."""
        return torch.cat(self.correct[split])


def refuse_seen(task: Task, seen: Set[str]) -> None:
    """Raise MethodError where classes that a task counts as new were trained on.

    Args:
        task: its test splits say whether their classes are the trained ones.
        seen: the classes that were trained on.
    """
    for split in task.tests:
        known = (
            []
            if split.trained or split.dataset
            else [name for name in split.classnames if name in seen - set(task.train)]
        )
        if known:
            raise MethodError(
                f"{len(known)} of the {len(split.classnames)} classes of split '{split.name}' of '{task.dataset}' were "
                f"trained on ('{known[0]}' ...), so no accuracy may be called {split.name}: take the protocol that the "
                "weights were learned under, as --protocol few_shot"
            )


def refuse_mixed(task: Task, seen: Set[str]) -> None:
    """Raise MethodError where of the classes that a task counts as trained on some were not; of other data none were.

    Args:
        task: its test splits say whether their classes are the trained ones.
        seen: the classes that were trained on.
    """
    for split in (*task.tests, _validated(task)):
        new = [name for name in split.classnames if name not in seen] if split.trained else []
        if 0 < len(new) < len(split.classnames):
            raise MethodError(
                f"{len(new)} of the {len(split.classnames)} classes of split '{split.name}' of '{task.dataset}' were "
                f"not trained on ('{new[0]}' ...): take the classes and the protocol that the weights were learned "
                "under, as --protocol base_to_novel; `clipbench predict` takes any classes"
            )


def labelled(batch: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch of ours, or of a plain pair."""
    return (batch.image, batch.label) if hasattr(batch, "image") else (batch[0], batch[1])


def split_of(batch: Any, task: Task | None, trainer: L.Trainer, loader: int) -> TestSplit:
    """The split that a batch is of: it says so itself, or it is a plain pair of images and labels of the task.

    Args:
        batch: of a val or test loader.
        task: what is measured.
        trainer: it validates, tests or predicts.
        loader: number of the loader that the batch comes from.

    Raises:
        ConfigError: a batch of a split that the task does not have, or a plain one of which nothing says what it is.
    """
    assert task is not None
    batches = trainer.num_test_batches if trainer.testing else trainer.num_predict_batches if trainer.predicting else []
    loaders, trained = len(batches), _validated(task)
    name = getattr(batch, "split", None)
    name = name if isinstance(name, str) else None  # a tensor has a method of this name
    known = {split.name: split for split in task.tests} | {"val": trained, "train": trained}
    if name in known:
        return known[name]
    if name is None and not batches:
        return trained
    if name is None and loaders == len(task.tests):
        return task.tests[loader]
    what = f"split '{name}'" if name else f"{loaders} loader{'s' * (loaders > 1)}"
    raise ConfigError(
        f"nothing says which classes the images of {what} are about: '{task.dataset}' has the test splits "
        f"{', '.join(split.name for split in task.tests) or 'none'}; test with its data module"
    )


def _validated(task: Task) -> TestSplit:
    return TestSplit("val", task.train, trained=True)


def task_of(trainer: Any, task: Task | None, train_seed: int, method: str) -> tuple[Task, int]:
    """The task and the train seed of a trainer's data module; those that a method has where there is none of ours.

    Raises:
        ConfigError: the trainer has several devices, or nothing says which classes.
    """
    if trainer is not None and trainer.world_size > 1:
        raise ConfigError(f"a method works on one device, not on {trainer.world_size}: set trainer.devices to 1")
    data: Any = getattr(trainer, "datamodule", None)
    if isinstance(getattr(data, "task", None), Task):
        return data.task, data.train_seed
    if task is None:
        raise ConfigError(f"{method} does not know its classes: give a data module of clipbench, or setup(task=...)")
    return task, train_seed


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within this context a module is in eval mode; afterwards all its parts are in the modes that they were in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
