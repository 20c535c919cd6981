"""How far the Fisher values of a group have drifted: one number from two estimates of the same entries.

Three answers, Fisher values being known up to noise and to one common factor (the size of the gradients):

- `released_distance`: root of the Jensen-Shannon divergence of two histograms, as the published code computes it. Sees
  a common factor as drift, and the fewer entries, the larger it is by chance alone.
- `centred_distance`: the same after each side lost its median, its expected value by chance subtracted.
- `paired_drift`: entry by entry, with the noise measured by two halves of each interval instead of assumed.

`centred_distance` correlates with the size of a group, by noise alone, and orders groups as it would without training;
`paired_drift` does neither and follows the true drift, given windows of some epochs (measured: docs/analysis.md).

All work in float64 on flat tensors of any device and return plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 64
FLOOR = 1e-12  # of the published code: added to values before the logarithm, and to counts
FEWEST = 32  # entries above zero below which there is no score


def released_distance(reference: Tensor, current: Tensor, bins: int = BINS, log: bool = True) -> float:
    """J = sqrt(JSD(hist(R), hist(F))) in nats; at most sqrt(ln 2) = 0.8326.

    Args:
        reference: running average of the Fisher values of a group, (n,).
        current: Fisher values of the same entries now, (n,).
        bins: number of equally wide bins over the range of both together.
        log: whether the histograms are of log10(|F| + 1e-12), from the 1st to the 99th percentile without the values
            outside; if not, they are of |F|, from the smallest to the largest value.

    Source: AtlasAnalyticsLab/FisherAdapTune@ebdb854 scripts/fisher_core.py, read and written anew.
    """
    sides = [side.abs().double() for side in (reference, current)]
    if log:
        sides = [(side + FLOOR).log10() for side in sides]
    together = torch.cat(sides)
    low, high = percentiles(together, (0.01, 0.99)) if log else (together.min().item(), together.max().item())
    if high <= low:
        return 0.0
    counts = [_histogram(side[(side >= low) & (side <= high)], low, high, bins) + FLOOR for side in sides]
    return math.sqrt(max(0.0, _divergence(*counts)))


def centred_distance(previous: Tensor, current: Tensor, bins: int = BINS) -> float | None:
    """D = sqrt(max(0, JSD - (K_occ - 1) / (4 n))) of the logarithms around their own medians, in nats.

    Args:
        previous: Fisher values of a group in the last interval, (n,).
        current: Fisher values of the same entries in this interval, (n,).
        bins: number of equally wide bins from the 1st to the 99th percentile of both together; values outside count in
            the first and the last bin.

    Returns:
        The distance, or None with fewer than 32 entries above zero on a side. A common factor changes nothing.
        (K_occ - 1) / (4 n), with the number of occupied bins and the mean count, is the JSD that two samples of one
        distribution show by chance.
    """
    sides = [_logarithms(side) for side in (previous, current)]
    if min(len(side) for side in sides) < FEWEST:
        return None
    sides = [side - side.median() for side in sides]
    low, high = percentiles(torch.cat(sides), (0.01, 0.99))
    if high <= low:
        return 0.0
    a, b = (_histogram(side.clamp(low, high), low, high, bins) for side in sides)
    occupied = int(((a + b) > 0).sum())
    by_chance = (occupied - 1) / (4 * (len(sides[0]) + len(sides[1])) / 2)
    return math.sqrt(max(0.0, _divergence(a, b) - by_chance))


def paired_drift(previous: Tensor, current: Tensor) -> float | None:
    """Mean squared change of log10 F from one interval to the next, less the part that is noise, in decades squared.

        P = mean over entries and over pairs of halves of (a_h - b_k)^2
          - mean over entries of ((a_1 - a_2)^2 + (b_1 - b_2)^2) / 2

    with a_h = log10 of the mean squared gradient of half h of the last interval (its alternate steps) around its
    median, b_k the same of this one. Without drift the four halves are alike, both means are the same whatever the
    number of entries and however they depend on each other, and P is zero on average (it can be negative).

    Args:
        previous: mean squared gradients of the last interval, (2, n): one row a half, halves of equally many steps.
        current: mean squared gradients of the same entries in this interval, (2, n).

    Returns:
        P, or None with fewer than 32 entries above zero in all four.
    """
    halves = torch.cat([previous, current]).double()
    halves = halves[:, ((halves > 0) & halves.isfinite()).all(dim=0)]
    if halves.shape[1] < FEWEST:
        return None
    logs = halves.log10()
    a1, a2, b1, b2 = logs - logs.median(dim=1, keepdim=True).values
    across = sum((a - b).square().mean() for a in (a1, a2) for b in (b1, b2)) / 4
    within = ((a1 - a2).square().mean() + (b1 - b2).square().mean()) / 2
    return float(across - within)


def percentiles(values: Tensor, shares: Sequence[float]) -> tuple[float, ...]:
    """Quantiles with linear interpolation, by selection and not by a sort; torch's own refuses 16 million values.

    Args:
        values: a tensor of any shape with at least one entry.
        shares: which quantiles, each from 0 (the smallest value) to 1 (the largest).
    """
    flat = values.flatten()
    found = []
    for share in shares:
        at = share * (len(flat) - 1)
        below = int(at)
        low = flat.kthvalue(below + 1).values
        high = flat.kthvalue(min(below + 2, len(flat))).values
        found.append(torch.lerp(low, high, at - below).item())
    return tuple(found)


def _logarithms(values: Tensor) -> Tensor:
    values = values.double()
    return values[(values > 0) & values.isfinite()].log10()


def _histogram(values: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Counts (bins,) of values that lie between `low` and `high`; the upper end belongs to the last bin."""
    index = ((values - low) * (bins / (high - low))).long().clamp_(0, bins - 1)
    return torch.bincount(index, minlength=bins).double()


def _divergence(a: Tensor, b: Tensor) -> float:
    """Jensen-Shannon divergence of two histograms, in nats."""
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
    terms = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    return float(terms[middle > 0].sum() / 2)
