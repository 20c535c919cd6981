"""One cell: build, fit on the trained classes, test every split, write learned weights and record."""

from __future__ import annotations

import gc
import time
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning as L

from clipbench.atomic import named_by
from clipbench.bench.build import build
from clipbench.bench.cost import PeakMemory, StepClock, inference_overhead
from clipbench.bench.environment import environment
from clipbench.bench.monitors import naming_monitors
from clipbench.bench.outcomes import check_fitted, joint_outcome, split_outcomes
from clipbench.bench.plan import PlannedCell
from clipbench.bench.progress import EpochLines, Say
from clipbench.bench.stop import interruptible
from clipbench.bench.trainer import on_cuda
from clipbench.bench.validation import validation_free
from clipbench.errors import BackboneError, ClipbenchError, MethodError, RecordError
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.printable import printable
from clipbench.records.learned import file_digest
from clipbench.records.store import SCHEMA, Record, RecordStore, write_record

NOTHING: dict[str, Any] = {"method": "", "splits": {}, "cost": {}, "losses": {}}  # measured in a cell that failed


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        planned: the cell.
        record: its record (also of a failure), or None where another process was running it.
    """

    planned: PlannedCell
    record: Record | None


@named_by("--results")
def run_cell(planned: PlannedCell, folder: Path, say: Say | None = None, wait_seconds: float = 0) -> Outcome:
    """Run one cell and write its record; a failure becomes an error record.

    Args:
        planned: the cell.
        folder: the run folder.
        say: takes a line of progress now and then.
        wait_seconds: how long to wait for another process that runs the same cell.

    Raises:
        RecordError: the record cannot be written.
        KeyboardInterrupt: the user stopped the run; nothing half-done stays.
    """
    store = RecordStore(folder)
    with store.claim(planned.cell, planned.key, wait_seconds) as ours:
        if not ours:
            return Outcome(planned, None)
        done = store.find(planned.cell, planned.key)
        if done is not None:
            return Outcome(planned, done)
        started = time.time()
        try:
            _check_start(planned, store)
            content = _measured(planned, store, say)
            failure = None
        except RecordError:
            raise
        except Exception as error:
            if not isinstance(error, ClipbenchError):
                warnings.warn(_traceback(error), stacklevel=2)
            content = dict(NOTHING)
            failure = {"type": type(error).__name__, "message": printable(str(error) or repr(error), keep="\n")}
        finally:
            gc.collect()  # a trainer and its loops hold each other, and with them tensors and optimiser
        return _recorded(planned, folder, content, failure, started)


def _check_start(planned: PlannedCell, store: RecordStore) -> None:
    """Raises a MethodError where the cell that this one starts from is not done."""
    start = planned.start
    why = None if start is None else store.why_undone(start.cell, start.key)
    if start is not None and why is not None:
        raise MethodError(f"not run: it starts from {start.cell}, of which there is nothing to start from: {why}")
    while start is not None:  # a class of the user's own is known once it is imported
        method_class(start.config["model"]["class_path"])
        start = start.start
    of_file = planned.provenance.get("start", {}).get("class_path")
    if of_file is not None:  # found by the plan among the classes there are
        method_class(of_file.replace(":", "."))


def record_failure(planned: PlannedCell, folder: Path, kind: str, message: str) -> Outcome:
    """The error record of a cell that could not write its own, such as one whose process died."""
    return _recorded(planned, folder, dict(NOTHING), {"type": kind, "message": message}, time.time())


def _recorded(
    planned: PlannedCell, folder: Path, content: dict[str, Any], failure: dict[str, str] | None, started: float
) -> Outcome:
    record = {
        "schema": SCHEMA,
        "status": "error" if failure else "ok",
        "key": planned.key,
        "cell": planned.cell.as_dict(),
        "provenance": planned.provenance,
        **content,
        "environment": environment(on_cuda(planned.resolved["trainer"]))
        | {"started": _iso(started), "finished": _iso(time.time())},
        "config": planned.resolved,
        "error": failure,
    }
    path = write_record(folder, record)
    return Outcome(planned, Record(record, path))


def _measured(planned: PlannedCell, store: RecordStore, say: Say | None) -> dict[str, Any]:
    """Everything in a record that is measured."""
    begin = time.perf_counter()
    cli = build(planned.config)
    method, data, trainer = cli.model, cli.datamodule, cli.trainer
    clock = StepClock()
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(clock)
    if say is not None:
        callbacks.append(EpochLines(say))
    method.setup(task=data.task, train_seed=data.train_seed)
    check_backbone(method, planned)
    device = trainer.strategy.root_device
    memory = PeakMemory(device)  # from here on: the first cell of a process also loads the backbone
    trained = sum(parameter.numel() for parameter in method.trainable.values())
    at_fit = time.perf_counter()
    if method.learns and not method.derived:  # what is computed from what another learned is only tested, as WiSE-FT's
        with naming_monitors(lambda: trainer):
            interruptible(trainer, lambda: trainer.fit(method, datamodule=data))
        check_fitted(method, trainer)
    at_test = time.perf_counter()
    interruptible(trainer, lambda: trainer.test(method, datamodule=data, verbose=False))
    at_end = time.perf_counter()
    peak = memory.bytes()
    splits = split_outcomes(method, data.task)
    stored, left = 0, {}  # what a failed cell learned is not left behind
    if method.learns:
        file = store.weights_for(planned.cell, planned.key)
        stored = method.save(file, planned.cell.recipe)
        left = {"weights": {"sha256": file_digest(file)}}
    overhead = _overhead(method, data, trainer) if method.learns else 0.0
    losses = {name: float(term) for name, term in method.last_losses.items()}
    return {
        "method": type(method).__name__,
        "splits": splits,
        **joint_outcome(method, data.task),
        "validation_free": validation_free(planned, store, data.val_images_seen),
        "cost": {
            "trained_parameters": trained,
            "trained_parameters_end": method.weights.num_active(),
            "share": 100 * trained / method.backbone.pretrained.size(),
            "stored_bytes": stored,
            "seconds_per_step": clock.median,
            "train_seconds": at_test - at_fit if method.learns else 0.0,
            "test_seconds": at_end - at_test,
            "total_seconds": time.perf_counter() - begin,
            "peak_bytes": peak,
            "inference_overhead": overhead,
        },
        "losses": losses,
        **left,
        "diagnostics": method.diagnostics,
        "provenance": planned.provenance
        | {"epochs": trainer.current_epoch, "steps": clock.steps}
        | {"val_images": data.val_images_seen},
    }


def check_backbone(method: Method, planned: PlannedCell) -> None:
    """Refuse tensors that are not those of the plan, whose hash may have been remembered; no record states another.

    Raises:
        BackboneError: the weights are others; a new plan knows them.
    """
    loaded, wanted = method.backbone.hash, planned.provenance["backbone_hash"]
    if loaded != wanted:
        raise BackboneError(
            f"the weights of backbone '{planned.cell.backbone}' have the hash {loaded[:12]}, not {wanted[:12]} as when"
            " this was planned: their file was changed; the same command again plans with what is there now"
        )


def _overhead(method: Method, data: Any, trainer: L.Trainer) -> float:
    """Inference overhead on the first few test images, on the device and in the precision of the test."""
    batch = next(iter(data.test_dataloader()[0]))
    size = 32 if method.backbone.spec.preprocessing.size <= 64 else 2
    method.eval().to(trainer.strategy.root_device)  # Lightning has taken it back to the CPU
    with trainer.precision_plugin.forward_context():
        return inference_overhead(method, batch.image[:size])


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _traceback(error: Exception) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
