"""A file that is no record is one sentence, whatever it is; it is not waited for, and nothing in it is believed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbench.errors import RecordError
from clipbench.records import reading
from clipbench.records.reading import parse_record, read_record
from clipbench.records.store import RecordStore, write_record
from clipbench.report.aggregate import aggregate
from clipbench.report.cells import cells_of
from clipbench.report.select import select
from clipbench.report.tables import FORMATS, render
from tests.records.records import CELL, joint, record

TEXT = json.dumps(record())
DAMAGED = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t ", "is empty"),
    "cut off": (TEXT[:200].encode(), "half-written or no JSON"),
    "not JSON": (b"<!DOCTYPE html>", "half-written or no JSON"),
    "not UTF-8": (TEXT.replace("clipfit", "caf\xe9").encode("latin-1"), "is not UTF-8"),
    "UTF-16": (TEXT.encode("utf-16"), "is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), "BOM"),
    "100,000 brackets": (b"[" * 100_000, "levels of nesting"),
    "100,000 braces": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "levels of nesting"),
    "60 brackets": (TEXT.replace('"error": null', '"error": ' + "[" * 60 + "]" * 60).encode(), "levels of nesting"),
    "a lone surrogate": (TEXT.replace("mini", "\\ud800").encode(), "lone surrogate"),
    "a lone surrogate in a key": (TEXT.replace('"lr"', '"\\uDFFF"').encode(), "lone surrogate"),
    "not a number": (TEXT.replace("0.31", "NaN").encode(), "NaN is not finite"),
    "infinity": (TEXT.replace("0.31", "-Infinity").encode(), "Infinity is not finite"),
    "too large for a float": (TEXT.replace("0.31", "1e400").encode(), "1e400 is not finite"),
    "5,000 digits": (TEXT.replace("0.31", "9" * 5000).encode(), "cannot be read"),
    "400 digits": (TEXT.replace("4608", "9" * 400).encode(), "cost.trained_parameters"),
    "a key twice": (TEXT.replace('"status"', '"status": "error", "status"').encode(), "the key 'status' twice"),
    "a list": (b"[]", "top level"),
    "a number": (b"7", "top level"),
    "null": (b"null", "top level"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_record_is_one_sentence_that_names_the_file(tmp_path: Path, case: str) -> None:
    content, said = DAMAGED[case]
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"record 'some\.json' in ") as caught:
        read_record(path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


PLACES = {
    "a folder": (Path.mkdir, "is a folder"),
    "a pipe": (_pipe, "is a pipe"),
    "a link to a pipe": (_link_to_a_pipe, "is a pipe"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "a link to a folder": (lambda path: path.symlink_to(path.parent), "is a folder"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "is not in"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
}


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_file_is_refused_without_waiting_and_the_others_are_read(tmp_path: Path, what: str) -> None:
    write_record(tmp_path, record())
    make, said = PLACES[what]
    make(tmp_path / "records" / "other.json")
    scan = RecordStore(tmp_path).scan()
    assert len(scan.records) == 1
    (problem,) = scan.problems
    assert said in problem


@pytest.mark.parametrize("folder", ["records", "weights"])
@pytest.mark.parametrize("what", ["a folder", "a pipe", "a link to a pipe", "a link to a device"])
def test_what_stands_in_the_place_of_a_result_is_refused_before_the_work(
    tmp_path: Path, folder: str, what: str
) -> None:
    store, key = RecordStore(tmp_path), record()["key"]
    place = store.path_for(CELL, key) if folder == "records" else store.weights_for(CELL, key)
    place.parent.mkdir()
    PLACES[what][0](place)
    with pytest.raises(RecordError, match="where a file belongs"):
        store.why_undone(CELL, key)


def test_a_record_of_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(RecordError, match="has 3,000 MB; at most 16 MB are read"):
        read_record(path)
    path.write_text(TEXT)
    monkeypatch.setattr(reading, "LARGEST", len(TEXT))
    assert read_record(path).ok


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


WHOLE = record(
    provenance={
        "variant": {"model.lr": 0.1}, "recipe_digest": "r" * 64, "class_path": "clipbench.methods.clipfit:CLIPFit",
        "code": {"own.py": "c" * 64}, "templates": ["a {}."], "augmentation": {"flip": 0.5}, "dataset": "dtd",
        "start": {"recipe": "full", "key": "k"}, "changed": {"model": {"init_args": {"lr": 0.1}}},
        "selected_on": {"model.lr": "val images"}, "val_images": 8,
    },
    joint=joint(), no_joint="a reason", validation_free=False,
    environment={"dirty": False, "threads": 1, "torch": "2.0"},
)  # fmt: skip
EVERYWHERE = [place for place in places(WHOLE) if place]
strange = st.sampled_from(
    [None, True, False, 0, 1, -1, 0.5, 30.0, 1e300, 2**53, 10**30, "", "x", "\x1b[31m", "$", [], [1], ["x"], {},
     {"x": 1}, {"x": {"y": None}}, {"": []}]
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(place=st.sampled_from(EVERYWHERE), value=strange, gone=st.booleans())
def test_a_wrong_value_at_any_place_is_refused_or_does_no_harm(place: tuple[Any, ...], value: Any, gone: bool) -> None:
    data = copy.deepcopy(WHOLE)
    inner: Any = data
    for step in place[:-1]:
        inner = inner[step]
    if gone:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    try:
        read = parse_record(json.dumps(data).encode(), "it")
    except RecordError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either way is right
        return
    one, other = reading.Record(read), reading.Record(record(seed2()))
    chosen = select([one, other])
    frame = aggregate(cells_of(chosen.records), chosen.missing)
    for form in FORMATS:
        assert render(frame, form)


def seed2() -> Any:
    from tests.records.records import cell

    return cell(seed=2)


def test_counts_are_whole_numbers_without_a_point() -> None:
    for name in ("total", "correct"):
        data = record()
        data["splits"]["base"][name] = float(data["splits"]["base"][name])
        with pytest.raises(RecordError, match=rf"splits\.base\.{name}: {data['splits']['base'][name]}"):
            parse_record(json.dumps(data).encode(), "it")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (joint(pairs=(500, 0, 1599)), "500 of 1599 pairs won or tied, where 600 of 1600 are right on both sides"),
        (joint(pairs=(500, 101, 1600)), "601 of 1600 pairs won or tied, where 600 of 1600 are right on both sides"),
        (joint(total=41), "joint is not of the images of base and novel"),
        (joint() | {"base": joint()["base"] | {"correct": 24}}, "split joint base counts 24 right, its bitmap 25"),
    ],
)
def test_what_was_measured_over_all_classes_fits_the_halves(wrong: dict[str, Any], said: str) -> None:
    assert parse_record(json.dumps(record(joint=joint())).encode(), "it")
    with pytest.raises(RecordError, match=f"contradicts itself: {said}"):
        parse_record(json.dumps(record(joint=wrong)).encode(), "it")


def test_base_to_novel_has_both_its_splits() -> None:
    data = record(novel=None)
    with pytest.raises(RecordError, match="'novel' is a required property"):
        parse_record(json.dumps(data).encode(), "it")
