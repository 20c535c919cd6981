"""FisherFreezing: watch how the Fisher values of groups of tensors drift during a fit, freeze those that settled.

The callback of FisherAdapTune (Rostami, Chen, Hosseini, arXiv 2606.10196), for any method and whatever it trains:

    trainer:
      callbacks:
        - {class_path: clipbench.methods.fisher_freezing.FisherFreezing, init_args: {mode: corrected}}

Only the abstract of the paper could be read; the algorithm is that of the published code, which `faithful` shows with
its faults and `corrected` mends; every difference can be set alone (`clipbench.tuning.fisher_settings`).
"""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, Literal

import lightning as L
from torch.optim import Optimizer

from clipbench.errors import ClipbenchWarning, ConfigError
from clipbench.methods.base import Method
from clipbench.tuning.fisher import ScoreName
from clipbench.tuning.fisher_groups import Group, Piece
from clipbench.tuning.fisher_settings import Mode, settings_of_mode
from clipbench.tuning.fisher_watch import FisherWatch
from clipbench.tuning.freezing import ExactFreezing, Freezing, MaskedFreezing
from clipbench.tuning.optimisation import total_steps


class FisherFreezing(L.Callback):
    """Freeze groups of what a method trains while it is trained.

    Args:
        mode: where the arguments that are None take their values from: `corrected` (the default, ours) or `faithful`
            (the published code with its faults). `clipbench.tuning.fisher_settings` says why the two differ.
        estimate: how the Fisher value of every trained entry is estimated. `squared_gradients`: mean of its squared
            gradient over the steps of an interval; `kronecker`: mean squared activation times mean squared output
            gradient, from hooks, in the first step of an interval. Default `squared_gradients`, `faithful` `kronecker`.
        accumulate: with `estimate: kronecker`, whether its running averages go on from step to step; if not, every
            step starts them from ones. Refused with other estimates. Default false, `faithful` false.
        packed_attention: with `estimate: kronecker`, whether the q, k, v and out projections of attention get no hooks,
            so that their Fisher values are 0. Refused with other estimates. Default false, `faithful` true.
        groups: which entries are watched and frozen together. `matrices`: every matrix is a group, and the vectors and
            small matrices of a block form one; `slices`: every slice of every tensor is a group. Default `matrices`,
            `faithful` `slices`.
        slices: number of slices, 1 or more, that a tensor is cut into; with `groups: matrices` only matrices are cut,
            by rows, where a slice has 4,096 entries or more. Default 1, `faithful` 4.
        slice_mode: with `groups: slices`, the dimension that is cut: `row` (the first) or `column` (the second; then a
            vector is one slice). Refused with `matrices`. Default `row`, `faithful` `row`.
        score: how the Fisher values of a group are compared with its reference; each score is a drift, larger where
            more has changed. `paired`: mean squared change of their logarithms less its noise, in decades squared;
            `jsd`: distance of the two histograms around their medians less what chance gives; `released_log` and
            `released_raw`: that of the histograms as published, of logarithms or of values. The latter three are roots
            of a Jensen-Shannon divergence in nats. Default `paired`, `faithful` `released_log`.
        entries: with `estimate: squared_gradients`, how many entries of a group are watched at most, at places drawn
            once; 0 watches all. Default 2048 (0 with another `score`), `faithful` 0.
        reference_keep: share, from 0 to 1, of the reference R that each interval's Fisher values F are compared with
            that stays when these join it: R <- reference_keep R + (1 - reference_keep) F. At 0 the reference is the
            interval before. Default 0.0, `faithful` 0.9.
        keep: share, from 0 to 1, of a group's average drift E that stays when the drift D of an interval joins it:
            E <- keep E + (1 - keep) D. Default 0.7, `faithful` 0.9.
        from_zero: whether E starts at 0 and the first estimate is compared with itself; if not, E starts at the first
            drift between two intervals. Default false, `faithful` true.
        statistic: what of E a decision looks at: the `latest` value, the `mean` over all intervals so far, or the
            `total_variation`, the sum of its absolute changes since the start. Default `latest`, `faithful`
            `total_variation`.
        width: lambda, in standard deviations: a decision freezes the groups whose statistic lies below the mean over
            the active groups plus lambda standard deviations; a higher value freezes more, a negative one less than
            the mean does. Default 0.0, `faithful` 1.0.
        interval: optimiser steps from one estimate to the next; even with `score: paired`. 0 divides the steps of the
            fit by `intervals`. Default 0, `faithful` 1.
        intervals: about how many intervals a fit is divided into, 1 or more; with `score: paired` at most that many,
            of whole epochs where an interval is not shorter than one. Without effect where `interval` is not 0. Default
            8 (64 with another `score`), `faithful` 8.
        decide_every: intervals from one decision to the next, 1 or more. Default 1 (8 with another `score`), `faithful`
            300.
        first_decision: decisions begin once this many intervals, 1 or more, are over. Default 2 (16 with another
            `score`), `faithful` 300.
        largest_share: largest share, from 0 to 1, of the active groups that one decision freezes; the groups of least
            drift come first. Default 0.5, `faithful` 1.0.
        floor: share, from 0 to 1, of all trained entries that stay active to the end; a group whose freezing would
            leave fewer is passed over. Default 0.1, `faithful` 0.0.
        freeze_dead: whether groups whose Fisher values are all 0 in the first estimate are frozen at once. Default
            false, `faithful` true.
        freezing: what freezing does. `exact`: frozen values stay bit-identical and their gradients are no longer
            computed where a whole tensor is frozen; `masked`: gradients are set to 0, nothing is saved, and a tensor
            frozen whole drifts on by the optimiser's momentum. Default `exact`, `faithful` `masked`.
    """

    version: ClassVar[int] = 2
    """Raise it when a change moves what is frozen, or when; it is part of a cell's key."""

    def __init__(
        self,
        mode: Mode = "corrected",
        estimate: Literal["squared_gradients", "kronecker"] | None = None,
        accumulate: bool | None = None,
        packed_attention: bool | None = None,
        groups: Literal["matrices", "slices"] | None = None,
        slices: int | None = None,
        slice_mode: Literal["row", "column"] | None = None,
        score: ScoreName | None = None,
        entries: int | None = None,
        reference_keep: float | None = None,
        keep: float | None = None,
        from_zero: bool | None = None,
        statistic: Literal["latest", "mean", "total_variation"] | None = None,
        width: float | None = None,
        interval: int | None = None,
        intervals: int | None = None,
        decide_every: int | None = None,
        first_decision: int | None = None,
        largest_share: float | None = None,
        floor: float | None = None,
        freeze_dead: bool | None = None,
        freezing: Literal["exact", "masked"] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "mode", "__class__")}
        self.mode = mode
        self.settings = settings_of_mode(mode, given)
        self.watch: FisherWatch | None = None
        self._freezing: Freezing | None = None
        self._resumed: dict[str, Any] | None = None
        self._step = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Divide what is trained into groups and begin to watch them.

        Raises:
            ConfigError: hooks would see the loss scale of 16-mixed, which moves, in every gradient.
        """
        method = _method(pl_module)
        if self.settings.estimate == "kronecker" and getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ConfigError(
                "the estimate `kronecker` (mode `faithful`) cannot be made under trainer.precision 16-mixed, where its "
                "hooks see scaled gradients; use bf16-mixed or 32-true"
            )
        tensors = {name: tensor for name, tensor in method.trainable.items() if tensor.requires_grad}
        self.watch = None
        if not tensors or not trainer.optimizers:
            return
        steps = total_steps(trainer)
        self.watch = FisherWatch(self.settings, method, tensors, steps, _steps_of_epoch(trainer), method.train_seed)
        how = ExactFreezing if self.settings.freezing == "exact" else MaskedFreezing
        self._freezing = how(tensors, trainer.optimizers)
        self._step = -1
        if self._resumed is not None:
            self._freezing.resume(_pieces(self.watch.resume(self._resumed["watch"])))
            if isinstance(self._freezing, MaskedFreezing):
                self._freezing.decays = self._resumed["decays"]
            self._resumed = None
        elif self.watch.first_decision() > steps:
            warnings.warn(
                f"FisherFreezing decides first at step {self.watch.first_decision()}, but the run has {steps} steps: "
                "nothing will be frozen because it settled",
                ClipbenchWarning,
                stacklevel=2,
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The first batch of a step begins it."""
        if self.watch is not None and trainer.global_step != self._step:
            self._step = trainer.global_step
            self.watch.begin_step(self._step)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Between backward and step: look, decide, freeze."""
        if self.watch is None or self._freezing is None:
            return
        self._freezing.before_step()
        settled = self.watch.end_step(trainer.global_step)
        if settled:
            self._freezing.freeze(_pieces(settled))
        if isinstance(self._freezing, MaskedFreezing):
            self._freezing.decay()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """After the step: what is frozen in part is put back."""
        if self._freezing is not None:
            self._freezing.after_step()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the method's record what happened."""
        if self.watch is None:
            return
        method = _method(pl_module)
        self.watch.close(trainer.global_step)
        frozen = sum(group.size for group in self.watch.groups if group.name in self.watch.frozen_at)
        method.weights.active_entries = sum(tensor.numel() for tensor in self.watch.tensors.values()) - frozen
        method.diagnostics["fisher_freezing"] = {"mode": self.mode} | self.watch.diagnostics()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        if self.watch is not None:
            self.watch.close(trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        if self.watch is None:
            return {}
        decays = self._freezing.decays if isinstance(self._freezing, MaskedFreezing) else []
        return {"watch": self.watch.state(), "decays": decays}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a checkpoint; taken up when training starts."""
        self._resumed = state_dict or None


def _method(module: L.LightningModule) -> Method:
    assert isinstance(module, Method), "FisherFreezing works with clipbench's methods"
    return module


def _pieces(groups: list[Group]) -> list[Piece]:
    return [piece for group in groups for piece in group.pieces]


def _steps_of_epoch(trainer: L.Trainer) -> int | None:
    batches = trainer.num_training_batches
    return None if not math.isfinite(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
