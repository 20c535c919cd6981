"""What tells the rows of one recipe apart: settings, code, backbone, precision, data; and how each is named.

A cell's `variant` is what its configuration differs by from what the packaged recipe resolves to for the same suite,
protocol, dataset, shots and backbone (`provenance.variant`, stated by the plan). Records of earlier versions hold what
the user had changed instead.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from clipbench.records.settings import flat
from clipbench.records.store import Cell

SHOWN = 3  # settings that a name spells out
EARLIER = "earlier version"
# the digest of all files follows the draw, and so the seed; that of the test images is stated for images of one's own
DATA, MEASURED = ("dataset", "split_hash"), "test_digest"


WORDS = ("settings", "class", "code", "version", "backbone", "precision", "recipe", "data")
UNSAID = ("class_path", "code", "recipe")  # by records of an earlier version


class Difference(NamedTuple):
    """What rows of one recipe may differ by; cells with equal differences may share a row.

    Attributes:
        settings: dotted settings that are not the packaged recipe's, as JSON.
        class_path: of the method.
        code: fingerprints of code that no version speaks for, as JSON.
        versions: of the numeric code, as JSON.
        backbone: hash of the loaded tensors.
        precision: of the trainer.
        recipe: digest of the recipe's own content, as far as it acts; `EARLIER` where the record does not say.
        data: number of the data behind the dataset's key: 0 is what most cells of the table have.
    """

    settings: str
    class_path: str
    code: str
    versions: str
    backbone: str
    precision: str
    recipe: str
    data: str


def is_of_earlier_version(provenance: Mapping[str, Any]) -> bool:
    """Whether a cell was computed before records said what its recipe was, beyond its name."""
    return "variant" not in provenance and "recipe_digest" not in provenance


def settings_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted settings in which a cell differs from the packaged recipe."""
    if "variant" in provenance:
        return dict(provenance["variant"])
    return flat(provenance.get("changed") or {})


def difference(provenance: Mapping[str, Any], data: str = "") -> Difference:
    """What the provenance of a cell says, with the name of its data."""
    return Difference(
        _text(settings_of(provenance)), str(provenance.get("class_path") or ""), _text(provenance.get("code") or {}),
        _text(provenance.get("versions") or {}), str(provenance.get("backbone_hash") or ""),
        str(provenance.get("precision") or ""),
        EARLIER if is_of_earlier_version(provenance) else str(provenance.get("recipe_digest") or ""), data,
    )  # fmt: skip


def data_names(
    cells: Iterable[tuple[Cell, Mapping[str, Any]]], first: Iterable[tuple[Cell, Mapping[str, Any]]] = ()
) -> dict[tuple[tuple, str], str]:
    """Names of the data behind each dataset's key, by table, dataset and fingerprint: "" for the usual one.

    Args:
        cells: with their provenance, latest last.
        first: those of a plan, whose data are the usual ones.
    """
    counts: dict[tuple, dict[str, int]] = defaultdict(dict)
    for cell, provenance in cells:
        here = counts[table_of(cell), cell.dataset]
        here[fingerprint(provenance)] = here.pop(fingerprint(provenance), 0) + 1
    asked = {(table_of(cell), cell.dataset): fingerprint(provenance) for cell, provenance in first}
    names: dict[tuple[tuple, str], str] = {}
    for place, here in counts.items():
        usual = asked.get(place) or max(reversed(list(here)), key=lambda one: here[one])
        names |= {(place, one): "" if one == usual else _digest(one) for one in here}
    return names


def fingerprint(provenance: Mapping[str, Any]) -> str:
    """What identifies the images and labels of a cell, whatever its seed."""
    measured = [provenance[MEASURED]] if MEASURED in provenance else []
    return _text([*(provenance.get(name) for name in DATA), *measured])


def table_of(cell: Cell) -> tuple:
    """What tables are told apart by: suite, backbone, protocol, setting, shots."""
    return (cell.suite, cell.backbone, cell.protocol, cell.setting, cell.shots)


def name_rows(groups: Mapping[Difference, int]) -> dict[Difference, str]:
    """A name for each of the rows of one recipe; "" for the packaged settings, which stand first.

    Args:
        groups: the rows, with a number each: the larger, the more it is the one that the others are told apart from.
            A row of an earlier version is never that one beside another, and says what it is also alone.
    """
    usual = max(groups, key=lambda one: (one.recipe != EARLIER, one.data == "", one.settings == "{}", groups[one]))
    names: dict[Difference, str] = {}
    for one in sorted(groups, key=lambda one: -groups[one]):
        parts = [*_shown(json.loads(one.settings)), *_other(one, usual)]
        if not parts and one != usual:
            parts = [f"recipe {_digest(one.recipe)}"]
        name = ", ".join(parts)
        names[one] = name if name not in names.values() else f"{name}, {_digest(_text(one))}"
    return names


def reasons(groups: Iterable[Difference]) -> list[str]:
    """By what the rows of one recipe are kept apart, in the words of the table."""
    rows = list(groups)
    known = [one for one in rows if one.recipe != EARLIER]  # the others do not say class, code and recipe
    columns = zip(*rows, strict=True)
    stated = dict(zip(Difference._fields, zip(*known, strict=True), strict=True)) if known else {}
    mixed = {"version"} if 0 < len(known) < len(rows) else set()
    apart = {
        word for name, word, column in zip(Difference._fields, WORDS, columns, strict=True)
        if len(set(stated.get(name, ()) if name in UNSAID else column)) > 1
    }  # fmt: skip
    return [word for word in WORDS if word in apart | mixed]


def _shown(settings: Mapping[str, Any]) -> list[str]:
    texts = [f"{name.removesuffix('.class_path')} {_value(value)}" for name, value in sorted(settings.items())]
    if len(texts) <= SHOWN:
        return texts
    return [*texts[:SHOWN], f"{len(texts) - SHOWN} more ({_digest(_text(settings))})"]


def _other(one: Difference, usual: Difference) -> list[str]:
    earlier = one.recipe == EARLIER
    parts = [EARLIER] if earlier else []
    if one.class_path != usual.class_path and "class_path" not in one.settings and not earlier:
        parts.append(f"class {one.class_path}")
    if one.code != usual.code and not earlier:
        parts.append(f"code {_digest(one.code)}" if one.code != "{}" else "without changes of the code")
    if one.versions != usual.versions:
        mine, its = json.loads(one.versions), json.loads(usual.versions)
        parts += [f"{name} version {value}" for name, value in mine.items() if its.get(name) != value] or [
            f"version {_digest(one.versions)}"
        ]
    if one.backbone != usual.backbone:
        parts.append(f"backbone {one.backbone[:6]}")
    if one.precision != usual.precision:
        parts.append(f"precision {one.precision}")
    return [*parts, f"data {one.data}"] if one.data else parts


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:32]}... ({_digest(text)})"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:4]
