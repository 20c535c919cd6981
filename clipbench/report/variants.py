"""What tells the rows of one recipe apart: settings, code, backbone, precision, data; and how each is named.

A cell's `variant` is what its configuration differs by from what the packaged recipe resolves to for the same suite,
protocol, dataset, shots and backbone (`provenance.variant`, stated by the plan). Records of earlier versions hold what
the user had changed instead.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from clipbench.records.settings import flat
from clipbench.records.store import Cell

SHOWN = 3  # settings that a name spells out
EARLIER = "earlier version"
# the digest of all files follows the draw, and so the seed; that of the test images is stated for images of one's own,
# the other where a suite says more of a dataset than its place
DATA, MORE = ("dataset", "split_hash"), ("test_digest", "suite_digest")
POOL = "train_digest"  # of the images that may be drawn, for images of one's own; not in the first records of such
SHOWN_AS = ("templates", "augmentation")  # how its classes and images are shown: of each recipe its own


WORDS = ("settings", "class", "code", "version", "backbone", "backbone", "precision", "recipe", "data")
UNSAID = ("class_path", "code", "reading", "recipe")  # by records of an earlier version


class Difference(NamedTuple):
    """What rows of one recipe may differ by; cells with equal differences may share a row.

    Attributes:
        settings: dotted settings that are not the packaged recipe's, as JSON.
        class_path: of the method.
        code: fingerprints of code that no version speaks for, as JSON.
        versions: of the numeric code, as JSON.
        backbone: hash of the loaded tensors.
        reading: its activation and preprocessing, as JSON.
        precision: of the trainer.
        recipe: digest of the recipe's own content, as far as it acts; `EARLIER` where the record does not say.
        data: name of the data behind the dataset's key, and of how they are shown; "" is what most cells have.
    """

    settings: str
    class_path: str
    code: str
    versions: str
    backbone: str
    reading: str
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
        _text(provenance.get("backbone_spec") or {}), str(provenance.get("precision") or ""),
        EARLIER if is_of_earlier_version(provenance) else str(provenance.get("recipe_digest") or ""), data,
    )  # fmt: skip


def names_of_data(
    cells: Sequence[tuple[Cell, Mapping[str, Any]]], first: Sequence[tuple[Cell, Mapping[str, Any]]] = ()
) -> Callable[[Cell, Mapping[str, Any]], str]:
    """What names the data of a cell: "" for the usual ones behind its dataset's key, shown as usual in its row.

    Args:
        cells: with their provenance, latest last.
        first: those of a plan, which are the usual ones.
    """

    def place_of(cell: Cell, provenance: Mapping[str, Any]) -> tuple[Hashable, str]:
        return (table_of(cell), cell.dataset), fingerprint(provenance)

    pools = {place_of(*one): one[1][POOL] for one in (*cells, *first) if POOL in one[1]}

    def of_table(cell: Cell, provenance: Mapping[str, Any]) -> tuple[Hashable, str]:
        place, images = place_of(cell, provenance)
        pool = provenance.get(POOL) or pools.get((place, images))  # who does not say it has what the others have
        return place, _text([images, pool]) if pool else images

    names = _names([of_table(*one) for one in cells], [of_table(*one) for one in first])

    def of_row(cell: Cell, provenance: Mapping[str, Any]) -> tuple[Hashable, str]:
        place = (table_of(cell), cell.recipe, cell.dataset, difference(provenance, names[of_table(cell, provenance)]))
        return place, _text([provenance.get(name) for name in SHOWN_AS])

    within = _names([of_row(*one) for one in cells], [of_row(*one) for one in first])

    def of_targets(cell: Cell, provenance: Mapping[str, Any]) -> list[tuple[Hashable, str]]:
        found: list[tuple[Hashable, str]] = []
        for target, images in sorted((provenance.get("targets") or {}).items()):
            shown = {name: images[name] for name in SHOWN_AS if name in images}  # of each recipe its own
            rest = {name: value for name, value in images.items() if name not in shown}
            found.append(((table_of(cell), "target", target), _text(rest)))
            found.append(((table_of(cell), cell.recipe, "target", target), _text(shown)))
        return found

    tested = _names(
        [place for one in cells for place in of_targets(*one)], [place for one in first for place in of_targets(*one)]
    )

    def name(cell: Cell, provenance: Mapping[str, Any]) -> str:
        others = [tested[place] for place in of_targets(cell, provenance)]
        parts = [names[of_table(cell, provenance)], within[of_row(cell, provenance)], *others]
        said = [part for part in parts if part]
        return _digest(_text(parts)) if len(said) > 1 else "".join(said)

    return name


def _names(
    seen: Iterable[tuple[Hashable, str]], asked: Iterable[tuple[Hashable, str]]
) -> dict[tuple[Hashable, str], str]:
    """A name for each of the contents at each place: "" for that asked for, else for the most frequent, the latest."""
    counts: dict[Hashable, dict[str, int]] = defaultdict(dict)
    for place, content in seen:
        here = counts[place]
        here[content] = here.pop(content, 0) + 1
    usual = {place: max(reversed(list(here)), key=lambda one: here[one]) for place, here in counts.items()}
    usual |= dict(asked)
    return {
        (place, content): "" if content == usual[place] else _digest(content)
        for place, here in counts.items() for content in here
    }  # fmt: skip


def fingerprint(provenance: Mapping[str, Any]) -> str:
    """What identifies the images and labels of a cell, whatever its seed."""
    more = [provenance[name] for name in MORE if name in provenance]
    return _text([*(provenance.get(name) for name in DATA), *more])


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
    return [word for word in dict.fromkeys(WORDS) if word in apart | mixed]


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
    elif one.reading != usual.reading and not earlier:
        parts.append(f"activation or preprocessing {_digest(one.reading)}")
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
