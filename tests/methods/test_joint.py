"""Base and novel among all classes: OpenworldAUC against brute force and sklearn, and the rule of bound heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clipbench.bench.outcomes import joint_outcome
from clipbench.data.task import Task, TestSplit
from clipbench.errors import MethodError
from clipbench.methods.answers import Answers, divided
from clipbench.methods.joint import Joint, Pairs, count_pairs
from clipbench.methods.linear_probe import LinearProbe
from clipbench.methods.zero_shot import ZeroShot

BASE, NOVEL = TestSplit("base", ("a", "b", "c"), True), TestSplit("novel", ("d", "e"), False)
images = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.25, 0.5, 0.5000001, 0.9])), min_size=1, max_size=12)


def columns(rows: list[tuple[bool, float]]) -> tuple[Tensor, Tensor]:
    """Rightness and scores."""
    return torch.tensor([right for right, _ in rows]), torch.tensor([score for _, score in rows], dtype=torch.float64)


@given(images, images)
def test_pairs_are_those_of_the_definition(base: list[tuple[bool, float]], novel: list[tuple[bool, float]]) -> None:
    won = sum(b and n and sb > sn for b, sb in base for n, sn in novel)
    tied = sum(b and n and sb == sn for b, sb in base for n, sn in novel)
    pairs = count_pairs(*columns(base), *columns(novel))
    assert (pairs.won, pairs.tied, pairs.total) == (won, tied, len(base) * len(novel))
    base_accuracy, novel_accuracy = (sum(right for right, _ in rows) / len(rows) for rows in (base, novel))
    assert pairs.auc <= 100 * base_accuracy * novel_accuracy + 1e-9


def test_it_is_sklearns_auc_among_the_right_ones() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    base = [(bool(r), float(s)) for r, s in zip(generator.random(200) < 0.8, generator.random(200) ** 0.5, strict=True)]
    novel = [(bool(r), float(s)) for r, s in zip(generator.random(150) < 0.6, generator.random(150), strict=True)]
    right = [(1, score) for ok, score in base if ok] + [(0, score) for ok, score in novel if ok]
    area = roc_auc_score([label for label, _ in right], [score for _, score in right])
    share = sum(ok for ok, _ in base) / 200 * sum(ok for ok, _ in novel) / 150
    assert count_pairs(*columns(base), *columns(novel)).auc == pytest.approx(100 * area * share, abs=1e-12)


def test_pairs_that_are_wrong_on_both_sides_are_not_won() -> None:
    nobody = torch.tensor([False])
    assert count_pairs(nobody, torch.tensor([0.1]), nobody, torch.tensor([0.9])).auc == 0


def test_a_run_is_counted_over_all_classes() -> None:
    joint = Joint(BASE, NOVEL)
    assert joint.classnames == ("a", "b", "c", "d", "e")
    over_all = torch.tensor([[5.0, 0, 0, 0, 0], [0.0, 4, 0, 6, 0]])  # the second is taken for the first novel class
    joint.update(BASE, over_all[:, :3], over_all, torch.tensor([0, 1]))
    assert joint.correct() == {}  # only one half has been seen
    other = torch.tensor([[0.0, 0, 9, 1, 0], [0.0, 0, 0, 0, 7]])
    joint.update(NOVEL, other[:, 3:], other, torch.tensor([0, 1]))
    assert {name: right.tolist() for name, right in joint.correct().items()} == {
        "base": [True, False],
        "novel": [False, True],
    }
    # inside their halves all four are right; the first novel image looks more like base than both base images
    assert (joint.pairs().won, joint.pairs().tied, joint.pairs().total) == (2, 0, 4)


def test_logits_that_are_not_finite_give_no_accuracy() -> None:
    joint, over_all = Joint(BASE, NOVEL), torch.tensor([[1.0, 0, 0, 0, float("nan")]])
    with pytest.raises(MethodError, match="logits of base images among all 5 classes are not finite"):
        joint.update(BASE, over_all[:, :3], over_all, torch.tensor([0]))


def test_no_halves_where_a_name_stands_in_both_or_all_is_trained() -> None:
    both = TestSplit("novel", ("c", "d"), False)
    assert Task("x", None, BASE.classnames, (BASE, NOVEL)).halves == (BASE, NOVEL)
    assert Task("x", None, BASE.classnames, (BASE, both)).halves is None
    same_prompt = TestSplit("novel", ("d", " C_"), False)
    assert Task("x", None, BASE.classnames, (BASE, same_prompt)).in_both_halves == ("c",)
    assert Task("x", None, BASE.classnames, (TestSplit("all", BASE.classnames, True),)).halves is None


def test_a_record_says_why_two_halves_were_not_measured_together(make: Callable[..., Any]) -> None:
    both = TestSplit("novel", ("c", "d", "a"), False)
    said = joint_outcome(make(ZeroShot), Task("x", None, BASE.classnames, (BASE, both)))
    assert said == {"no_joint": "class names in both halves ('a', 'c'): nothing could tell them apart"}
    assert joint_outcome(make(ZeroShot), Task("x", None, BASE.classnames, (BASE,))) == {}, "there are no two halves"


@given(st.permutations(range(5)), st.integers(1, 6))
def test_a_half_without_a_right_image_wins_no_pair(order: list[int], images_: int) -> None:
    joint = Joint(BASE, NOVEL)
    logits = torch.tensor([order] * images_, dtype=torch.float32)
    joint.update(BASE, logits[:, :3], logits, logits[:, :3].argmin(dim=-1))
    joint.update(NOVEL, logits[:, 3:], logits, logits[:, 3:].argmax(dim=-1))
    pairs = joint.pairs()
    assert (pairs.won, pairs.tied, pairs.total, pairs.auc) == (0, 0, images_**2, 0)
    assert not joint.correct()["base"].any()


@given(st.sampled_from([BASE, NOVEL]), st.integers(0, 5), st.lists(st.just(0), max_size=2), st.integers(0, 2**31))
def test_a_half_without_an_image_leaves_the_columns_empty(
    seen: TestSplit, images_: int, empty_batches: list[int], seed: int
) -> None:
    joint, generator = Joint(BASE, NOVEL), torch.Generator().manual_seed(seed)
    batches = [(seen, images_), *((BASE if seen is NOVEL else NOVEL, size) for size in empty_batches)]
    for split, size in batches:
        over_all = torch.randn((size, 5), generator=generator)
        inside = over_all[:, :3] if split is BASE else over_all[:, 3:]
        joint.update(split, inside, over_all, torch.zeros(size, dtype=torch.long))
    assert joint.correct() == {}
    assert joint.pairs() == Pairs(0, 0, 0)
    assert math.isnan(joint.pairs().auc)
    method = SimpleNamespace(evaluation=SimpleNamespace(joint=joint))
    assert joint_outcome(method, Task("x", None, BASE.classnames, (BASE, NOVEL))) == {}  # type: ignore[arg-type]


@given(st.integers(1, 6), st.integers(1, 6))
def test_equal_scores_count_half(base: int, novel: int) -> None:
    joint, row = Joint(BASE, NOVEL), torch.tensor([[2.0, 1, 0, 0, -1]])
    joint.update(BASE, row[:, :3].expand(base, -1), row.expand(base, -1), torch.zeros(base, dtype=torch.long))
    joint.update(NOVEL, row[:, 3:].expand(novel, -1), row.expand(novel, -1), torch.zeros(novel, dtype=torch.long))
    assert (joint.pairs().won, joint.pairs().tied, joint.pairs().auc) == (0, base * novel, 50)


logit_rows = st.lists(st.floats(-30, 30), min_size=5, max_size=5)


@given(logit_rows, st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_bound_heads_divide_what_zero_shot_gives_their_half(zero_shot: list[float], head: list[float]) -> None:
    trained = torch.tensor([True, False, True, False, True])
    whole = torch.tensor([zero_shot], dtype=torch.float64)
    found = divided(whole, torch.tensor([head], dtype=torch.float64), trained)
    assert found.dtype == torch.float32
    probabilities, ours = whole.softmax(-1)[0], found.double().exp()[0]
    torch.testing.assert_close(ours.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[~trained], probabilities[~trained], rtol=1e-4, atol=1e-6)
    expected = probabilities[trained].sum() * torch.tensor(head, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(ours[trained], expected, rtol=1e-3, atol=1e-6)


def test_a_split_of_another_dataset_brings_its_templates_and_is_new(make: Callable[..., Any]) -> None:
    method = make(ZeroShot, template="a photo of a {}.")
    images = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    there = TestSplit("there", ("forest", "sea or lake"), False, "elsewhere", "a satellite photo of {}.")
    found = Answers(method, images, there).logits(there.classnames)
    other = make(ZeroShot, template="a satellite photo of {}.")
    assert torch.equal(found, other(images, there.classnames))
    assert torch.equal(method(images, there.classnames), make(ZeroShot)(images, there.classnames))  # nothing stays
    assert Task("x", None, BASE.classnames, (BASE, there)).halves is None


def test_a_bound_head_has_no_say_elsewhere_whatever_the_names(make: Callable[..., Any]) -> None:
    probe = make(LinearProbe)
    with torch.no_grad():
        probe.weight.normal_(generator=torch.Generator().manual_seed(0))
    images = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    there = TestSplit("there", (*probe.classnames[:1], "sea or lake"), False, "elsewhere", "a photo of a {}.")
    zero_shot = make(ZeroShot)(images, there.classnames)
    assert torch.equal(Answers(probe, images, there).logits(there.classnames), zero_shot)
    assert not torch.equal(probe(images, there.classnames), zero_shot)  # at home the known class has its row
