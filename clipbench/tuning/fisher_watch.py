"""Watching a fit: estimates of every active group at the right steps, their drift, and the decision who settled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipbench.tuning.fisher import Drift, SquaredGradients, interval_of_run, to_freeze
from clipbench.tuning.fisher_groups import Group, entries, matrix_groups, sliced_groups
from clipbench.tuning.fisher_settings import FisherSettings
from clipbench.tuning.kronecker import KroneckerFisher

MOST_UPDATES = 64  # of a group's drift that a record shows
MOST_NUMBERS = 8192  # of all groups together


class FisherWatch:
    """The groups of a fit over time.

    Args:
        settings: how Fisher values are estimated and compared, and when a group is frozen.
        root: module that contains the owners of `tensors`; hooks are put on these where the estimate needs them.
        tensors: the trained parameters by name, which are divided into groups.
        steps: optimiser steps of the whole fit.
        epoch: optimiser steps of an epoch; None where the number is not known.
        seed: seed of the draw of watched entries in groups larger than `settings.entries`.

    Attributes:
        groups: every group, whether frozen or not.
        active: the groups that are still trained, by name.
        frozen_at: name of a frozen group to the number of optimiser steps done when it was frozen.
        interval: optimiser steps from one estimate to the next.
    """

    def __init__(
        self,
        settings: FisherSettings,
        root: nn.Module,
        tensors: Mapping[str, nn.Parameter],
        steps: int,
        epoch: int | None = None,
        seed: int = 1,
    ) -> None:
        self.settings, self.tensors, self.steps = settings, tensors, steps
        self.groups: list[Group] = (
            sliced_groups(tensors, settings.slices, settings.slice_mode)
            if settings.groups == "slices"
            else matrix_groups(tensors, settings.slices)
        )
        self.active = {group.name: group for group in self.groups}
        self.frozen_at: dict[str, int] = {}
        self.interval, self._unit = interval_of_run(steps, settings.intervals, epoch, settings.halved)
        if settings.interval:
            self.interval = settings.interval
            self._unit = self._unit if self.interval % (2 * self._unit) == 0 else 1
        self._drifts = {
            name: Drift(settings.score, settings.keep, settings.from_zero, settings.reference_keep)
            for name in self.active
        }
        self._hooks: KroneckerFisher | None = None
        if settings.estimate == "kronecker":
            self._hooks = KroneckerFisher(
                root, tensors, accumulate=settings.accumulate, packed_attention=settings.packed_attention
            )
        else:
            halves = 2 if settings.halved else 1
            self._gradients = SquaredGradients(self.groups, tensors, halves, settings.entries or None, seed)
        shown = max(1, min(MOST_UPDATES, MOST_NUMBERS // max(1, len(self.groups))))
        self._show_every = math.ceil(steps / self.interval / shown)
        self._shown: dict[str, list[float | None]] = {group.name: [] for group in self.groups}
        self._shown_steps: list[int] = []
        self._estimates = 0
        self._timeline: list[tuple[int, int, int]] = []

    def first_decision(self) -> int:
        """The first step, counted from 1, at whose end a decision falls."""
        every = self.settings.decide_every
        intervals = every * math.ceil(self.settings.first_decision / every)
        return intervals * self.interval + (self._hooks is not None)

    def begin_step(self, step: int) -> None:
        """To be called before the forward pass of a step; `step` counts the optimiser steps done before it."""
        if self._hooks is not None:
            self._hooks.begin_step(self.settings.accumulate or step % self.interval == 0)

    def end_step(self, step: int) -> list[Group]:
        """To be called after the backward pass of a step; returns the groups to freeze now, which are watched no more.

        Args:
            step: the number of optimiser steps done before this one.
        """
        if not self._timeline:
            self._log(0)
        if not self.active:
            return []
        estimates, decides = self._from_gradients(step) if self._hooks is None else self._from_hooks(step)
        if not estimates:
            return []
        names: list[str] = []
        if self.settings.freeze_dead and self._estimates == 0:
            names = [name for name, fisher in estimates.items() if not fisher.any()]
        for name, fisher in estimates.items():
            if name not in names:
                self._drifts[name].update(fisher)
        self._show(step)
        if decides:
            scores = {
                name: self._drifts[name].value(self.settings.statistic) for name in self.active if name not in names
            }
            sizes = {name: self.active[name].size for name in scores}
            floor = self.settings.floor * entries(self.groups)
            names += to_freeze(scores, sizes, self.settings.width, self.settings.largest_share, floor)
        return self._leave(names, step)

    def close(self, step: int) -> None:
        """To be called at the end of a fit of `step` optimiser steps: removes hooks and completes the timeline."""
        if self._hooks is not None:
            self._hooks.remove()
        self._log(step)

    def _leave(self, names: Sequence[str], step: int) -> list[Group]:
        gone = [self.active.pop(name) for name in names]
        for name in names:
            del self._drifts[name]
            self.frozen_at[name] = step + 1
        if self._hooks is None:
            self._gradients.drop(names)
        if names:
            self._log(step + 1)
        return gone

    def _from_hooks(self, step: int) -> tuple[dict[str, Tensor], bool]:
        """Estimates of the active groups, and whether a decision is due; published steps count from 0."""
        assert self._hooks is not None
        self._hooks.end_step()
        if step % self.interval:
            return {}, False
        found = self._hooks.estimate({piece.tensor for group in self.active.values() for piece in group.pieces})
        estimates = {}
        for name, group in self.active.items():
            parts = []
            for piece in group.pieces:
                fisher = found[piece.tensor]
                if fisher is None:
                    fisher = torch.zeros_like(self.tensors[piece.tensor], dtype=torch.float32).detach()
                parts.append(piece.of(fisher).flatten())
            estimates[name] = torch.cat(parts)
        return estimates, self._decides(step // self.interval)

    def _from_gradients(self, step: int) -> tuple[dict[str, Tensor], bool]:
        """The same at the last step of an interval."""
        self._gradients.add(step // self._unit % 2 if self.settings.halved else 0)
        if (step + 1) % self.interval:
            return {}, False
        return self._gradients.close(), self._decides((step + 1) // self.interval)

    def _decides(self, interval: int) -> bool:
        return interval % self.settings.decide_every == 0 and interval >= self.settings.first_decision

    def _show(self, step: int) -> None:
        if self._estimates % self._show_every == 0:
            self._shown_steps.append(step + 1)
            for name in self.active:
                average = self._drifts[name].average
                self._shown[name].append(None if average is None else float(f"{average:.4g}"))
        self._estimates += 1

    def _log(self, step: int) -> None:
        if self._timeline and self._timeline[-1][0] == step:
            self._timeline.pop()
        self._timeline.append((step, entries(self.active.values()), len(self.active)))

    def diagnostics(self) -> dict[str, Any]:
        """What happened, as plain JSON: every group with its drift over time, and how much was active when.

        All steps count those that are done. `frozen_at` is null for a group that stayed; `drift` holds E at
        `drift_steps`, null before the first score, and ends where the group was frozen.
        """
        table = [
            {
                "name": group.name, "tower": group.tower, "block": group.block, "kind": group.kind, "size": group.size,
                "frozen_at": self.frozen_at.get(group.name), "drift": list(self._shown[group.name]),
            }
            for group in self.groups
        ]  # fmt: skip
        return {
            "score": self.settings.score,
            "steps": self.steps,
            "interval": self.interval,
            "entries": entries(self.groups),
            "groups": table,
            "drift_steps": list(self._shown_steps),
            "active": [{"step": step, "entries": n, "groups": count} for step, n, count in self._timeline],
        }

    def state(self) -> dict[str, Any]:
        """The state to store in a checkpoint: all that the next decision depends on."""
        return {
            "frozen_at": dict(self.frozen_at),
            "drifts": {name: dict(vars(drift)) for name, drift in self._drifts.items()},
            "estimator": self._gradients.state() if self._hooks is None else self._hooks.state(),
            "estimates": self._estimates,
            "shown": {name: list(values) for name, values in self._shown.items()},
            "shown_steps": list(self._shown_steps),
            "timeline": [list(entry) for entry in self._timeline],
        }

    def resume(self, state: Mapping[str, Any]) -> list[Group]:
        """Restore the `state` of a checkpoint; returns the groups that were frozen when it was written."""
        gone = [self.active.pop(name) for name in state["frozen_at"]]
        self.frozen_at = dict(state["frozen_at"])
        self._drifts = {name: Drift(**drift) for name, drift in state["drifts"].items()}
        for name, drift in self._drifts.items():
            if drift.reference is not None:  # checkpoints are read onto the CPU
                drift.reference = drift.reference.to(self.tensors[self.active[name].pieces[0].tensor].device)
        if self._hooks is None:
            self._gradients.drop([group.name for group in gone])
            self._gradients.resume(state["estimator"])
        else:
            self._hooks.resume(state["estimator"])
        self._estimates, self._shown_steps = state["estimates"], list(state["shown_steps"])
        self._shown = {name: list(values) for name, values in state["shown"].items()}
        self._timeline = [(step, n, count) for step, n, count in state["timeline"]]
        return gone
