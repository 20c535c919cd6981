"""Split files of the CoOp authors: JSON with train, val and test, each a list of `[path, label, class name]`."""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipbench.data.card import Card
from clipbench.data.files import check_hash, named, open_file
from clipbench.data.splits import PARTS, Item, Split
from clipbench.errors import ConfigError, DataError
from clipbench.json_files import parse_json
from clipbench.regular_files import Fault
from clipbench.schemas import validator
from clipbench.yaml_files import check_schema

SCHEMA_FILE = Path(__file__).parents[1] / "split.schema.json"


def read(card: Card, root: Path, splits_dir: Path | None = None) -> Split:
    """The split in file order.

    Raises:
        DataError: when the file is missing, is not the published one, or cannot be parsed.
    """
    file = named(card, card.split_file or "")
    path, data = open_file(card, file, root, splits_dir)
    check_hash(file, path, data)
    return parse(data, path)


def parse(data: bytes, path: Path) -> Split:
    """The split that the bytes of a JSON file describe.

    Args:
        data: content of the file.
        path: for messages.

    Raises:
        DataError: when it is not JSON or not of this form; names the first entry that does not fit.
    """
    try:
        content: Any = parse_json(data.removeprefix(codecs.BOM_UTF8))  # which editors of Windows write
        check_schema(_until_misfit(content), SCHEMA_FILE, "split file", str(path))
    except Fault as fault:
        raise DataError(f"'{path}' is not a split file: it {fault}") from fault
    except ConfigError as error:
        raise DataError(str(error)) from error
    return Split.of({part: [Item(*entry) for entry in content[part]] for part in PARTS})


def _until_misfit(content: Any) -> Any:
    """A split file without the images that are as they must be, up to the first that is not.

    The schema is what says so; asked about every image it would take three seconds for Food101.
    """
    if not isinstance(content, dict):
        return content
    fits = _fits()
    short = dict(content)
    for part in PARTS:
        images = content.get(part)
        if isinstance(images, list):
            wrong = next((place for place, image in enumerate(images) if not fits(image)), None)
            short[part] = [] if wrong is None else [*[["-", 0, "-"]] * wrong, images[wrong]]
    return short


@functools.cache
def _fits() -> Callable[[Any], bool]:
    """Whether an image of a split file fits; the patterns are the schema's."""
    types = validator(SCHEMA_FILE).schema["$defs"]
    path, name = types["path"], types["classname"]
    (path_is, path_not), (name_is, name_not) = (
        (re.compile(one["pattern"]).search, re.compile(one["not"]["pattern"]).search) for one in (path, name)
    )
    known: set[Any] = set()  # names: as many as there are classes

    def fits(image: Any) -> bool:
        if type(image) is not list or len(image) != 3:
            return False
        file, label, classname = image
        if type(label) is not int or label < 0 or type(file) is not str or type(classname) is not str:
            return False
        if classname not in known:
            if not name_is(classname) or name_not(classname):
                return False
            known.add(classname)
        return bool(path_is(file)) and not path_not(file)

    return fits


def dump(split: Split) -> bytes:
    """The bytes of a split file, as the CoOp authors write them: indent 4, no line feed at the end."""
    lists = {part: [list(item) for item in split.part(part)] for part in PARTS}
    return json.dumps(lists, indent=4, separators=(",", ": ")).encode()
