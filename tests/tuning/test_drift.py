"""Distances of Fisher values: the published numbers, float64 oracles, and what each of them is blind to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clipbench.randomness import torch_generator
from clipbench.tuning.drift import centred_distance, paired_drift, percentiles, released_distance

X = 10 ** torch.linspace(-8, -4, 1000, dtype=torch.float64)
WIDER = 10 ** torch.linspace(-9, -3, 1000, dtype=torch.float64)


def lognormal(count: int, seed: int, width: float = 1.0) -> Tensor:
    """Values with a standard deviation of `width` decades."""
    return 10 ** (width * torch.randn(count, generator=torch_generator(seed, "drift"), dtype=torch.float64) - 6)


@pytest.mark.parametrize(
    ("log", "expected"),
    [(True, (0.018144, 0.188439, 0.400926, 0.337193)), (False, (0.062265, 0.166410, 0.310017, 0.247076))],
)
def test_released_distance_gives_the_reference_values(log: bool, expected: tuple[float, ...]) -> None:
    found = [released_distance(X, y, log=log) for y in (1.1 * X, 2 * X, 10 * X, WIDER)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_released_distance_at_its_ends() -> None:
    assert released_distance(torch.full((50,), 1e-3), torch.full((50,), 1.0)) == pytest.approx(0.832555, abs=1e-6)
    assert released_distance(torch.zeros(9), torch.zeros(9)) == 0
    assert released_distance(torch.zeros(9), torch.zeros(9), log=False) == 0


def test_released_distance_takes_a_common_factor_for_drift() -> None:
    """Section 3.3, item 5; its values are given in two digits."""
    x = lognormal(50_000, 0)
    found = [released_distance(x, factor * x) for factor in (1, 1.1, 2, 10, 100)]
    assert found == pytest.approx([0, 0.020, 0.10, 0.32, 0.57], abs=0.006)
    assert released_distance(7 * x, 70 * x) == pytest.approx(found[3], abs=1e-3)


@pytest.mark.parametrize(("count", "expected"), [(16, 0.73), (128, 0.37), (768, 0.15), (36_864, 0.021)])
def test_released_distance_is_large_by_chance_in_small_groups(count: int, expected: float) -> None:
    """Section 3.3, item 6: independent samples of one distribution."""
    found = [
        released_distance(lognormal(count, i), lognormal(count, 1000 + i)) for i in range(40 if count < 999 else 4)
    ]
    assert np.mean(found) == pytest.approx(expected, rel=0.04)


def centred_oracle(x: Tensor, y: Tensor) -> float:
    a, b = (np.log10(v[v > 0].numpy().astype(float)) for v in (x, y))
    a, b = a - np.sort(a)[(len(a) - 1) // 2], b - np.sort(b)[(len(b) - 1) // 2]
    low, high = np.percentile(np.concatenate([a, b]), [1, 99])
    p, q = (np.histogram(np.clip(v, low, high), 64, (low, high))[0] for v in (a, b))
    chance = (((p + q) > 0).sum() - 1) / (4 * (len(a) + len(b)) / 2)
    p, q = p / p.sum(), q / q.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = [np.where(v > 0, v * np.log(v / ((p + q) / 2)), 0).sum() for v in (p, q)]
    return math.sqrt(max(0.0, sum(kl) / 2 - chance))


@pytest.mark.parametrize("seed", range(3))
def test_centred_distance_equals_its_formula(seed: int) -> None:
    x, y = lognormal(3000, seed), lognormal(2500, seed + 10, 1.5)
    x[:100] = 0
    found = centred_distance(x, y)
    assert found == pytest.approx(centred_oracle(x, y), abs=1e-12)
    assert found is not None
    assert found > 0.1


def test_centred_distance_is_blind_to_a_common_factor_and_sees_a_wider_distribution() -> None:
    x = lognormal(20_000, 1)
    assert centred_distance(x, 10 * x) == 0
    assert centred_distance(x, lognormal(20_000, 2, 1.3)) == pytest.approx(0.125, abs=0.01)
    assert centred_distance(x, lognormal(20_000, 2)) < 0.02  # type: ignore[operator]


def test_scores_need_enough_entries_above_zero() -> None:
    few = torch.cat([lognormal(31, 0), torch.zeros(100, dtype=torch.float64)])
    assert centred_distance(few, lognormal(131, 1)) is None
    assert paired_drift(torch.stack([few, few]), torch.stack([few, few])) is None
    assert centred_distance(torch.full((99,), 2.0), torch.full((99,), 3.0)) == 0


def paired_oracle(previous: Tensor, current: Tensor) -> float:
    halves = np.log10(torch.cat([previous, current]).numpy())
    a1, a2, b1, b2 = halves - np.sort(halves, axis=1)[:, [(halves.shape[1] - 1) // 2]]
    across = [((a - b) ** 2).mean() for a in (a1, a2) for b in (b1, b2)]
    return np.mean(across) - (((a1 - a2) ** 2).mean() + ((b1 - b2) ** 2).mean()) / 2


def test_paired_drift_equals_its_formula_and_passes_over_what_is_not_above_zero() -> None:
    halves = torch.stack([lognormal(500, seed) for seed in range(4)])
    expected = paired_oracle(halves[:2], halves[2:])
    bad = torch.cat([halves, torch.tensor([[0.0, 1.0, math.inf]] * 4, dtype=torch.float64)], dim=1)
    bad[1:, -3] = 1
    bad[:, -2] = torch.tensor([1.0, math.nan, 1.0, 1.0])
    assert paired_drift(bad[:2], bad[2:]) == pytest.approx(expected, abs=1e-12)


def noisy(truth: Tensor, seed: int, structured: bool) -> Tensor:
    """Two halves of noise around log10 values; structured: noise shared by rows and columns, as of a matrix."""
    generator = torch_generator(seed, "noise")
    if structured:
        side = math.isqrt(len(truth))
        noise = torch.randn(2, side, 1, generator=generator) + torch.randn(2, 1, side, generator=generator)
        return 10 ** (truth + 0.5 * noise.flatten(1).double())
    return 10 ** (truth + 0.7 * torch.randn(2, len(truth), generator=generator).double())


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("count", [64, 4096])
def test_paired_drift_is_zero_on_average_without_drift(count: int, structured: bool) -> None:
    """However many entries there are, however they depend on each other, and whatever the gradients' size."""
    truth = torch.log10(lognormal(count, 3))
    found = [
        paired_drift(noisy(truth, 2 * i, structured), 10 ** (i % 5) * noisy(truth, 2 * i + 1, structured))
        for i in range(200)
    ]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert error < 0.05


@pytest.mark.parametrize("count", [256, 65_536])
def test_paired_drift_measures_a_planted_drift_whatever_the_size(count: int) -> None:
    truth = torch.log10(lognormal(count, 4))
    wider = 1.3 * (truth - truth.median())  # every entry by 0.3 of its distance from the median: 0.09 squared decades
    found = [paired_drift(noisy(truth, 2 * i, False), noisy(wider, 2 * i + 1, False)) for i in range(20)]
    assert np.mean(found) == pytest.approx(0.09 * float((truth - truth.median()).square().mean()), rel=0.2)


def test_paired_drift_sees_values_that_changed_places() -> None:
    x = lognormal(4096, 5)
    permuted = x[torch.randperm(4096, generator=torch_generator(6, "order"))]
    assert released_distance(x, permuted) == 0
    assert centred_distance(x, permuted) == 0
    assert paired_drift(x.expand(2, -1), permuted.expand(2, -1)) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("count", [2, 3, 100, 101])
def test_percentiles_equal_those_of_a_sort(count: int) -> None:
    values = lognormal(count, 7)
    shares = (0.01, 0.5, 0.99)
    expected = np.percentile(values.numpy(), [100 * share for share in shares])
    assert percentiles(values, shares) == pytest.approx(tuple(expected), rel=1e-12)
