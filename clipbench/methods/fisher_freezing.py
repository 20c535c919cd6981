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
        mode: "corrected", or "faithful" to the published code; what is None below has the mode's value
            (`clipbench.tuning.fisher_settings` lists both). A setting that the others leave without effect is refused.
        estimate: how Fisher values are estimated: "squared_gradients" (mean over the steps of an interval) or
            "kronecker" (from activations, by the published hooks, once an interval).
        accumulate: of kronecker: whether its running average goes on from step to step.
        packed_attention: of kronecker: whether attention has no hooks, and so no values.
        groups: what is frozen as one: "matrices" (each alone, the small tensors of a block together), or
            "slices" of every tensor.
        slices: into how many parts a tensor is divided, 1 or more.
        slice_mode: of slices: whether they are cut along the rows ("row") or the columns ("column").
        score: how two estimates of a group are compared: "paired", "jsd", "released_log" or "released_raw".
        entries: of squared_gradients: how many entries of a group are watched at most; 0: all.
        reference_keep: share of the older estimates in the reference R that a new one is compared with, 0 to 1.
        keep: share of the older scores in their running average E, 0 to 1.
        from_zero: whether E starts at 0 instead of at the first score.
        statistic: what of E decides: the "latest" value, the "mean", or the "total_variation".
        width: groups whose statistic is below mean + width x standard deviation over all groups are frozen.
        interval: steps from estimate to estimate; 0: the run divided by `intervals`.
        intervals: into about how many intervals a run is divided, 1 or more.
        decide_every: intervals from decision to decision, 1 or more.
        first_decision: intervals before the first decision, 1 or more.
        largest_share: share of the active groups that one decision freezes at most, 0 to 1.
        floor: share of all entries that stays trained to the end, 0 to 1.
        freeze_dead: whether groups whose first estimate is 0 everywhere are frozen at once.
        freezing: "exact" (frozen tensors leave the graph and the optimiser) or "masked" (as published: their gradients
            are set to 0, which saves nothing).
    """

    version: ClassVar[int] = 1
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
