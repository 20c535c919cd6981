"""The text files of a dataset: what is no such file is named, with what to do; nothing is waited for or without end."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from clipbench.data import files
from clipbench.data.cards import load_card
from clipbench.data.files import content, find
from clipbench.data.status import problems
from clipbench.errors import DataError
from clipbench.testing.cards import fake_tree

PAGE = b"<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1234\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PAGE, "is a web page, not the file: the link gave a page .* save the file"),
        (b"\xef\xbb\xbf  \n<html lang='en'>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (POINTER, "is a pointer of Git LFS, not the file: `git lfs pull`"),
        (b"PK\x03\x04....", "is an archive, not the file: unpack it"),
    ],
)
@pytest.mark.parametrize("name", ["split.json", "split.json.gz"])
def test_what_a_download_gives_instead_of_the_file_is_named(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"split\.json(\.gz)? {words}"):
        content(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{}", "it is not compressed by gzip, whatever its name says"),
        (b"", "it is not compressed by gzip"),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], "cannot be read: Compressed file ended"),
        (gzip.compress(b"x" * 100, mtime=0)[:-1] + b"?", "cannot be read: Incorrect length"),
        (gzip.compress(b"x" * 100, mtime=0) + b"more", "cannot be read: Not a gzipped file"),
        (b"\x1f\x8b broken", "cannot be read"),
    ],
)
def test_a_damaged_gzip_file_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "split.json.gz").write_bytes(data)
    with pytest.raises(DataError, match=words):
        content(tmp_path / "split.json.gz")


def test_a_compressed_file_under_a_plain_name(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"is compressed: call it split\.json\.gz"):
        content(tmp_path / "split.json")


def test_files_without_end_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST", 3_000_000)
    bomb = tmp_path / "split.json.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(5):
            file.write(bytes(4_000_000))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(DataError, match="unpacks to more than 3 MB"):
        content(bomb)
    sparse = tmp_path / "split.json"
    with sparse.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(DataError, match="has 1,000,000 MB; at most 3 MB are read"):
        content(sparse)


def test_two_members_of_a_gzip_file_are_one_content(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    assert content(tmp_path / "a.gz") == b"one two"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("folder", "is a folder, not a file"),
        ("pipe", "is a pipe, not a file"),
        ("device", "is a device, not a file"),
        ("link to nowhere", "is a link that leads nowhere"),
        ("link to itself", "cannot be read: .*symbolic links"),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(kind: str, words: str, tmp_path: Path) -> None:
    card = fake_tree(load_card("dtd"), tmp_path)
    path = tmp_path / "dtd" / str(card.split_file)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(path.name if kind == "link to itself" else "gone.json")
    with pytest.raises(DataError, match=words):
        content(path)
    (found,) = problems(card, tmp_path)
    assert str(path) in found


def test_a_file_comes_before_what_is_none(tmp_path: Path) -> None:
    card = fake_tree(load_card("dtd"), tmp_path)
    path = tmp_path / "dtd" / str(card.split_file)
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    path.mkdir()
    assert find(card, card.files[0], tmp_path) == Path(f"{path}.gz")
    assert problems(card, tmp_path) == []


def test_a_web_page_in_place_of_the_split_file_is_a_problem_with_what_to_get(tmp_path: Path) -> None:
    card = fake_tree(load_card("dtd"), tmp_path)
    (tmp_path / "dtd" / str(card.split_file)).write_bytes(PAGE)
    (found,) = problems(card, tmp_path)
    assert "is a web page, not the file" in found


def test_the_limit_is_above_every_published_file(shared: Path) -> None:
    for path in (shared / "splits").glob("*.gz"):
        assert len(content(path)) * 10 < files.LARGEST
