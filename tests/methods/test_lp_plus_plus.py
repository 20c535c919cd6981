"""LP++: its start, rates and steps in float64, and how the step that counts is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.errors import ConfigError, UnknownName
from clipbench.methods.base import Method
from clipbench.methods.lp_plus_plus import Images, LPPlusPlus, Probe
from clipbench.testing.subject import Subject
from tests.methods.small import record_of_one_shot


def images(labels: list[int], seed: int = 0, classes: int = 3, width: int = 6) -> tuple[Images, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn((classes, width), generator=generator, dtype=torch.float64)
    features = text[labels] + torch.randn((len(labels), width), generator=generator, dtype=torch.float64)
    return Images.of(features, text, torch.tensor(labels)), text


def none() -> torch.Tensor:
    return torch.zeros(3, dtype=torch.float64)


def test_start_and_rates_are_the_formulas() -> None:
    train, text = images([0, 0, 1, 2, 2, 2])
    probe, t = Probe(train, none()), F.normalize(text, dim=-1)
    v, labels = train.features, train.labels.tolist()
    for c in range(3):
        own = [row for row, label in zip(v, labels, strict=True) if label == c]
        torch.testing.assert_close(probe.weight[c].detach(), torch.stack(own).sum(dim=0), rtol=1e-12, atol=1e-12)
    means = [
        sum(float(row @ t[c]) for row, y in zip(v, labels, strict=True) if y == c) / labels.count(c) for c in range(3)
    ]
    assert probe.alpha.tolist() == pytest.approx([250 * sum(means) / 3] * 3, rel=1e-12)
    largest = float(torch.linalg.svdvals(v)[0]) ** 2
    widest = max(sum(float(row @ t[c]) ** 2 for row in v) for c in range(3))
    assert probe.rates == pytest.approx((4 * 6 / largest, 6 / (4 * widest)), rel=1e-10)


def test_the_steps_are_gradient_steps_of_the_loss() -> None:
    train, _ = images([0, 1, 2, 2, 1, 0, 0])
    probe = Probe(train, torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64))
    w, b, a = (tensor.detach().clone() for tensor in (probe.weight, probe.bias, probe.alpha))
    speed, total = [torch.zeros_like(w), torch.zeros_like(b)], torch.zeros_like(a)
    one_hot, count = F.one_hot(train.labels, 3).double(), 7
    for step in range(1, 31):
        error = ((train.features @ w.T + b + a * train.cosines).softmax(dim=-1) - one_hot) / count
        total += (error * train.cosines).sum(dim=0)  # never set to zero
        for number, (value, gradient) in enumerate([(w, error.T @ train.features), (b, error.sum(dim=0))]):
            speed[number] = 0.9 * speed[number] + gradient
            value -= probe.rates[0] * speed[number]
        if step % 10 == 0:
            a -= probe.rates[1] * total
        probe.step()
    for found, expected in ((probe.weight, w), (probe.bias, b), (probe.alpha, a)):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.permutations([0, 1, 2]))
def test_permuted_classes_give_a_permuted_probe(seed: int, order: list[int]) -> None:
    train, _ = images([0, 0, 1, 2, 2], seed)
    places = torch.argsort(torch.tensor(order))
    other = Images(train.features, train.cosines[:, order], places[train.labels])
    bias = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, two = Probe(train, bias), Probe(other, bias[order])
    for _ in range(12):
        one.step()
        two.step()
    torch.testing.assert_close(two.logits(other), one.logits(train)[:, order], rtol=1e-8, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 25), st.integers(0, 2**31))
def test_equal_classes_stay_equal(classes: int, shots: int, steps: int, seed: int) -> None:
    """The same images and the same sentence in each: nothing tells them apart, however long the probe is trained."""
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn((shots, 6), dtype=torch.float64, generator=generator), dim=-1)
    text = F.normalize(torch.randn((1, 6), dtype=torch.float64, generator=generator), dim=-1)
    cosines, labels = (rows @ text.T).repeat(classes, classes), torch.arange(classes).repeat_interleave(shots)
    train = Images(rows.repeat(classes, 1), cosines, labels)
    probe = Probe(train, torch.zeros(classes, dtype=torch.float64))
    for _ in range(steps):
        probe.step()
    found = probe.logits(train).detach()
    assert found.isfinite().all()
    torch.testing.assert_close(found, found[:, :1].expand(-1, classes), rtol=1e-9, atol=1e-9)


def solved(make: Callable[..., Method], train: Images, val: Images, **settings: int) -> Method:
    method = make(LPPlusPlus, **settings)
    method.start_bias = none()
    method.solve(train, val)
    return method


def test_the_last_of_the_best_steps_on_val_counts(make: Callable[..., Method]) -> None:
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    train, val = (images(labels, seed, width=32)[0] for seed in (3, 4))
    method = solved(make, train, val, steps=40)
    probe, right = Probe(train, none()), []
    for _ in range(40):
        probe.step()
        right.append(probe.correct(val))
    step = max(range(40), key=lambda k: (right[k], k)) + 1
    assert method.diagnostics["step"] == step
    assert (method.diagnostics["correct"], method.diagnostics["total"]) == (right[step - 1], 9)
    again = Probe(train, none())
    for _ in range(step):
        again.step()
    torch.testing.assert_close(method.trainable["weight"].detach(), again.weight.detach().float())
    torch.testing.assert_close(method.trainable["alpha"].detach(), again.alpha.detach().float())


def test_without_val_it_is_chosen_inside_the_train_draw(make: Callable[..., Method]) -> None:
    train, nothing = images([0, 0, 1, 1, 2, 2], width=32)[0], images([], width=32)[0]
    method = solved(make, train, nothing, steps=15)
    assert method.diagnostics["chosen_by"] == "cross-validation with 2 folds inside the train draw"
    assert method.diagnostics["total"] == 6
    method = solved(make, images([0, 1, 2, 2], width=32)[0], nothing, steps=15)
    assert method.diagnostics["chosen_by"] == "nothing: one image in a class and no val draw"
    assert method.diagnostics["step"] == 15


def test_one_image_a_class_and_the_record(tmp_path: Path) -> None:
    record = record_of_one_shot(Subject("lp_plus_plus", tmp_path))
    assert record.data["diagnostics"]["chosen_by"] == "val draw"
    assert record.data["diagnostics"]["total"] == 5
    assert record.validation_free is False


def test_what_means_nothing_is_refused(make: Callable[..., Method]) -> None:
    with pytest.raises(ConfigError, match="at least one step, steps is 0"):
        LPPlusPlus(steps=0)
    with pytest.raises(UnknownName, match="class of this LP"):
        make(LPPlusPlus).class_features(("lake",))
