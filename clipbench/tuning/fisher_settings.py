"""The two modes of FisherAdapTune, setting by setting: what the published code does, and what is corrected of it.

| setting | `faithful` [code] | `corrected` [ours] | why |
|---|---|---|---|
| estimate | kronecker | squared_gradients | the hooks see activations only, no attention and no lone bias |
| accumulate | false | - | the published average starts from ones at every step |
| packed_attention | true | - | q, k, v, out have no hooks in torch's packed attention |
| groups, slices | slices, 4 | matrices, 1 | no slice of 16 entries with a chance score of its own |
| score | released_log | paired | see `drift.py`; `jsd` is the histogram with the median and the chance value out |
| reference_keep | 0.9 | 0 | running average against the last interval |
| keep, from_zero | 0.9, true | 0.7, false | E starts at 0, and its way up is mistaken for drift |
| statistic | total_variation | latest | total variation is never reset |
| width | 1 | 0 | threshold = mean + width * standard deviation: 156, 10, 2, 1 groups in three decisions |
| interval | 1 | the run / 8 | steps; absolute 300 and 3,000 exceed most few-shot runs |
| decide_every, first_decision | 300, 300 | 1, 2 | intervals |
| largest_share, floor | 1, 0 | 0.5, 0.1 | of the groups at once; of the entries for ever |
| freeze_dead | true | false | groups with F = 0 at the first step |
| freezing | masked | exact | masked tensors drift on and save nothing |

`corrected` with `score: jsd` takes 64 intervals a run, decides every 8 from the 16th on, and watches all entries of a
group. `paired` took its place since its E does not follow the size of a group (correlation -0.19 to +0.06 instead of
-0.72 to -0.78) and does follow the true drift (docs/analysis.md), and since it watches 2,048 entries of a
group at most, which costs nothing that could be measured (`jsd` triples a step of the embedded backbone while all
groups are active). Its intervals are whole pairs of epochs, and not shorter than an eighth of the run.

Source: AtlasAnalyticsLab/FisherAdapTune@ebdb854 scripts/{adafisher,fisher_core,trainer}.py for `faithful`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from clipbench.argument_types import refuse_wrong_types
from clipbench.errors import ConfigError, UnknownName
from clipbench.tuning.choices import refuse_unread
from clipbench.tuning.fisher import HALVED, ScoreName

Mode = Literal["corrected", "faithful"]


@dataclass(frozen=True)
class FisherSettings:
    """All that decides which groups are frozen when.

    Attributes:
        estimate: how Fisher values are estimated: `squared_gradients`, the mean squared gradient of every entry over
            the steps of an interval; `kronecker`, the published hooks (`kronecker.py`), in its first step.
        accumulate: with `kronecker`, whether its running averages go on from step to step; if not, every step starts
            them from ones.
        packed_attention: with `kronecker`, whether the q, k, v and out projections get no hooks, so that their Fisher
            values are 0.
        groups: which entries are watched and frozen together: `matrices` (`fisher_groups.matrix_groups`) or `slices`
            of every tensor (`fisher_groups.sliced_groups`).
        slices: number of slices that a tensor (with `matrices`: a large matrix) is cut into, 1 or more.
        slice_mode: with `slices`, the dimension that is cut: `row`, the first, or `column`, the second.
        score: how the Fisher values of a group are compared with its reference: `paired`, `jsd`, `released_log` or
            `released_raw` (`drift.py`).
        entries: with `squared_gradients`, how many entries of a group are watched at most; 0 watches all.
        reference_keep: share, from 0 to 1, of the reference R that stays when the Fisher values F of an interval join
            it: R <- reference_keep R + (1 - reference_keep) F; at 0 the reference is the last interval.
        keep: share, from 0 to 1, of a group's average drift E that stays when the drift D of an interval joins it:
            E <- keep E + (1 - keep) D.
        from_zero: whether E starts at 0 and the first estimate is compared with itself; if not, E starts at the first
            drift between two intervals.
        statistic: what of E a decision looks at: its `latest` value, its `mean` over all intervals so far, or its
            `total_variation`, the sum of its absolute changes.
        width: lambda of the threshold below which a group is frozen: mean + lambda * standard deviation of the
            statistic over the active groups.
        interval: optimiser steps from one estimate to the next; 0 divides the steps of the fit by `intervals`.
        intervals: about how many intervals a fit is divided into where `interval` is 0, 1 or more.
        decide_every: intervals from one decision to the next, 1 or more.
        first_decision: decisions begin once this many intervals, 1 or more, are over.
        largest_share: largest share, from 0 to 1, of the active groups that one decision freezes.
        floor: share, from 0 to 1, of all trained entries that stay active to the end.
        freeze_dead: whether groups whose Fisher values are all 0 in the first estimate are frozen at once.
        freezing: what freezing does to values and gradients: `exact` or `masked` (`freezing.py`).
    """

    estimate: Literal["squared_gradients", "kronecker"] = "squared_gradients"
    accumulate: bool = False
    packed_attention: bool = False
    groups: Literal["matrices", "slices"] = "matrices"
    slices: int = 1
    slice_mode: Literal["row", "column"] = "row"
    score: ScoreName = "paired"
    entries: int = 2048
    reference_keep: float = 0.0
    keep: float = 0.7
    from_zero: bool = False
    statistic: Literal["latest", "mean", "total_variation"] = "latest"
    width: float = 0.0
    interval: int = 0
    intervals: int = 8
    decide_every: int = 1
    first_decision: int = 2
    largest_share: float = 0.5
    floor: float = 0.1
    freeze_dead: bool = False
    freezing: Literal["exact", "masked"] = "exact"

    def __post_init__(self) -> None:
        if min(self.slices, self.intervals, self.decide_every, self.first_decision) < 1 or self.interval < 0:
            shown = f"{self.slices=}, {self.intervals=}, {self.decide_every=}, {self.first_decision=}, {self.interval=}"
            raise ConfigError(f"slices and numbers of intervals are 1 or more: {shown.replace('self.', '')}")
        if self.entries < 0:
            raise ConfigError(f"entries of FisherFreezing is 0 (all) or a number of entries, not {self.entries}")
        for name in ("reference_keep", "keep", "largest_share", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} of FisherFreezing is a share from 0 to 1, not {getattr(self, name)}")
        if self.halved and self.estimate == "kronecker":
            raise ConfigError("score 'paired' compares halves of an interval, which estimate 'kronecker' does not have")
        if self.halved and self.interval % 2:
            raise ConfigError(f"score 'paired' needs an even interval, so that its halves are alike: {self.interval}")

    @property
    def halved(self) -> bool:
        """Whether an interval is kept in two halves."""
        return self.score in HALVED


CORRECTED = FisherSettings()
CORRECTED_JSD = replace(CORRECTED, score="jsd", entries=0, intervals=64, decide_every=8, first_decision=16)
FAITHFUL = FisherSettings(
    estimate="kronecker", packed_attention=True, groups="slices", slices=4, score="released_log", entries=0,
    reference_keep=0.9, keep=0.9, from_zero=True, statistic="total_variation", width=1.0, interval=1, decide_every=300,
    first_decision=300, largest_share=1.0, floor=0.0, freeze_dead=True, freezing="masked",
)  # fmt: skip


def settings_of_mode(mode: str, changes: dict[str, Any]) -> FisherSettings:
    """The settings of a mode with some of them changed.

    Args:
        mode: which values to start from: `corrected` (with a `score` other than `paired` in `changes`, those that suit
            it) or `faithful`.
        changes: name of a setting to the value that replaces the mode's; None keeps the mode's.

    Raises:
        UnknownName: an unknown mode, setting or choice.
        ConfigError: settings that contradict each other, or one that the others leave unread.
    """
    if mode not in ("corrected", "faithful"):
        raise UnknownName("mode of FisherFreezing", mode, ("corrected", "faithful"))
    known = [field.name for field in fields(FisherSettings)]
    for name in changes:
        if name not in known:
            raise UnknownName("setting of FisherFreezing", name, known)
    given = {name: value for name, value in changes.items() if value is not None}
    for name, choices in CHOICES.items():
        if given.get(name, choices[0]) not in choices:
            raise UnknownName(f"{name} of FisherFreezing", str(given[name]), choices)
    refuse_wrong_types(FisherSettings, given, "FisherFreezing")
    base = FAITHFUL if mode == "faithful" else CORRECTED
    if mode == "corrected" and given.get("score", "paired") != "paired":
        base = CORRECTED_JSD
    settings = replace(base, **given)
    if settings.estimate == "kronecker":
        refuse_unread("estimate kronecker watches all entries", entries=given.get("entries"))
    else:
        of_hooks = {name: given.get(name) for name in ("accumulate", "packed_attention")}
        refuse_unread("estimate squared_gradients has no hooks", **of_hooks)
    if settings.groups == "matrices":
        refuse_unread("groups matrices cuts by rows", slice_mode=given.get("slice_mode"))
    return settings


CHOICES: dict[str, tuple[str, ...]] = {
    "estimate": ("squared_gradients", "kronecker"),
    "groups": ("matrices", "slices"),
    "slice_mode": ("row", "column"),
    "score": ("paired", "jsd", "released_log", "released_raw"),
    "statistic": ("latest", "mean", "total_variation"),
    "freezing": ("exact", "masked"),
}
