"""FisherAdapTune's bookkeeping: Fisher values by squared gradients, the drift of every group over time, who is frozen.

Plain numbers and tensors; what a frozen group means for a model is `freezing.py`, when all this happens is the callback
`clipbench.methods.fisher_freezing`. Source of the idea: Rostami, Chen, Hosseini, arXiv 2606.10196.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipbench.errors import ConfigError, UnknownName
from clipbench.randomness import torch_generator
from clipbench.tuning.drift import centred_distance, paired_drift, released_distance
from clipbench.tuning.fisher_groups import Group

ScoreName = Literal["paired", "jsd", "released_log", "released_raw"]
HALVED = ("paired",)  # scores that compare halves of an interval


class SquaredGradients:
    """Mean of the squared gradients over the steps of an interval, entry by entry, in float32.

    Works for every tensor and needs no hooks; entries whose gradient is not finite count as 0 in that step.

    Args:
        groups: the groups whose gradients are watched.
        tensors: the parameters that the groups consist of, by name; their `grad` is read.
        halves: 2 to keep the means of two halves of an interval apart, else 1.
        most: how many entries of a group are watched at most, at places drawn once; None watches all.
        seed: seed of the draw of these places.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        tensors: Mapping[str, nn.Parameter],
        halves: int = 1,
        most: int | None = None,
        seed: int = 1,
    ) -> None:
        self.groups = {group.name: group for group in groups}
        self.tensors = tensors
        self.halves = halves
        self._places: dict[str, list[Tensor | None]] = {}
        for group in groups:
            self._places[group.name] = _places(group, tensors, most, seed)
        self._sums: dict[str, Tensor] = {}
        self._steps = [0] * halves

    def drop(self, names: Sequence[str]) -> None:
        """Stop watching the groups of these names."""
        for name in names:
            self.groups.pop(name), self._places.pop(name), self._sums.pop(name, None)

    def add(self, half: int = 0) -> None:
        """Add the gradients of a step to a half of the interval, 0 or 1; 0 where there are no halves."""
        self._steps[half] += 1
        for name, group in self.groups.items():
            parts = []
            for piece, places in zip(group.pieces, self._places[name], strict=True):
                gradient = self.tensors[piece.tensor].grad
                if gradient is None:
                    device = self.tensors[piece.tensor].device
                    parts.append(torch.zeros(piece.size if places is None else len(places), device=device))
                    continue
                flat = piece.of(gradient).reshape(-1)
                parts.append((flat if places is None else flat[places.to(flat.device)]).float())
            squared = (parts[0] if len(parts) == 1 else torch.cat(parts)).square().nan_to_num_(0.0, 0.0, 0.0)
            if name not in self._sums:
                self._sums[name] = squared.new_zeros(self.halves, len(squared))
            self._sums[name][half].add_(squared)

    def close(self) -> dict[str, Tensor]:
        """End the interval and begin the next.

        Returns:
            Name of a group to its Fisher values: (n,), or (2, n) with two halves, n the watched entries. Empty if a
            half had no step; the interval then goes on.
        """
        if min(self._steps) == 0:
            return {}
        means = {}
        for name, sums in self._sums.items():
            means[name] = sums / torch.tensor(self._steps, device=sums.device)[:, None]
            if self.halves == 1:
                means[name] = means[name][0]
        self._sums, self._steps = {}, [0] * self.halves
        return means

    def state(self) -> dict[str, Any]:
        """The state to store in a checkpoint: sums and steps of the current interval."""
        return {"sums": self._sums, "steps": self._steps}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Restore the `state` of a checkpoint, on the devices of the tensors."""
        device = {name: self.tensors[group.pieces[0].tensor].device for name, group in self.groups.items()}
        self._sums = {name: sums.to(device[name]) for name, sums in state["sums"].items()}
        self._steps = list(state["steps"])


def _places(group: Group, tensors: Mapping[str, nn.Parameter], most: int | None, seed: int) -> list[Tensor | None]:
    """For each piece the flat places that are watched, or None for all of it."""
    if most is None or group.size <= most:
        return [None] * len(group.pieces)
    generator = torch_generator(seed, "fisher entries", group.name)
    drawn = _distinct(group.size, most, generator)
    places: list[Tensor | None] = []
    before = 0
    for piece in group.pieces:
        mine = drawn[(drawn >= before) & (drawn < before + piece.size)] - before
        places.append(mine.to(tensors[piece.tensor].device))
        before += piece.size
    return places


def _distinct(size: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers below `size`, in rising order, without a permutation of them all."""
    drawn = torch.empty(0, dtype=torch.int64)
    while len(drawn) < count:
        drawn = torch.cat([drawn, torch.randint(size, (2 * count,), generator=generator)]).unique()
    chosen = torch.randperm(len(drawn), generator=generator)[:count]
    return drawn[chosen].sort().values


@dataclass
class Drift:
    """The drift of one group over time.

    Attributes:
        score: how the Fisher values of an interval are compared with the reference (`drift.py`).
        keep: share, from 0 to 1, of the average drift E that stays when the drift D of an interval joins it:
            E <- keep E + (1 - keep) D.
        from_zero: whether E starts at 0, as published; if not, it starts at the first D.
        reference_keep: share, from 0 to 1, of the reference R that stays when the Fisher values F of an interval join
            it: R <- reference_keep R + (1 - reference_keep) F; at 0 the reference is the last interval.
        average: E, in the unit of the score; None before the first drift.
        variation: sum of the absolute changes of E so far.
        updates: number of drifts that have joined E.
        sum: sum of the values of E after every update, from which its mean over time follows.
        reference: R, (n,) or (2, n); None before the first interval.
    """

    score: ScoreName = "paired"
    keep: float = 0.7
    from_zero: bool = False
    reference_keep: float = 0.0
    average: float | None = None
    variation: float = 0.0
    updates: int = 0
    sum: float = 0.0
    reference: Tensor | None = field(default=None, repr=False)

    def update(self, current: Tensor) -> None:
        """Compare the Fisher values of an interval, (n,) or (2, n), with the reference and move E."""
        first = self.reference is None
        if first and self.from_zero:
            self.reference = current.clone()
        if self.reference is not None:
            distance = compare(self.score, self.reference, current)
            if distance is not None:
                self._move(distance)
        if first:  # as it is: 0.9 x + 0.1 x is not x in float32
            self.reference = current.clone()
        elif self.reference is not None and self.reference_keep:
            self.reference = self.reference_keep * self.reference + (1 - self.reference_keep) * current
        else:
            self.reference = current

    def _move(self, distance: float) -> None:
        before = 0.0 if self.average is None and self.from_zero else self.average
        now = distance if before is None else self.keep * before + (1 - self.keep) * distance
        self.variation += abs(now - (before or 0.0))
        self.average = now
        self.updates += 1
        self.sum += now

    def value(self, statistic: str) -> float | None:
        """The number that a decision compares; None before the first drift.

        Args:
            statistic: `latest` for E, `mean` for its mean over the intervals so far, `total_variation` for the sum of
                its absolute changes since the start.
        """
        if self.average is None:
            return None
        if statistic == "latest":
            return self.average
        return self.sum / self.updates if statistic == "mean" else self.variation


def compare(score: str, reference: Tensor, current: Tensor) -> float | None:
    """How far the Fisher values of a group have drifted; None where too few of them lie above zero.

    Args:
        score: `paired`, `jsd`, `released_log` or `released_raw` (`drift.py`).
        reference: Fisher values to compare with, (2, n) for `paired`, else (n,).
        current: Fisher values now, of the same entries and shape.

    Raises:
        UnknownName: no such score.
    """
    if score == "paired":
        return paired_drift(reference, current)
    if score == "jsd":
        return centred_distance(reference, current)
    if score in ("released_log", "released_raw"):
        return released_distance(reference, current, log=score == "released_log")
    raise UnknownName("score", score, ("paired", "jsd", "released_log", "released_raw"))


def threshold(scores: Sequence[float], width: float) -> float:
    """Mean of the scores plus `width` times their standard deviation (of the population)."""
    return statistics.fmean(scores) + width * statistics.pstdev(scores)


def to_freeze(
    scores: Mapping[str, float | None],
    sizes: Mapping[str, int],
    width: float,
    largest_share: float = 1.0,
    floor: float = 0.0,
) -> list[str]:
    """Which of the active groups are frozen now: those below the threshold, lowest first.

    Args:
        scores: name of every active group to its drift; a group whose score is None stays active.
        sizes: name of every active group to its number of entries.
        width: lambda of the threshold mean + lambda * standard deviation of the scores; below 0 fewer groups are
            frozen than lie below the mean.
        largest_share: largest share, from 0 to 1, of the active groups that is frozen at once.
        floor: number of entries that stay active at least; a group whose freezing would leave fewer is passed over.

    Returns:
        Names; never all of the groups.
    """
    scored = {name: score for name, score in scores.items() if score is not None}
    if not scored:
        return []
    bound = threshold(list(scored.values()), width)
    below = sorted((name for name in scored if scored[name] < bound), key=lambda name: scored[name])
    active, groups = sum(sizes.values()), len(scores)
    frozen: list[str] = []
    for name in below:
        if len(frozen) >= min(groups - 1, math.floor(largest_share * groups)):
            break
        if active - sizes[name] >= floor:
            frozen.append(name)
            active -= sizes[name]
    return frozen


def interval_of_run(steps: int, intervals: int, epoch: int | None, halved: bool) -> tuple[int, int]:
    """Length of an interval in steps, relative to the run, and the length of what alternates in its halves.

    Args:
        steps: optimiser steps of the whole run.
        intervals: about how many intervals the run is divided into; halved ones are at most as many.
        epoch: optimiser steps of an epoch; None where the number is not known.
        halved: whether an interval consists of two halves. These are then its alternate epochs, so that both have seen
            every image equally often, or alternate steps where an epoch is longer than an interval.

    Raises:
        ConfigError: an impossible number.
    """
    if intervals < 1 or steps < 1:
        raise ConfigError(f"a run of {steps} steps cannot be divided into {intervals} intervals")
    wanted = steps / intervals
    if not halved:
        return max(1, round(wanted)), 1
    unit = epoch if epoch is not None and wanted >= epoch else 1
    return 2 * unit * math.ceil(wanted / (2 * unit)), unit  # not shorter than wanted: noise falls with the length
