"""The callback that records, over a fit of any method, how far its tensors moved and what their gradients were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor
from torch.optim import Optimizer

from clipbench.analysis.changes import Change, GradientPath, change
from clipbench.analysis.positions import position_of
from clipbench.analysis.rows import write_rows
from clipbench.errors import ConfigError
from clipbench.methods.base import Method

COLUMNS = (
    "dataset", "seed", "step", "steps", "tensor", "tower", "block", "kind", "reference", "numbers", "reference_norm",
    "sum_squares", "mean_square", "relative", "path_length", "gradient_squares", "gradient_cosine",
)  # fmt: skip
"""Columns of the CSV file; what each means stands in docs/analysis.md."""
FILE = "changes-{dataset}-seed{seed}.csv"


class ChangeRecorder(L.Callback):
    """Records every few steps how far tensors are from their pretrained values.

    Tensors of the backbone that are unfrozen, replaced or can be written into the weights (merged low-rank factors) are
    compared with the pretrained ones; what a method trains beside the backbone (a context, factors, adapters) with its
    value when the fit began. The result of the fit is the same with and without it.

    Args:
        every: steps between two records; the first and the last step are always recorded.
        path: the CSV file that is written when the fit ends, `{dataset}` and `{seed}` filled in; relative to the
            trainer's folder; null: no file, `rows()` has it.

    Raises:
        ConfigError: `every` is not positive.
    """

    def __init__(self, every: int = 10, path: str | None = FILE) -> None:
        if every < 1:
            raise ConfigError(f"ChangeRecorder records every 1 or more steps, not every {every}")
        self.every, self.path = every, path
        self._clear()

    def _clear(self) -> None:
        self._begin: dict[str, Tensor] = {}
        self._paths: dict[str, GradientPath] = {}
        self._steps: list[int] = []
        self._changes: list[dict[str, Change]] = []
        self._gradients: list[dict[str, dict[str, float]]] = []
        self._facts: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, method: Method) -> None:  # type: ignore[override]
        """The state before the first step.

        Raises:
            ConfigError: the fit goes on from a checkpoint: the steps before it are unknown.
        """
        if trainer.global_step:
            raise ConfigError("ChangeRecorder records a whole fit; it cannot go on from a checkpoint")
        self._clear()
        in_backbone = method.backbone.changed_tensors()
        trained = method.trainable
        self._begin = {name: p.detach().clone() for name, p in trained.items() if name not in in_backbone}
        self._paths = {name: GradientPath() for name in trained}
        dataset = getattr(trainer.datamodule, "dataset", "")  # type: ignore[attr-defined]
        self._facts = {"dataset": dataset, "seed": method.train_seed}
        self._record(trainer, method)

    def on_before_optimizer_step(self, trainer: L.Trainer, method: Method, optimizer: Optimizer) -> None:  # type: ignore[override]
        """The gradients of the step, before clipping, with the learning rate that they meet."""
        rates = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in method.trainable.items():
            if id(parameter) in rates:
                self._paths[name].add(parameter.grad, rates[id(parameter)])

    def on_train_batch_end(self, trainer: L.Trainer, method: Method, *_: Any) -> None:  # type: ignore[override]
        """A record, if it is time."""
        if trainer.global_step % self.every == 0 and trainer.global_step > self._steps[-1]:
            self._record(trainer, method)

    def on_train_end(self, trainer: L.Trainer, method: Method) -> None:  # type: ignore[override]
        """The last record, and the file."""
        if trainer.global_step > self._steps[-1]:
            self._record(trainer, method)
        self._paths = {}
        if self.path is not None:
            dataset = str(self._facts["dataset"]).replace("/", "_")
            name = self.path.replace("{dataset}", dataset).replace("{seed}", str(self._facts["seed"]))
            write_rows(Path(trainer.log_dir or trainer.default_root_dir) / name, self.rows(), COLUMNS)

    def _record(self, trainer: L.Trainer, method: Method) -> None:
        self._steps.append(trainer.global_step)
        self._changes.append(dict(changes_of(method, self._begin)))
        self._gradients.append({name: path.read() for name, path in self._paths.items()})

    def rows(self) -> list[dict[str, Any]]:
        """One row per recorded step and tensor, by the columns of the file."""
        last: dict[str, Change] = {}
        for changes in self._changes:
            last |= changes
        rows = []
        for step, changes, gradients in zip(self._steps, self._changes, self._gradients, strict=True):
            facts = self._facts | {"step": step, "steps": self._steps[-1]}
            for name, final in last.items():
                # a merged weight is not listed as long as it equals the loaded one
                found = changes.get(name, Change(final.numbers, 0.0, final.reference_norm))
                rows.append(facts | row_of(name, found, name in self._begin) | gradients.get(name, {}))
        return rows


def changes_of(method: Method, begin: dict[str, Tensor]) -> Iterator[tuple[str, Change]]:
    """How far everything that a method changes is from its reference now.

    Args:
        method: set up.
        begin: what is trained beside the backbone, as it was in the beginning.
    """
    for name, tensor in method.backbone.changed_tensors().items():
        yield name, change(tensor, method.backbone.pretrained_tensor(name))
    trained = method.trainable
    for name, start in begin.items():
        yield name, change(trained[name], start)


def row_of(name: str, found: Change, added: bool) -> dict[str, Any]:
    """The columns of one change."""
    place = position_of(name, added)
    return {
        "tensor": name,
        "tower": place.tower,
        "block": place.block,
        "kind": place.kind,
        "reference": "start" if added else "pretrained",
        "numbers": found.numbers,
        "reference_norm": found.reference_norm,
        "sum_squares": found.sum_squares,
        "mean_square": found.mean_square,
        "relative": found.relative,
    }
