"""Quantities of one tensor against sums by hand, in float64."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch

from clipbench.analysis.changes import Change, GradientPath, change


def exact(values: list[float]) -> Fraction:
    return sum((Fraction(value) ** 2 for value in values), Fraction(0))


def test_change_is_the_sum_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(3, 7, generator=generator)
    now = before + 1e-4 * torch.randn(3, 7, generator=generator)
    found = change(now, before)
    pairs = list(zip(now.flatten().tolist(), before.flatten().tolist(), strict=True))
    squares = float(sum((Fraction(x) - Fraction(y)) ** 2 for x, y in pairs))
    norm = math.sqrt(exact([y for _, y in pairs]))
    assert found.numbers == 21
    assert found.sum_squares == pytest.approx(squares, rel=1e-12)
    assert found.mean_square == pytest.approx(squares / 21, rel=1e-12)
    assert found.reference_norm == pytest.approx(norm, rel=1e-12)
    assert found.relative == pytest.approx(math.sqrt(squares) / norm, rel=1e-12)


def test_small_changes_of_large_tensors_are_not_lost() -> None:
    """In float32 a sum of many equal squares stops growing; here it is exact."""
    before = torch.full((1024, 1024), 1.0)
    now = before + 2.0**-20
    assert change(now, before).sum_squares == 2.0**20 * 2.0**-40


def test_relative_change_of_a_zero_tensor_is_unknown() -> None:
    assert math.isnan(change(torch.ones(3), torch.zeros(3)).relative)
    assert Change(3, 0.0, 2.0).relative == 0


def steps(count: int = 6) -> list[list[float]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 5, generator=generator).tolist()


def cos(one: list[float], other: list[float]) -> float:
    dot = sum(x * y for x, y in zip(one, other, strict=True))
    return dot / math.sqrt(sum(x * x for x in one)) / math.sqrt(sum(y * y for y in other))


def test_path_squares_and_cosines_are_the_sums_by_hand() -> None:
    path, gradients = GradientPath(), steps()
    gradients = [torch.tensor(g).tolist() for g in gradients]  # the float32 values
    rates = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    for gradient, rate in zip(gradients[:4], rates, strict=False):
        path.add(torch.tensor(gradient), rate)
    first = path.read()
    for gradient, rate in zip(gradients[4:], rates[4:], strict=True):
        path.add(torch.tensor(gradient), rate)
    second = path.read()
    norms = [math.sqrt(sum(x * x for x in g)) for g in gradients]
    pairs = [cos(one, other) for one, other in itertools.pairwise(gradients)]
    assert first["path_length"] == pytest.approx(sum(r * n for r, n in zip(rates[:4], norms, strict=False)), rel=1e-12)
    assert second["path_length"] == pytest.approx(sum(r * n for r, n in zip(rates, norms, strict=True)), rel=1e-12)
    assert second["gradient_squares"] == pytest.approx(sum(n * n for n in norms), rel=1e-12)
    assert first["gradient_cosine"] == pytest.approx(sum(pairs[:3]) / 3, rel=1e-12)
    assert second["gradient_cosine"] == pytest.approx(sum(pairs[3:]) / 2, rel=1e-12), "since the last reading"


def test_steps_without_a_usable_gradient_count_nothing() -> None:
    path, one = GradientPath(), torch.tensor([3.0, 4.0])
    path.add(one, 1.0)
    path.add(torch.tensor([math.inf, 1.0]), 1.0)  # a loss scaler skips such a step
    path.add(one, 1.0)
    path.add(torch.zeros(2), 1.0)
    path.add(one, 1.0)
    path.add(None, 1.0)  # frozen
    path.add(one, 1.0)
    found = path.read()
    assert found["path_length"] == 20
    assert found["gradient_squares"] == 100
    assert math.isnan(found["gradient_cosine"]), "no two successive steps with a direction"
    path.add(-one, 1.0)
    assert path.read()["gradient_cosine"] == pytest.approx(-1)


def test_the_gradient_is_kept_as_it_was() -> None:
    path, buffer = GradientPath(), torch.tensor([1.0, 0.0])
    path.add(buffer, 1.0)
    buffer.copy_(torch.tensor([0.0, 1.0]))
    path.add(buffer, 1.0)
    assert path.read()["gradient_cosine"] == 0
