"""Class names that a user gives: those that look or sound the same to the text tower are found before any training."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

from clipbench.data.paths import few
from clipbench.data.templates import class_text
from clipbench.errors import DataError

# control characters, line breaks and turns of the direction of writing
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def normal(name: str) -> str:
    """A name in the composed Unicode form: an archive made on a Mac writes é as two characters.

    Example:
        >>> normal("cafe\\u0301") == "caf\\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def as_prompted(name: str) -> str:
    """What is left of a name in a prompt: CLIP's tokenizers know neither case nor how many blanks there are.

    Example:
        >>> as_prompted("Big_Cat "), as_prompted("R&amp;B")
        ('big cat', 'r&b')
    """
    return " ".join(html.unescape(html.unescape(normal(class_text(name)))).lower().split())


def name_faults(names: Sequence[str]) -> list[str]:
    """What is wrong with names of classes: empty ones, and those that give the very same prompt; one sentence a kind.

    Of two classes with one prompt the second could never be predicted.

    Example:
        >>> name_faults(["cat", "dog", "Cat"])
        ["classes 'cat' and 'Cat' give the same prompt: give them names that differ in more than case, '_' and blanks"]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(as_prompted(name), []).append(name)
    faults = []
    if odd := [name for name in names if UNPRINTABLE.search(name)]:
        faults.append(f"{len(odd)} class names hold a control character: {few([ascii(name) for name in odd])}")
    if empty := groups.pop("", []):
        faults.append(f"{len(empty)} class names without a word: {few([repr(name) for name in empty])}")
    alike = [group for group in groups.values() if len(group) > 1]
    twice = [group[0] for group in alike if len(set(group)) == 1]
    if twice:
        faults.append(f"two classes have the same name: {few([repr(name) for name in twice])}")
    if others := [group for group in alike if len(set(group)) > 1]:
        shown = "; ".join(_listed(list(dict.fromkeys(group))) for group in others[:5])
        more = f" and {len(others) - 5} more groups" if len(others) > 5 else ""
        faults.append(
            f"classes {shown}{more} give the same prompt: give them names that differ in more than case, '_' and blanks"
        )
    return faults


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names of classes among which one is to be chosen.

    Raises:
        DataError: there is none, or what `name_faults` finds.
        TypeError: they are one text, or not all texts.

    Example:
        >>> distinct(["cat", "dog"])
        ('cat', 'dog')
    """
    given = (names,) if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"classes are a list of names, not {names!r}")
    if faults := name_faults(given) if given else ["no class is named to choose among"]:
        raise DataError("; ".join(faults))
    return given


def _listed(names: Iterable[str]) -> str:
    return " and ".join(repr(name) for name in names)
