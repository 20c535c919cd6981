"""KgCoOp: the loss in float64, the teacher's sentences, and what is left without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.data.task import Task, TestSplit
from clipbench.errors import ConfigError
from clipbench.methods.coop import CoOp
from clipbench.methods.kgcoop import KgCoOp
from clipbench.tuning.distillation import distance
from tests.methods.small import BASE, distillation


def loss_of(method: KgCoOp | CoOp) -> dict[str, torch.Tensor]:
    classes = method.class_features(BASE)
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
    return method.losses(logits, torch.tensor([2, 1]), classes)


def test_the_distillation_is_the_formula(make: Callable[..., KgCoOp]) -> None:
    method = make(KgCoOp, template="a centered satellite photo of {}.")
    terms = loss_of(method)
    t, t0 = (x.double() for x in (method.class_features(BASE), method.prompts.pretrained_features(BASE)))
    assert float(terms["distillation"].detach()) == pytest.approx(distillation(t, t0, 8), rel=1e-5)
    assert set(terms) == {"cross_entropy", "distillation"}


def test_without_a_weight_it_is_coop(make: Callable[..., KgCoOp | CoOp]) -> None:
    ours, coop = make(KgCoOp, distillation_weight=0.0), make(CoOp)
    assert torch.equal(ours.class_features(BASE), coop.class_features(BASE))
    assert set(loss_of(ours)) == {"cross_entropy"}
    with pytest.raises(ConfigError, match="distillation_weight must not be below 0"):
        make(KgCoOp, distillation_weight=-1.0)


def test_each_dataset_has_its_own_teacher(small: str) -> None:
    tests = (TestSplit("base", BASE, True),)
    method = KgCoOp(backbone=small, template_set="kgcoop", lr=0.002)
    method.setup(task=Task("eurosat", None, BASE, tests))
    assert method.templates == ("a centered satellite photo of {}.",)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_the_distance_sees_directions_alone(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    t, t0 = torch.randn((2, 4, 8), generator=generator)
    assert 0 <= float(distance(t, t0)) <= 2
    torch.testing.assert_close(distance(scale * t, t0), distance(t, t0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(distance(scale * t, t), torch.tensor(0.0), rtol=0, atol=1e-6)
    order = torch.randperm(4, generator=generator)
    torch.testing.assert_close(distance(t[order], t0[order]), distance(t, t0), rtol=1e-5, atol=1e-6)
