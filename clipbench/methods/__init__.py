"""The methods: one file per strategy, on one base class."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from clipbench.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from clipbench.methods.base import Method

METHODS = {
    "ZeroShot": "clipbench.methods.zero_shot:ZeroShot",
    "CLIPFit": "clipbench.methods.clipfit:CLIPFit",
    "CoOp": "clipbench.methods.coop:CoOp",
    "LinearProbe": "clipbench.methods.linear_probe:LinearProbe",
    "FineTuning": "clipbench.methods.fine_tuning:FineTuning",
    "FisherAdapTune": "clipbench.methods.fisher_adaptune:FisherAdapTune",
    "WiSEFT": "clipbench.methods.wise_ft:WiSEFT",
    "LoRA": "clipbench.methods.lora:LoRA",
    "Adapter": "clipbench.methods.adapter:Adapter",
    "Peft": "clipbench.methods.peft:Peft",
    "MFT": "clipbench.methods.mft:MFT",
    "RAMT": "clipbench.methods.ramt:RAMT",
}


def registered() -> dict[str, str]:
    """Class name to import string: ours, then those of plug-ins (entry points `clipbench.methods`).

    Raises:
        ConfigError: a plug-in takes a name that is taken.
    """
    known = dict(METHODS)
    for point in entry_points(group="clipbench.methods"):
        if known.setdefault(point.name, point.value) != point.value:
            raise ConfigError(f"plug-in '{point.value}' calls its method '{point.name}', a name that is taken")
    return known


def method_class(name: str) -> type[Method]:
    """The method of that name, or of that import path (`package.module.Class`).

    Raises:
        UnknownName: there is none.
    """
    known = registered()
    if name in known:
        module, _, attribute = known[name].partition(":")
    else:
        module, _, attribute = name.rpartition(".")
        if not module:
            raise UnknownName("method", name, known)
    from clipbench.methods.base import Method

    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownName("method", name, known) from error
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise ConfigError(f"'{name}' is not a method: it does not derive from clipbench.methods.base.Method")
    return kind


def load_all() -> None:
    """Import every registered method, so that its short name works in YAML and on the command line."""
    for name in registered():
        method_class(name)
