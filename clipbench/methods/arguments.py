"""The settings of a method: the names of its init arguments, also as files of earlier versions have them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, MutableMapping
from copy import copy
from typing import Any

from clipbench.errors import UnknownName, UnreadSetting

FORMER = {  # names before version 0.2.0, by method
    "Adapter": {"n": "n_adapters"},
    "MFT": {"init": "score_init", "init_value": "score_scale", "travel": "lr_rule"},
    "RAMT": {"l": "gdr_lambda", "initial": "score_init"},
}


def settings_of(kind: type) -> list[str]:
    """The names of all init arguments of a class, those that its base classes take included."""
    names: dict[str, None] = {}
    for base in kind.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names |= dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if not any(p.kind is p.VAR_KEYWORD and p.name != "unknown" for p in parameters):
            break
    return [name for name in names if name != "self"]


def refuse_unknown(kind: type, given: Iterable[str]) -> None:
    """Raise UnknownName, with the nearest right name, where an argument is given that a class does not have."""
    for name in given:
        raise UnknownName(f"setting of {kind.__name__}", name, settings_of(kind))


def keep_own(kind: type, arguments: MutableMapping[str, Any]) -> None:
    """Drop the arguments that a class does not take, in place; paths become text, which any file can hold."""
    for name in set(arguments) - set(settings_of(kind)):
        del arguments[name]
    arguments.update({name: os.fspath(value) for name, value in arguments.items() if isinstance(value, os.PathLike)})


def from_stored(kind: type, stored: Mapping[str, Any], **changes: Any) -> Any:
    """An object of a class from the arguments that a file holds, of this or an earlier version.

    Args:
        kind: the class.
        stored: argument to value.
        changes: arguments that win over the stored ones.
    """
    return kind(**arguments_of(kind, stored, **changes))


def arguments_of(kind: type, stored: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The arguments that a file holds, of this or an earlier version, as a class takes them today.

    Files of earlier versions name some arguments otherwise, and hold settings that nothing read.

    Args:
        kind: the class.
        stored: argument to value.
        changes: arguments that win over the stored ones.
    """
    former, known = FORMER.get(kind.__name__, {}), settings_of(kind)
    arguments = {former.get(name, name): value for name, value in stored.items()} | changes
    arguments = {name: copy(value) for name, value in arguments.items() if name in known}
    while True:
        try:
            kind(**arguments)
            return arguments
        except UnreadSetting as error:
            groups = [arguments, *(value for value in arguments.values() if isinstance(value, dict))]
            holder = next((group for group in groups if error.name in group), None)
            if holder is None or error.name in changes:
                raise
            del holder[error.name]
