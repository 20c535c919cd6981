"""Values of arguments against the types that a class states, for calls from Python that no parser has read."""

from __future__ import annotations

import functools
import math
import numbers
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from clipbench.errors import ConfigError, UnknownName

PLAIN: dict[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: ((str, os.PathLike), "text"),
    type(None): (type(None), "None"),
    dict: (Mapping, "a dict"),
    list: ((list, tuple), "a list"),
    tuple: ((list, tuple), "a list"),
    Sequence: ((list, tuple), "a list"),
    Mapping: (Mapping, "a dict"),
}


def refuse_wrong_types(kind: type, values: Mapping[str, Any], called: str | None = None) -> None:
    """Raise ConfigError for the first value of another type than its argument states, no choice of it, or not finite.

    Args:
        kind: the class; arguments that its base classes take count too.
        values: argument to value; an argument of unknown type takes any.
        called: what its user knows it as, where not by its own name.
    """
    stated, called = _stated(kind), called or kind.__name__
    for name, value in values.items():
        if name in stated and isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{called}({name}={value}): {name} is a finite number")
        if name not in stated or _fits(value, stated[name]):
            continue
        if get_origin(stated[name]) is Literal and isinstance(value, str):
            raise UnknownName(f"{name} of {called}", value, get_args(stated[name]))
        hint = f"; write [{value!r:.100}]" if isinstance(value, str) and _fits([value], stated[name]) else ""
        raise ConfigError(f"{called}({name}={value!r:.100}): {name} is {_shown(stated[name])}{hint}")


@functools.cache
def _stated(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if "__init__" not in base.__dict__ or base is object:
            continue
        try:
            hints = get_type_hints(base.__init__)  # type: ignore[misc]
        except NameError:  # a type that is imported for type checkers alone
            continue
        found = hints | found
    return found


def _fits(value: Any, stated: Any) -> bool:
    origin, inner = get_origin(stated), get_args(stated)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    accepted = PLAIN.get(origin or stated, (None, ""))[0]
    if accepted is None:  # a class of its own, or what is not looked into
        return not isinstance(stated, type) or isinstance(value, stated)
    if not isinstance(value, accepted) or (isinstance(value, bool) and stated in (int, float)):
        return False
    if isinstance(value, Mapping) or not inner or not isinstance(value, list | tuple):
        return True
    if origin is tuple and Ellipsis not in inner:
        return len(value) == len(inner) and all(map(_fits, value, inner))
    return all(_fits(one, inner[0]) for one in value)


def _shown(stated: Any) -> str:
    origin, inner = get_origin(stated), get_args(stated)
    if origin in (Union, types.UnionType):
        return " or ".join(_shown(one) for one in inner)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    name = PLAIN.get(origin or stated, (None, getattr(stated, "__name__", str(stated))))[1]
    if origin is tuple and Ellipsis not in inner:
        return f"{len(inner)} values, each {_shown(inner[0])}"
    return f"{name}, each {_shown(inner[0])}" if name == "a list" and inner else name
