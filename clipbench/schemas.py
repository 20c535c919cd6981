"""JSON schemas: one validator for every kind of file.

A whole number is one that is written without a point, and a number is finite.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TOP = "top level"


@functools.cache
def validator(schema: Path) -> Any:
    """The validator of a file that holds a schema."""
    import jsonschema  # here: it takes a third of the start of a command that checks nothing

    draft = jsonschema.Draft202012Validator
    types = draft.TYPE_CHECKER.redefine("integer", _whole).redefine("number", _finite)
    strict = jsonschema.validators.extend(draft, type_checker=types)
    return strict(json.loads(schema.read_text(encoding="utf-8")))


def _whole(_: Any, one: Any) -> bool:
    return isinstance(one, int) and not isinstance(one, bool)


def _finite(_: Any, one: Any) -> bool:
    return _whole(_, one) or (isinstance(one, float) and math.isfinite(one))


class Misfit(NamedTuple):
    """Something in a document that its schema does not allow.

    Attributes:
        place: where, as `splits.base.total`.
        message: what is wrong there.
        key: a key that there is not; "" where something else is wrong.
        known: the keys that there are.
    """

    place: str
    message: str
    key: str = ""
    known: tuple[str, ...] = ()


def misfits(content: Any, schema: Path) -> Iterator[Misfit]:
    """Everything that does not fit, the outermost first, each once."""
    return iter(dict.fromkeys(_misfits(content, schema)))


def _misfits(content: Any, schema: Path) -> Iterator[Misfit]:
    for error in sorted(validator(schema).iter_errors(content), key=lambda one: len(one.absolute_path)):
        stated: Mapping[str, Any] = error.schema
        place = place_of(error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = tuple(stated.get("properties", ()))
            for key in error.instance:
                if key not in known:
                    yield Misfit(place, f"there is no key {key!r}", str(key), known)
            continue
        message = stated.get("x-message") or error.message[:200]
        if error.validator == "enum" and isinstance(error.instance, str):
            near = difflib.get_close_matches(error.instance, [one for one in error.validator_value if one], n=1)
            message += f"; did you mean '{near[0]}'?" if near else ""
        yield Misfit(place, message)


def place_of(path: Sequence[Any]) -> str:
    """Where something stands in a document, as `splits.base.total`."""
    return ".".join(map(str, path))[:200] or TOP


def first_fault(content: Any, schema: Path) -> str:
    """What is wrong first, as `at splits.base.total: 0 is less than the minimum of 1`; "" where all fits."""
    for error in validator(schema).iter_errors(content):
        stated: Mapping[str, Any] = error.schema
        return f"at {place_of(error.absolute_path)}: {stated.get('x-message') or error.message[:200]}"
    return ""
