"""Records: written whole or not at all, found only when done, claimed by one bench at a time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench import atomic
from clipbench.errors import ConfigError, RecordError
from clipbench.records.store import (
    SCHEMA,
    Cell,
    NewerRecord,
    RecordStore,
    comparable,
    content_key,
    pack_bits,
    read_record,
    unpack_bits,
    write_record,
)
from tests.records.records import CELL, cell, failed, record

ROOT = Path(__file__).resolve().parents[2]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def put(folder: Path, **changes: Any) -> tuple[Cell, str, Path]:
    data = record(**changes)
    path = write_record(folder, data)
    return Cell.from_dict(data["cell"]), data["key"], path


def test_a_written_record_is_found_and_reads_back_equal(tmp_path: Path) -> None:
    data = record()
    path = write_record(tmp_path, data)
    found = RecordStore(tmp_path).find(CELL, data["key"])
    assert found is not None
    assert found.data == data
    assert path == tmp_path / "records" / f"clipfit-dtd-s16-seed1-{data['key'][:12]}.json"
    assert found.accuracy("base") == 75.0
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no temporary file may stay behind"


def test_names_of_cells_are_safe_in_paths_and_do_not_clash() -> None:
    name = cell(dataset="../my folder/x", recipe="a/b").name
    assert "/" not in name
    assert not name.startswith(".")
    assert cell(seed=1).name != cell(seed=11).name


@pytest.mark.parametrize("field", ["suite", "dataset", "recipe", "backbone", "protocol", "setting"])
@pytest.mark.parametrize("name", ["", "a\udcff", "\ud800"])
def test_a_name_that_no_record_could_keep_is_refused_before_the_work(tmp_path: Path, field: str, name: str) -> None:
    with pytest.raises(RecordError):
        write_record(tmp_path, record(cell(**{field: name})))
    with pytest.raises(ConfigError, match=field):
        cell(**{field: name}).check_names()
    cell(**{field: "é日 x\n"}).check_names()


@pytest.mark.parametrize("other", [{"seed": 2}, {"dataset": "eurosat"}, {"shots": 4}, {"recipe": "coop"}])
def test_another_cell_is_not_done(tmp_path: Path, other: dict[str, Any]) -> None:
    _, key, _ = put(tmp_path)
    assert RecordStore(tmp_path).find(cell(**other), key) is None


def test_same_cell_with_another_key_is_not_done_even_when_the_names_agree(tmp_path: Path) -> None:
    of, key, _ = put(tmp_path)
    near = key[:12] + ("0" * 52 if key[12:] != "0" * 52 else "1" * 52)
    store = RecordStore(tmp_path)
    assert store.path_for(of, near) == store.path_for(of, key)
    assert store.find(of, near) is None
    assert "another cell or key" in str(store.why_undone(of, near))


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
def test_a_half_written_record_is_never_done_is_named_and_is_replaced(tmp_path: Path, keep: int) -> None:
    of, key, path = put(tmp_path)
    text = path.read_bytes()
    path.write_bytes(text[:keep])
    store = RecordStore(tmp_path)
    assert store.find(of, key) is None
    scan = store.scan()
    assert scan.records == []
    assert len(scan.problems) == 1
    assert path.name in scan.problems[0]
    assert path.name in str(store.why_undone(of, key))
    write_record(tmp_path, record())
    assert path.read_bytes() == text
    assert store.find(of, key) is not None


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("cell", "shots"), "16", "cell.shots"),
        (("cell", "extra"), 1, "cell"),
        (("splits", "base", "correct"), 31, "contradicts itself"),
        (("splits", "base", "total"), 49, "bitmap"),
        (("splits", "base", "bitmap"), "%%%", "base64"),
        (("splits",), {}, "splits"),
        (("status",), "done", "status"),
        (("key",), "abc", "key"),
        (("error",), {"type": "X", "message": "y"}, "error"),
    ],
)
def test_a_record_that_is_not_by_the_schema_or_contradicts_itself_is_refused(
    tmp_path: Path, place: tuple[str, ...], value: Any, word: str
) -> None:
    data = record()
    inner = data
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(RecordError, match=word):
        write_record(tmp_path, data)
    path = tmp_path / "records" / "hand-made.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=r"hand-made\.json"):
        read_record(path)


def test_numbers_that_are_not_finite_are_refused_in_both_directions(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="finite"):
        write_record(tmp_path, record(losses={"total": float("nan")}))
    _, _, path = put(tmp_path)
    path.write_text(path.read_text().replace('"total": 0.5', '"total": NaN'))
    with pytest.raises(RecordError, match="NaN is not finite"):
        read_record(path)


def test_a_failed_cell_is_a_record_but_not_done(tmp_path: Path) -> None:
    data = failed()
    write_record(tmp_path, data)
    store = RecordStore(tmp_path)
    assert store.find(CELL, data["key"]) is None
    assert "the loss is not finite at step 3" in str(store.why_undone(CELL, data["key"]))
    assert [found.ok for found in store.all()] == [False]


def test_a_record_of_schema_1_is_read_with_its_findings_as_diagnostics(tmp_path: Path) -> None:
    of, key, path = put(tmp_path, diagnostics={"lr": 2.0})
    former = json.loads(path.read_text())
    former |= {"schema": 1, "findings": former.pop("diagnostics")}
    path.write_text(json.dumps(former))
    found = RecordStore(tmp_path).find(of, key)
    assert found is not None
    assert found.data == record(diagnostics={"lr": 2.0})


def test_a_record_of_a_newer_schema_is_named_and_left_alone(tmp_path: Path) -> None:
    of, key, path = put(tmp_path)
    newer = json.dumps({**record(), "schema": SCHEMA + 1, "splits": "another form"})
    path.write_text(newer)
    store = RecordStore(tmp_path)
    with pytest.raises(NewerRecord, match=rf"written by a newer clipbench \(schema {SCHEMA + 1} > {SCHEMA}\)"):
        store.find(of, key)
    with pytest.raises(NewerRecord):
        write_record(tmp_path, record())
    assert path.read_text() == newer
    assert path.name in store.scan().problems[0]
    assert f"schema {SCHEMA + 1} > {SCHEMA}" in store.scan().problems[0]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
        (errno.EIO, "Input/output"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_or_read_only_folder_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, word: str, call: str
) -> None:
    of, key, path = put(tmp_path)
    before = path.read_bytes()

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, call, refuse)
        with pytest.raises(RecordError, match=word) as caught:
            write_record(tmp_path, record(cost={"train_seconds": 9.0}))
        with pytest.raises(RecordError, match=word):
            RecordStore(tmp_path).check_writable()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert RecordStore(tmp_path).find(of, key) is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder; the simulated case stands above")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RecordError, match="read-only"):
        RecordStore(tmp_path).check_writable()
    tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RecordError, match="a file stands where a folder is needed"):
        write_record(tmp_path / "runs", record())
    with (
        pytest.raises(RecordError, match="a file stands where a folder is needed"),
        RecordStore(tmp_path / "runs").claim(CELL, "0" * 64),
    ):
        pass  # pragma: no cover


def test_a_kill_while_writing_leaves_the_former_record_and_no_done_cell(tmp_path: Path) -> None:
    """The process dies between writing and moving: what a reader finds is what was there before."""
    program = (
        "import os, sys; from pathlib import Path; from clipbench import atomic\n"
        "atomic.os.replace = lambda *a: os._exit(9)\n"
        "atomic.write_text(Path(sys.argv[1]), 'half')"
    )
    of, key, path = put(tmp_path)
    before = path.read_bytes()
    assert subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False).returncode == 9
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2, "the kill leaves its temporary file"
    store = RecordStore(tmp_path)
    assert store.find(of, key) is not None
    assert len(store.all()) == 1
    assert store.scan().problems == []


def killed_while_writing(path: Path) -> Path:
    """What a process left that was killed while it wrote this file."""
    program = (
        "import os, sys; from pathlib import Path; from clipbench import atomic\n"
        "atomic.os.replace = lambda *a: os._exit(9)\n"
        "atomic.write_text(Path(sys.argv[1]), 'half')"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False).returncode == 9
    (left,) = path.parent.glob(f".{path.name}.*.tmp")
    return left


def test_what_a_killed_run_was_writing_goes_with_the_next(tmp_path: Path) -> None:
    left = [
        killed_while_writing(tmp_path / folder / name) for folder in ("records", "weights") for name in ("a", "b c")
    ]
    assert all(path.exists() for path in left)
    with atomic.replacing(tmp_path / "records" / "mine.json") as mine:
        mine.write_text("still being written")
        RecordStore(tmp_path).check_writable()
        assert mine.exists()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.json"]


def test_a_file_of_another_machine_goes_when_it_is_a_day_old(tmp_path: Path) -> None:
    names = [".a.json.{}-1-abcdef.tmp", ".a.json.{}-99999999999-abcdef.tmp"]
    elsewhere = [tmp_path / name.format("ffffff") for name in names]
    others = [tmp_path / name for name in (".notes.tmp", "a.tmp", ".a.json.tmp", ".a.ffffff-x-abcdef.tmp")]
    for path in (*elsewhere, *others):
        path.write_text("half")
        os.utime(path, (0, 0) if path in others else None)
    atomic.remove_left_over(tmp_path)
    assert all(path.exists() for path in (*elsewhere, *others))
    os.utime(elsewhere[0], (0, 0))
    atomic.remove_left_over(tmp_path)
    assert [path.exists() for path in elsewhere] == [False, True]
    assert all(path.exists() for path in others)
    atomic.remove_left_over(tmp_path / "absent")


def test_what_cannot_be_written_names_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    def said() -> str:
        with pytest.raises(RecordError) as caught:
            atomic.write_text(tmp_path / "file" / "a.json", "{}")
        return str(caught.value).partition("; ")[2]

    assert said() == "mend that or name another place"
    with atomic.named_by("--results"):
        assert said() == "mend that or name another place with --results"
        with atomic.named_by("--out"):
            assert said() == "mend that or name another place with --out"
        assert said() == "mend that or name another place with --results"


HOLD = """
import sys
from clipbench.records.store import Cell, RecordStore
cell = Cell("mini", "dtd", "clipfit", "mini", "base_to_novel", "paper", 16, 1)
with RecordStore(sys.argv[1]).claim(cell, "0" * 64) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""


def test_two_benches_on_one_folder_do_not_run_a_cell_twice_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    store, key = RecordStore(tmp_path), "0" * 64
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        with store.claim(CELL, key) as mine:
            assert mine is False
        with store.claim(cell(seed=2), key) as mine:
            assert mine is True, "other cells stay free"
    finally:
        other.kill()
        other.wait()
    with store.claim(CELL, key, timeout=5) as mine:
        assert mine is True
        with RecordStore(tmp_path).claim(CELL, key) as again:
            assert again is False, "one bench does not claim a cell twice either"
    with store.claim(CELL, key) as mine:
        assert mine is True
    assert store.scan() == ([], []), "locks are no records"


def test_a_claim_is_freed_when_the_cell_fails(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    with pytest.raises(ZeroDivisionError), store.claim(CELL, "0" * 64):
        raise ZeroDivisionError
    with store.claim(CELL, "0" * 64) as mine:
        assert mine


def test_comparable_ignores_times_and_environment_and_nothing_else(tmp_path: Path) -> None:
    one = record()
    later = record(
        cost={"train_seconds": 99.0, "total_seconds": 99.0, "seconds_per_step": 1.0, "peak_bytes": 5},
        environment={"finished": "2030-01-01T00:00:00+00:00", "threads": 8},
    )
    assert comparable(one) == comparable(later)
    assert comparable(one) == comparable(read_record(write_record(tmp_path, later)))
    for other in (record(base=31), record(cost={"trained_parameters": 1}), record(losses={}), record(lr=2)):
        assert comparable(one) != comparable(other)


@given(data=st.dictionaries(st.text(max_size=5), plain, max_size=5))
def test_a_content_key_does_not_depend_on_order_and_survives_json(data: dict[str, Any]) -> None:
    key = content_key(data)
    assert content_key(dict(reversed(data.items()))) == key
    assert content_key(json.loads(json.dumps(data))) == key
    assert content_key({**data, "one more": 1}) != key


def test_a_content_key_is_fixed_for_good_and_refuses_what_is_not_plain() -> None:
    data = {"lr": 0.1 + 0.2, "b": [1, True, None, "ü"], "a": {"z": 1e-30, "y": -0.0}}
    assert content_key(data) == "8a1282a0cce9400ab6b691d19ca067b34a66ccaabf3fa6d6bc812cf81470c835"
    assert content_key({"lr": 0.1}) != content_key({"lr": 0.1 + 1e-17 + 1e-16})
    for bad in ({"x": float("nan")}, {"x": Path("y")}, {"x": {1, 2}}):
        with pytest.raises(RecordError, match="finite plain data"):
            content_key(bad)


@given(bits=st.lists(st.booleans(), max_size=70))
def test_bitmaps_round_trip(bits: list[bool]) -> None:
    text = pack_bits(bits)
    assert unpack_bits(text, len(bits)).tolist() == bits
    assert pack_bits(np.array(bits, dtype=bool)) == text
    with pytest.raises(RecordError, match="bitmap"):
        unpack_bits(text, len(bits) + 8)


def test_a_bitmap_has_the_first_image_in_the_highest_bit_and_nothing_beyond_the_last() -> None:
    assert pack_bits([True] + [False] * 8 + [True]) == "gEA="
    with pytest.raises(RecordError, match="beyond the last of 7"):
        unpack_bits("/w==", 7)
    with pytest.raises(ValueError, match="booleans"):
        pack_bits([0, 2])


def test_importing_records_imports_nothing_heavy() -> None:
    program = "import sys, clipbench.records.store; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "numpy", "pandas", "lightning", "jsonschema", "filelock"]
    out = subprocess.run([sys.executable, "-c", program, *heavy], cwd=ROOT, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
