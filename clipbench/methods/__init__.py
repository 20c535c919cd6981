"""The methods: one file each, on one base class."""

from __future__ import annotations

import functools
import importlib
import traceback
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING

from clipbench.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from clipbench.methods.base import Method

METHODS = {
    "ZeroShot": "clipbench.methods.zero_shot:ZeroShot",
    "CLIPFit": "clipbench.methods.clipfit:CLIPFit",
    "CoOp": "clipbench.methods.coop:CoOp",
    "CoCoOp": "clipbench.methods.cocoop:CoCoOp",
    "KgCoOp": "clipbench.methods.kgcoop:KgCoOp",
    "ProGrad": "clipbench.methods.prograd:ProGrad",
    "TCP": "clipbench.methods.tcp:TCP",
    "MaPLe": "clipbench.methods.maple:MaPLe",
    "PromptSRC": "clipbench.methods.promptsrc:PromptSRC",
    "IVLP": "clipbench.methods.ivlp:IVLP",
    "VPT": "clipbench.methods.vpt:VPT",
    "TipAdapter": "clipbench.methods.tip_adapter:TipAdapter",
    "CLIPAdapter": "clipbench.methods.clip_adapter:CLIPAdapter",
    "TaskRes": "clipbench.methods.taskres:TaskRes",
    "CLAP": "clipbench.methods.clap:CLAP",
    "LPPlusPlus": "clipbench.methods.lp_plus_plus:LPPlusPlus",
    "LinearProbe": "clipbench.methods.linear_probe:LinearProbe",
    "FineTuning": "clipbench.methods.fine_tuning:FineTuning",
    "FisherAdapTune": "clipbench.methods.fisher_adaptune:FisherAdapTune",
    "WiSEFT": "clipbench.methods.wiseft:WiSEFT",
    "LoRA": "clipbench.methods.lora:LoRA",
    "Adapter": "clipbench.methods.adapter:Adapter",
    "Peft": "clipbench.methods.peft:Peft",
    "MFT": "clipbench.methods.mft:MFT",
    "RAMT": "clipbench.methods.ramt:RAMT",
}


def registered() -> dict[str, str]:
    """Name to import string: ours by their class names, then those of plug-ins (entry points `clipbench.methods`).

    Raises:
        ConfigError: a plug-in takes a name that is taken.
    """
    known = dict(METHODS)
    for name, value in _plugins():
        if known.setdefault(name, value) != value:
            raise ConfigError(f"plug-in '{value}' calls its method '{name}', a name that is taken")
    return known


@functools.cache
def _plugins() -> tuple[tuple[str, str], ...]:
    return tuple((point.name, point.value) for point in entry_points(group="clipbench.methods"))


def method_class(name: str) -> type[Method]:
    """The method of that name, or of that import path (`package.module.Class`).

    Raises:
        UnknownName: no method has this name, or its module has no such class.
        ConfigError: its module is not there or cannot be imported, or the class is no method.
    """
    known = registered()
    module, _, attribute = known[name].partition(":") if name in known else name.rpartition(".")
    if not module:
        raise UnknownName("method", name, known, "; a class in a file beside you is module.Class")
    from clipbench.methods.base import Method

    content = imported_module(module, f"method '{name}'", f" (known by their names alone: {', '.join(sorted(known))})")
    if not hasattr(content, attribute):
        raise UnknownName(f"method of module {module}", attribute, _names_of_methods(content, Method))
    kind = getattr(content, attribute)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise ConfigError(f"'{name}' is not a method: it does not derive from clipbench.methods.base.Method")
    return kind


def imported_module(module: str, what: str, note: str = "") -> ModuleType:
    """A module that the user names.

    Args:
        module: its name.
        what: what it is imported for; begins the message.
        note: ends the message where there is no such module.

    Raises:
        ConfigError: it is not there, or raises while it is imported: with file and line.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{what}: there is no module '{error.name}', neither installed nor in the folder that "
                f"clipbench is called from{note}"
            ) from error
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{what}: importing '{module}' fails{_place_of(error)}: {said}") from error


def _place_of(error: Exception) -> str:
    """Where an import failed, as file and line: the last place outside the machinery of imports."""
    if isinstance(error, SyntaxError):
        return ""  # its text says where
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    return f" at {places[-1].filename}:{places[-1].lineno}" if places else ""


def _names_of_methods(module: ModuleType, base: type) -> list[str]:
    found = [name for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, base)]
    return [name for name in found if name != base.__name__]
