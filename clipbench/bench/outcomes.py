"""What a fit and a test came to: whether it may be recorded, and what a record says of every test split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning as L
import torch

from clipbench.data.task import Task
from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.records.correctness import pack_bits


def check_fitted(method: Method, trainer: L.Trainer) -> None:
    """Refuse a fit that took no batch, and what its last step has spoilt.

    Raises:
        MethodError: nothing was learned, or a trained tensor is not finite.
    """
    if not method.derived and not trainer.fit_loop.epoch_loop.batch_progress.total.completed:
        raise MethodError(
            "nothing was learned: the fit saw no batch; look at trainer.max_epochs, limits of it and callbacks"
        )
    check_finite(method)


def check_finite(method: Method) -> None:
    """Refuse tensors that the last step has spoilt, and a last loss at which nobody looked.

    Raises:
        MethodError: a trained tensor or a term of the loss is not finite.
    """
    for name, term in method.last_losses.items():
        if not torch.isfinite(term):
            raise MethodError(
                f"the fit of {type(method).__name__} ended with a loss that is not finite ({name} {term:g})"
            )
    for name, tensor in method.trainable.items():
        if not torch.isfinite(tensor).all():
            raise MethodError(f"after the fit of {type(method).__name__} the trained tensor '{name}' is not finite")


def split_outcomes(method: Method, task: Task) -> dict[str, dict[str, Any]]:
    """Counts and bitmap of every test split, in the order of its items."""
    result = {}
    for split in task.tests:
        correct = method.evaluation.outcome(split.name).numpy()
        result[split.name] = {
            "correct": int(correct.sum()),
            "total": len(correct),
            "classes": len(split.classnames),
            "trained": split.trained,
            "novel_rule": "own" if split.trained else method.novel_rule,
            "bitmap": pack_bits(correct),
        }
    return result


def joint_outcome(method: Method, task: Task) -> dict[str, Any]:
    """`joint` of a record, where the protocol has it: counts and bitmaps over all classes, pairs of OpenworldAUC.

    `no_joint` where it has two halves of one set, and a class of one has the prompt of one of the other.
    """
    if common := task.in_both_halves:
        names = ", ".join(f"'{name}'" for name in common[:3])
        return {"no_joint": f"class names in both halves ({names}): nothing could tell them apart"}
    joint = method.evaluation.joint
    correct = joint.correct() if joint is not None else {}
    if joint is None or not correct:
        return {}
    halves = {
        name: {"correct": int(right.sum()), "total": len(right), "bitmap": pack_bits(right.numpy())}
        for name, right in correct.items()
    }
    return {"joint": {"classes": len(joint.classnames), **halves, "pairs": asdict(joint.pairs())}}
