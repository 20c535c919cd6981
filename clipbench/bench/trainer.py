"""Lightning's Trainer: one process and one device whatever the environment says, and what it refuses in a sentence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy

from clipbench.errors import ConfigError, NotHere

SHORT_PRECISIONS = {"64": "64-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # as Lightning reads them
# what Lightning raises for a value that it does not take, or a thing that is not installed
REFUSALS = (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError, KeyError, AssertionError)
ELSEWHERE = ("cpu", "mps", "tpu")  # accelerators that are no CUDA device
COUNTS = ("accumulate_grad_batches", "check_val_every_n_epoch")  # Lightning divides by them once a fit runs


def make_trainer(settings: Mapping[str, Any]) -> L.Trainer:
    """The trainer of these settings.

    In a job of Slurm, torchrun or MPI, whose variables Lightning would read, each call of clipbench still is one
    process that does the whole work.

    Raises:
        ConfigError: Lightning refuses a value, or it asks for more than one device.
        NotHere: an accelerator that this machine does not have.
    """
    for name in COUNTS:
        if settings.get(name) is not None and settings[name] < 1:
            raise ConfigError(f"trainer.{name} must be at least 1, it is {settings[name]}")
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    plugins = settings.get("plugins") or []
    plugins = [*plugins] if isinstance(plugins, list | tuple) else [plugins]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU.*")
            trainer = L.Trainer(**{**settings, "plugins": [*plugins, LightningEnvironment()]})
    except REFUSALS as error:
        said = " ".join(str(error).split())
        accelerator = str(settings.get("accelerator"))
        if accelerator in {"gpu", *AcceleratorRegistry.available_accelerators()} - {"cpu", "auto"}:
            raise NotHere(f"trainer.accelerator {accelerator}: this machine has none ({said})") from error
        raise ConfigError(f"{_named(settings, said)}: {said}") from error
    asked = SHORT_PRECISIONS.get(str(settings.get("precision")), settings.get("precision"))
    if asked is not None and asked != trainer.precision:
        raise ConfigError(f"trainer.precision {asked}: this device would compute in {trainer.precision}: name that")
    if not isinstance(trainer.strategy, SingleDeviceStrategy) or trainer.num_devices * trainer.num_nodes != 1:
        usual = {"devices": ("auto", 1, "1"), "num_nodes": (None, 1), "strategy": ("auto",)}
        given = [f"trainer.{key} {settings[key]}" for key in usual if settings.get(key, "auto") not in usual[key]]
        raise ConfigError(f"a run takes one device (trainer.devices 1), not {', '.join(given) or 'all there are'}")
    return trainer


def on_cuda(settings: Mapping[str, Any]) -> bool:
    """Whether a trainer of these settings computes on a CUDA device: a machine that has one may be told not to."""
    return torch.cuda.is_available() and settings.get("accelerator") not in ELSEWHERE


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raise what `make_trainer` raises, and leave the flags of torch as they were."""
    strict, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        make_trainer(settings)
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn)
        torch.backends.cudnn.benchmark = benchmark


def _named(settings: Mapping[str, Any], said: str) -> str:
    """The settings that a message of Lightning speaks of, by their name, else by their value."""
    given = {key: value for key, value in settings.items() if value is not None}
    meant = [key for key in given if key in said] or [key for key in given if repr(given[key]) in said]
    return ", ".join(f"trainer.{key} {_value(given[key])}" for key in meant) or "the trainer"


def _value(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join(str(one) if isinstance(one, str | int | float | bool) else type(one).__name__ for one in values)


def quiet_lightning() -> None:
    """Silence what Lightning says at every trainer: hardware, tips, loader workers."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*The number of training batches.*",
        r".*`training_step` returned `None`.*",
        r".*`LightningModule.configure_optimizers` returned `None`.*",
        r".*GPU available but not used.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*lr_scheduler.step\(\).*before.*optimizer.step\(\).*",
        r".*No negative samples.*",
        r".*litlogger.*",
        r".*Total length of `DataLoader` across ranks is zero.*",
        r".*tensorboardX.*",
        r".*in eval mode at the start of training.*",
        r".*isinstance\(treespec, LeafSpec\).*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
