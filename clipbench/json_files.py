"""JSON as plain data, or a fault in a few words: damaged, not finite, nested without end."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from clipbench.regular_files import Fault

DEEPEST = 50  # levels


def parse_json(content: bytes) -> Any:
    """Plain data from JSON text in UTF-8.

    Raises:
        Fault: it is not JSON, holds a key twice, a number that is not finite or half a character, or is nested without
            end.
    """
    if not content.strip():
        raise Fault("is empty")
    try:
        text = content.decode("utf-8")
        data = json.loads(text, parse_constant=_number, parse_float=_number, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise Fault(f"is not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise Fault(f"is half-written or no JSON ({error})") from error
    except RecursionError as error:
        raise Fault(f"has more than {DEEPEST} levels of nesting") from error
    except Fault:
        raise
    except ValueError as error:  # a whole number of thousands of digits
        raise Fault(f"holds a number that cannot be read ({error})") from error
    if text.count("[") + text.count("{") > DEEPEST and _depth([data]) > DEEPEST:
        raise Fault(f"has more than {DEEPEST} levels of nesting")
    if "\\ud" in text.lower():
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise Fault("holds half a character (a lone surrogate)") from error
    return data


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Fault(f"is no finite data: the number {text[:20]} is not finite")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Fault(f"holds the key {twice[:40]!r} twice")
    return found


def _depth(level: Iterable[Any]) -> int:
    """Levels of nesting, without recursion."""
    depth = 0
    while level:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level, depth = [one for some in inner for one in some], depth + 1
    return depth - 1
