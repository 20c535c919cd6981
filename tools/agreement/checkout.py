"""How official code is imported from its checkout: its folder first, and what it asks of its framework stood in for.

Most of the code is written for Dassl.pytorch, of which the models themselves use names only: a registry, a base class
of trainers, an accuracy. Empty ones stand in for these; no arithmetic comes from them. CUDA calls do nothing.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import packaging.version
import torch
from torch import nn

from tools.agreement.tiny import SIZE

NAMES = {
    "dassl.engine": ("TRAINER_REGISTRY", "SimpleTrainer", "TrainerX", "TrainerXU"),
    "dassl.metrics": ("compute_accuracy",),
    "dassl.utils": (
        "load_pretrained_weights", "load_checkpoint", "save_checkpoint", "count_num_param", "set_random_seed",
        "mkdir_if_missing", "AverageMeter", "MetricMeter",
    ),
    "dassl.optim": ("build_optimizer", "build_lr_scheduler"),
    "dassl.data": ("DataManager",),
    "dassl.data.transforms": ("build_transform",),
}  # fmt: skip


class _Registry:
    """A registry whose decorator leaves the class as it is."""

    def register(self) -> Any:
        return lambda kind: kind


def _framework() -> dict[str, types.ModuleType]:
    modules = {"dassl": types.ModuleType("dassl")}
    for path, names in NAMES.items():
        module = types.ModuleType(path)
        for name in names:
            stand_in: Any = _Registry() if name == "TRAINER_REGISTRY" else type(name, (), {})
            setattr(module, name, stand_in)
        modules[path] = module
    setuptools = types.ModuleType("pkg_resources")  # which no longer comes with Python; `packaging` is asked of it
    setuptools.packaging = packaging  # type: ignore[attr-defined]
    return modules | {"pkg_resources": setuptools}


def _staying(to: Any) -> Any:
    """A method `to` that goes to no GPU."""

    def stay(self: Any, *arguments: Any, **named: Any) -> Any:
        if arguments and isinstance(arguments[0], str) and arguments[0].startswith("cuda"):
            arguments = arguments[1:]
        return to(self, *arguments, **named) if arguments or named else self

    return stay


def stand_in(name: str, **content: Any) -> types.ModuleType:
    """A module that holds this and nothing else."""
    module = types.ModuleType(name)
    vars(module).update(content)
    return module


@contextmanager
def official(folder: Path, *modules: str, instead: Iterable[types.ModuleType] = ()) -> Iterator[list[Any]]:
    """Within this context official modules are imported, and run without a GPU.

    Args:
        folder: of the checkout, or the folder inside it that its `train.py` lies in.
        modules: to import, as "trainers.coop".
        instead: of modules that these import and the comparison does not need.
    """
    paths, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder.resolve()))
    with (
        mock.patch.dict(sys.modules, _framework() | {module.__name__: module for module in instead}),
        mock.patch.object(torch.Tensor, "cuda", lambda self, *a, **k: self),
        mock.patch.object(nn.Module, "cuda", lambda self, *a, **k: self),
        mock.patch.object(torch.Tensor, "to", _staying(torch.Tensor.to)),
        mock.patch.object(nn.Module, "to", _staying(nn.Module.to)),
    ):
        try:
            yield [importlib.import_module(name) for name in modules]
        finally:
            sys.path[:] = paths
            for name in set(sys.modules) - known:
                file = getattr(sys.modules[name], "__file__", None)
                if file and Path(file).is_relative_to(folder.resolve()):
                    del sys.modules[name]


def standing_still(trainer: Any, model: nn.Module, name: str) -> Any:
    """The same trainer of Dassl, with one model whose optimiser does not move: what stays are its gradients.

    Args:
        trainer: it, or what stands in for it.
        model: holds what is trained.
        name: what the trainer calls it.
    """
    trainer._models = {name: model}
    trainer._optims = {name: types.SimpleNamespace(zero_grad=model.zero_grad, step=lambda: None)}
    trainer.get_model_names = lambda names: [name]
    trainer.detect_anomaly = lambda loss: None
    trainer.model_zero_grad = lambda names: model.zero_grad()
    return trainer


def config(**sections: Any) -> Any:
    """What official classes read of their config, from nested dicts; images are those of the tiny CLIP."""

    def nested(value: Any) -> Any:
        return types.SimpleNamespace(**{n: nested(v) for n, v in value.items()}) if isinstance(value, dict) else value

    return nested({"INPUT": {"SIZE": (SIZE, SIZE)}} | sections)


def commit_of(folder: Path) -> str:
    """The commit of a checkout, shortened."""
    words = ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
