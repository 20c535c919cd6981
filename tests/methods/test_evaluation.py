"""Accuracies come from finite logits over all images of a split, or there are none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbench.bench.plan import make_plan
from clipbench.bench.run import run_cell
from clipbench.data.task import Task, TestSplit
from clipbench.errors import MethodError
from clipbench.methods.base import Method
from clipbench.methods.evaluation import Evaluation, FiniteAccuracy, refuse_mixed, refuse_seen
from clipbench.methods.zero_shot import ZeroShot
from clipbench.testing.subject import Subject


def test_the_accuracy_is_the_share_of_right_images() -> None:
    accuracy = FiniteAccuracy("base", 3)
    accuracy.update(torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.tensor([0, 2]))
    accuracy.update(torch.tensor([[0.0, 0, 2]]), torch.tensor([2]))
    assert float(accuracy.compute()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_give_none(value: float) -> None:
    accuracy = FiniteAccuracy("novel", 3)
    accuracy.update(torch.tensor([[1.0, 0, 0]]), torch.tensor([0]))
    accuracy.update(torch.tensor([[value, 0, 0], [0, 0, 1]]), torch.tensor([0, 2]))
    with pytest.raises(MethodError, match="1 image has logits that are not finite in split 'novel'"):
        accuracy.compute()
    accuracy.reset()
    accuracy.update(torch.tensor([[1.0, 0, 0]]), torch.tensor([0]))
    assert float(accuracy.compute()) == 1


def test_predict_refuses_them_too(make: Callable[..., Method]) -> None:
    class Spoilt(ZeroShot):
        def image_features(self, images: torch.Tensor) -> torch.Tensor:
            return super().image_features(images) * torch.nan

    method: Any = make(Spoilt)
    with pytest.raises(MethodError, match="Spoilt gives probabilities that are not finite"):
        method.predict(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_a_fit_that_diverged_is_a_failed_cell_and_leaves_nothing(tmp_path: Path) -> None:
    subject = Subject("clipfit", tmp_path, dataset="dtd", settings={"model.lr": 1e30})
    plan = make_plan(subject.request(), tmp_path)
    record = run_cell(plan.cells[0], plan.folder).record
    assert record is not None
    assert not record.ok
    assert "not finite" in str(record.error)
    assert record.splits == {}
    assert not list(tmp_path.rglob("weights/*.safetensors"))


@pytest.mark.parametrize(
    ("seen", "new", "mixed"),
    [
        ("", False, False),
        ("ab", False, False),
        ("abcd", True, False),
        ("c", True, False),
        ("a", False, True),
        ("ac", True, True),
        ("xy", False, False),
        ("abxy", False, False),
    ],
)
def test_what_a_split_is_called_is_true_of_all_its_classes(seen: str, new: bool, mixed: bool) -> None:
    task = Task("toys", None, ("a", "b"), (TestSplit("base", ("a", "b"), True), TestSplit("novel", ("c", "d"), False)))
    for refuse, wrong in ((refuse_seen, new), (refuse_mixed, mixed)):
        with pytest.raises(MethodError, match=r"split '(base|novel)'") if wrong else nullcontext():
            refuse(task, frozenset(seen))
    with pytest.raises(MethodError) if new or mixed else nullcontext():
        Evaluation().begin(task, frozenset(seen), "test")
    with pytest.raises(MethodError) if new else nullcontext():
        Evaluation().begin(task, frozenset(seen), "fit")
