"""Split files: every entry is checked, what does not fit is named with its place, nothing leads out of the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.data.readers.zhou import SCHEMA_FILE, _fits, dump, parse
from clipbench.data.splits import PARTS, Item, Split, differences
from clipbench.errors import DataError
from clipbench.schemas import misfits

GOOD = {"train": [["a/1.jpg", 0, "ant"], ["b/1.jpg", 1, "bee"]], "val": [], "test": [["a/2.jpg", 0, "ant"]]}


def read(content: Any) -> Split:
    return parse(content if isinstance(content, bytes) else json.dumps(content).encode(), Path("mine/split.json"))


def with_image(*image: Any) -> dict[str, Any]:
    return GOOD | {"val": [["a/3.jpg", 0, "ant"], [*image]]}


ENTRIES = {
    "label 0.5": (("a/4.jpg", 0.5, "ant"), "val.1.1: a label is a whole number from 0"),
    "label 1.0": (("a/4.jpg", 1.0, "ant"), "val.1.1: a label is a whole number from 0"),
    "label -1": (("a/4.jpg", -1, "ant"), "val.1.1: a label"),
    "label text": (("a/4.jpg", "0", "ant"), "val.1.1: a label"),
    "label true": (("a/4.jpg", True, "ant"), "val.1.1: a label"),
    "label null": (("a/4.jpg", None, "ant"), "val.1.1: a label"),
    "path 5": ((5, 0, "ant"), "val.1.0: a path is text"),
    "path empty": (("", 0, "ant"), "val.1.0: a path"),
    "path up": (("../../x.jpg", 0, "ant"), r"val.1.0: a path is text, below the image folder, without '\.\.'"),
    "path up inside": (("a/../../x.jpg", 0, "ant"), "val.1.0: a path"),
    "path absolute": (("/etc/passwd", 0, "ant"), "val.1.0: a path"),
    "path with a drive": (("C:/x.jpg", 0, "ant"), "val.1.0: a path"),
    "path of a folder": (("a/", 0, "ant"), "val.1.0: a path"),
    "path spelled otherwise": (("./a/1.jpg", 0, "ant"), "val.1.0: a path"),
    "path with two slashes": (("a//1.jpg", 0, "ant"), "val.1.0: a path"),
    "path of two lines": (("a\n.jpg", 0, "ant"), "val.1.0: a path"),
    "path with a zero": (("a\0.jpg", 0, "ant"), "val.1.0: a path"),
    "name 7": (("a/4.jpg", 0, 7), "val.1.2: a class name"),
    "name empty": (("a/4.jpg", 0, " "), "val.1.2: a class name"),
    "name of two lines": (("a/4.jpg", 0, "ant\nbee"), "val.1.2: a class name is one line of text"),
    "name with an escape": (("a/4.jpg", 0, "\x1b[2J"), "val.1.2: a class name"),
    "two entries": (("a/4.jpg", 0), "val.1: an image is"),
    "four entries": (("a/4.jpg", 0, "ant", 1), "val.1: an image is"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_an_entry_that_does_not_fit_is_named_with_its_place(case: str) -> None:
    image, words = ENTRIES[case]
    with pytest.raises(DataError, match=rf"'mine/split\.json' is not a split file at {words}"):
        read(with_image(*image))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a split file: it is empty"),
        (b"{", "it is half-written or no JSON"),
        (b"[" * 100_000, "nesting"),
        (b'{"train": ' + b"[" * 5000 + b"]" * 5000 + b"}", "levels of nesting"),
        (b'{"train": [["\\ud800.jpg", 0, "ant"]], "val": [], "test": []}', "half a character"),
        (b'{"train": [["a.jpg", NaN, "ant"]], "val": [], "test": []}', "NaN is not finite"),
        (b'{"train": [["a.jpg", 1e999, "ant"]], "val": [], "test": []}', "is not finite"),
        (b'{"train": [["a.jpg", ' + b"9" * 5000 + b', "ant"]], "val": [], "test": []}', "cannot be read"),
        (b'{"train": [], "train": [], "val": [], "test": []}', "holds the key 'train' twice"),
        (json.dumps(GOOD).encode("utf-16"), "it is not UTF-8"),
        (b'{"train": [["caf\xe9.jpg", 0, "ant"]], "val": [], "test": []}', "it is not UTF-8"),
        ([], "at top level"),
        ("text", "at top level"),
        ({"train": [], "test": []}, "'val' is a required property"),
        (GOOD | {"train": {}}, r"at train: a list of \[path, label, class name\]"),
        (GOOD | {"train": ["a/1.jpg"]}, "at train.0: an image is"),
        (GOOD | {"train": [None]}, "at train.0: an image is"),
        (GOOD | {"train": [{"path": "a/1.jpg", "label": 0}]}, "at train.0: an image is"),
    ],
)
def test_what_is_no_split_file_is_one_sentence(content: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(content)
    assert "mine/split.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_part_is_named() -> None:
    with pytest.raises(DataError, match=r"unknown key of split file .*'valid'; did you mean 'val'"):
        read({"train": [], "valid": [], "val": [], "test": []})


def test_names_of_real_classes_fit() -> None:
    """A slash in a name (StanfordCars), letters of other scripts, blanks: names are no paths."""
    for name in ("Ram C/V Cargo Van Minivan 2012", "Löwenzahn", "蒲公英", "a.b", "..", "=1+1", "<b>"):
        assert read(with_image("a/4.jpg", 0, name)).val[1].classname == name
    for path in ("Löwe/1.jpg", "a b/c d.jpg", "..a/b..jpg", "a\\b.jpg", ".hidden/1.jpg"):
        assert read(with_image(path, 0, "ant")).val[1].path == path


values = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.floats(allow_nan=False), st.text(max_size=6),
    st.sampled_from(["a/b.jpg", "../x", "/x", "a/./b", "a//b", "C:/x", "ant", "a\n", "x\n", "a/..", "\x7f"]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=2, max_size=4) | values)
def test_the_quick_check_says_what_the_schema_says(image: Any) -> None:
    assert _fits()(image) == (not list(misfits(GOOD | {"train": [image]}, SCHEMA_FILE)))


def test_a_written_split_reads_back() -> None:
    split = read(GOOD)
    assert read(b"\xef\xbb\xbf" + dump(split)) == split, "as an editor of Windows saves it"
    assert read(dump(split)) == split


def test_an_image_in_two_parts_is_a_difference_from_every_card() -> None:
    from clipbench.data.cards import load_card

    card = load_card("eurosat")
    image = Item("a.jpg", 0, card.classnames[0])
    for first, second, words in (
        ("train", "val", "1 val images are also train images: a.jpg"),
        ("train", "test", "1 test images are also train or val images: a.jpg"),
        ("val", "test", "1 test images are also train or val images: a.jpg"),
    ):
        parts = {part: [image] if part in (first, second) else [] for part in PARTS}
        assert words in differences(card, Split.of(parts))
