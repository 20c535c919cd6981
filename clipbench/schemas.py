"""JSON schemas: one validator for every kind of file; a whole number is one that is written without a point."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


@functools.cache
def validator(schema: Path) -> Any:
    """The validator of a file that holds a schema."""
    import jsonschema  # here: it takes a third of the start of a command that checks nothing

    draft = jsonschema.Draft202012Validator
    types = draft.TYPE_CHECKER.redefine("integer", lambda _, one: isinstance(one, int) and not isinstance(one, bool))
    strict = jsonschema.validators.extend(draft, type_checker=types)
    return strict(json.loads(schema.read_text(encoding="utf-8")))


def place_of(path: Sequence[Any]) -> str:
    """Where something stands in a document, as `splits.base.total`."""
    return ".".join(map(str, path))[:200] or "top level"


def first_fault(content: Any, schema: Path) -> str:
    """What is wrong first, as `at splits.base.total: 0 is less than the minimum of 1`; "" where all fits."""
    for error in validator(schema).iter_errors(content):
        stated: Mapping[str, Any] = error.schema
        return f"at {place_of(error.absolute_path)}: {stated.get('x-message') or error.message[:200]}"
    return ""
