"""Files of several records: the shipped ones are read, a damaged one is a sentence, equal records are equal bytes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from clipbench.errors import RecordError, UnknownName
from clipbench.records import packed
from clipbench.records.packed import choose, read_records, write_packed
from tests.records.records import cell, record

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "mini" / "records"
SOME = [record(cell(dataset=dataset, seed=seed)) for dataset in ("dtd", "eurosat") for seed in (1, 2)]


def test_what_was_written_is_read_again_and_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    write_packed(tmp_path / "a.jsonl.gz", SOME[::-1])
    write_packed(tmp_path / "b.jsonl.gz", SOME)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert [one.data for one in read_records(tmp_path / "a.jsonl.gz")] == SOME
    (tmp_path / "c.jsonl").write_bytes(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) + b"\n\n")
    assert [one.data for one in read_records(tmp_path / "c.jsonl")] == SOME


def test_two_files_joined_are_one(tmp_path: Path) -> None:
    write_packed(tmp_path / "a.jsonl.gz", SOME[:1])
    write_packed(tmp_path / "b.jsonl.gz", SOME[1:])
    both = (tmp_path / "a.jsonl.gz").read_bytes() + (tmp_path / "b.jsonl.gz").read_bytes()
    (tmp_path / "both.jsonl.gz").write_bytes(both)
    assert [one.data for one in read_records(tmp_path / "both.jsonl.gz")] == SOME
    (tmp_path / "both.jsonl.gz").write_bytes(both[:-20])
    with pytest.raises(RecordError, match="is cut off"):
        read_records(tmp_path / "both.jsonl.gz")


def test_the_records_that_are_shipped_are_read_in_the_words_of_today() -> None:
    records = read_records(SHIPPED / "wise_ft.jsonl.gz")
    assert len(records) == 33
    for one in records:
        assert one.data["config"]["data"]["init_args"]["protocol"] == "base_to_novel"
        assert one.data["config"]["data"]["init_args"]["crop_scale"] == one.provenance["augmentation"]["crop_scale"]
        assert {"deliverable", "protocol"}.isdisjoint(one.data["config"])
        assert {"findings", "views"}.isdisjoint({*one.data, *one.provenance})


def test_records_are_chosen_by_their_cells(tmp_path: Path) -> None:
    write_packed(tmp_path / "a.jsonl.gz", SOME)
    records = read_records(tmp_path / "a.jsonl.gz")
    (one,) = choose(records, "a", {"dataset": ["dtd"], "seed": ["2"]})
    assert one.cell == cell(seed=2)
    assert len(choose(records, "a", {"dataset": [], "seed": []})) == 4
    with pytest.raises(UnknownName, match="did you mean 'eurosat'"):
        choose(records, "a", {"dataset": ["eurosta"]})
    with pytest.raises(RecordError, match="no record of dataset eurosat, seed 2"):
        choose(records[:3], "a", {"dataset": ["eurosat"], "seed": ["2"]})


WHOLE = gzip.compress((json.dumps(SOME[0]) + "\n").encode())
DAMAGED = {
    "empty": (b"", "is cut off"),
    "no gzip": (b"<html>", "no gzip file"),
    "cut off": (WHOLE[:-20], "is cut off"),
    "a changed byte": (WHOLE[:40] + b"\xff\xff" + WHOLE[42:], "is damaged or no gzip file"),
    "nothing in it": (gzip.compress(b"\n\n"), "holds no record"),
    "half a line": (gzip.compress(json.dumps(SOME[0]).encode()[:99]), "line 1 of 'a.jsonl.gz'"),
    "a wrong line": (gzip.compress(json.dumps(SOME[0]).encode() + b"\n{}\n"), "line 2 of 'a.jsonl.gz'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, case: str) -> None:
    content, said = DAMAGED[case]
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(RecordError, match=r"a\.jsonl\.gz") as caught:
        read_records(tmp_path / "a.jsonl.gz")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_unpacks_without_end_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl.gz"
    monkeypatch.setattr(packed, "LARGEST_FILE", 1_000_000)
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(RecordError, match="unpacks to more than 1 MB"):
        read_records(path)
    monkeypatch.setattr(packed, "LARGEST", 1000)
    path.write_bytes(gzip.compress(bytes(2000)))
    with pytest.raises(RecordError, match="has a line of"):
        read_records(path)
    with pytest.raises(RecordError, match="is not there"):
        read_records(tmp_path / "b.jsonl.gz")
