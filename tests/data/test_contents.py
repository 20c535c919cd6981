"""Content decides: other content is another digest whatever size and time say; a file is read again if it changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipbench.data import contents
from clipbench.data.cards import load_card
from clipbench.data.contents import look_at
from clipbench.data.sources import ImageSource, folder_source
from clipbench.errors import DataError
from clipbench.testing.cards import fake_tree

PATHS = [f"{part}/{name}/{number}.bmp" for part in ("train", "test") for name in ("cat", "dog") for number in range(2)]


def bitmap(path: Path, value: int) -> None:
    """Uncompressed: all of one shape have one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 9, 3), value, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of eight images that all have one size, and a cache that takes them for settled."""
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED", 0)
    for number, path in enumerate(PATHS):
        bitmap(tmp_path / "photos" / path, number)
    afresh()
    return tmp_path / "photos"


def afresh() -> None:
    """As another process would begin."""
    contents._in_memory.clear()


def digest(root: Path) -> str:
    afresh()
    return folder_source(str(root)).files_digest


def read_again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from now on."""
    seen: list[str] = []
    plain = contents._read
    monkeypatch.setattr(contents, "_read", lambda file: seen.append(file.name) or plain(file))
    return seen


def exchange(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def test_exchanged_class_folders_are_other_data_and_back_again_the_same(root: Path) -> None:
    first = digest(root)
    exchange(root / "test" / "cat", root / "test" / "dog")
    assert digest(root) != first
    exchange(root / "test" / "cat", root / "test" / "dog")
    assert digest(root) == first
    shutil.copytree(root, root.with_name("copy"))
    assert digest(root.with_name("copy")) == first, "of the same content elsewhere"


def test_every_file_is_read_once_and_again_only_when_it_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, seen = digest(root), read_again(monkeypatch)
    assert digest(root) == first
    assert seen == []
    (root / "train" / "cat" / "0.bmp").touch()
    assert digest(root) == first
    assert seen == ["0.bmp"]


@pytest.mark.parametrize("how", ["in place", "replaced", "by a link"])
def test_a_restored_time_of_modification_fools_nobody(how: str, root: Path) -> None:
    first, file = digest(root), root / "test" / "dog" / "1.bmp"
    before = file.stat()
    if how == "in place":
        with file.open("r+b") as opened:
            opened.seek(60)
            opened.write(b"\x77")
    else:
        other = root.parent / "other.bmp"
        bitmap(other, 99)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        file.unlink()
        if how == "replaced":
            other.rename(file)
        else:
            file.symlink_to(other)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert digest(root) != first


def test_what_was_changed_a_moment_ago_is_not_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED", 60 * 10**9)
    first, seen = digest(root), read_again(monkeypatch)
    assert digest(root) == first
    assert len(seen) == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text(file.read_text().replace('"digest": "', '"digest": "0')),
        lambda file: file.write_text(json.dumps(swapped(json.loads(file.read_text())))),
        lambda file: file.write_bytes(file.read_bytes()[:100]),
        lambda file: file.write_text("[" * 5000),
        lambda file: file.write_text('{"digest": 1, "entries": [1]}'),
        lambda file: (file.unlink(), os.mkfifo(file)),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_a_damaged_memory_is_no_memory(damage: Callable, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(root)
    (file,) = (root.parent / "cache" / "contents").iterdir()
    damage(file)
    seen = read_again(monkeypatch)
    assert digest(root) == first
    assert len(seen) == 8


def swapped(stored: dict) -> dict:
    """The same file with the digests of two images exchanged."""
    one, other = (stored["entries"][path] for path in PATHS[:2])
    one[-1], other[-1] = other[-1], one[-1]
    return stored


def test_the_memory_of_another_folder_is_not_believed(root: Path) -> None:
    first = digest(root)
    exchange(root / "test" / "cat", root / "test" / "dog")
    second = digest(root)
    (file,) = (root.parent / "cache" / "contents").iterdir()
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    shutil.copy(file, contents._file(copy.resolve()))
    assert digest(copy) == second != first


def test_no_memory_is_needed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "file"))
    assert digest(root) == first


# Damage is found where the content is read


def test_all_that_is_damaged_stands_in_one_message(root: Path) -> None:
    (root / "train/cat/0.bmp").write_bytes(b"")
    (root / "train/dog/1.bmp").write_bytes((root / "train/dog/1.bmp").read_bytes()[:100])
    (root / "test/cat/1.bmp").write_text("<html>")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint16)).save(root / "test/dog/0.bmp", "PNG")
    with pytest.raises(DataError) as caught:
        folder_source(str(root)).fingerprint()
    said = str(caught.value).splitlines()
    assert said[0] == "4 images of 'own/photos' cannot be used:"
    assert [line.split(": ")[1].split(" (")[0] for line in said[1:]] == [
        "the file is empty",
        "cannot be decoded",
        "not an image that can be read",
        "it has more than 8 bits a pixel",
    ]
    afresh()
    with pytest.raises(DataError, match="4 images"):  # damage is not remembered as sound
        folder_source(str(root)).fingerprint()


def test_a_file_of_gigabytes_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "LARGEST_IMAGE", 100)
    with pytest.raises(DataError, match=r"(?s)8 images .*0\.bmp: 0 MB; at most 0 MB are read"):
        folder_source(str(root)).fingerprint()


def test_equal_content_in_train_and_test_is_said(root: Path) -> None:
    assert len(folder_source(str(root)).about()) == 1
    shutil.copy(root / "train/cat/0.bmp", root / "test/cat/1.bmp")
    shutil.copy(root / "train/dog/0.bmp", root / "train/dog/1.bmp")  # an image more of one class is no harm
    line = folder_source(str(root)).about()[-1]
    assert line == ("photos: 1 images have the same content in two parts or classes: train/cat/0.bmp is test/cat/1.bmp")


# Published datasets: by path and size, as before; their images have to open


def test_images_of_a_published_dataset_have_to_open_and_are_opened_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = fake_tree(load_card("eurosat"), tmp_path, (2, 1, 1))
    seen: list[str] = []
    plain = contents.check_header
    monkeypatch.setattr(contents, "check_header", lambda file: seen.append(file.name) or plain(file))
    source = ImageSource(card, tmp_path, shots=1)
    first, folder = source.files_digest, card.image_dir(tmp_path)
    measured = (*source.draw.train, *source.draw.val, *source.split.test)
    lines = "".join(f"{item.path}\t{(folder / item.path).stat().st_size}\n" for item in measured)
    assert first == hashlib.sha256(lines.encode()).hexdigest(), "what stands in the records there are"
    assert len(seen) == 30
    afresh()
    assert ImageSource(card, tmp_path, shots=1).files_digest == first
    assert len(seen) == 30
    file = card.image_dir(tmp_path) / ImageSource(card, tmp_path).split.test[3].path
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match=rf"1 images of 'eurosat' cannot be used:\n  .*{file.name}: not an image"):
        _ = ImageSource(card, tmp_path, shots=1).files_digest


def test_a_header_that_was_read_is_no_digest(root: Path) -> None:
    paths = ["train/cat/0.bmp"]
    assert look_at(root, paths, "photos", whole=False) == ({}, [])
    digests, faults = look_at(root, paths, "photos", whole=True)
    assert (len(digests["train/cat/0.bmp"]), faults) == (64, [])
    assert look_at(root, ["gone.bmp"], "photos", whole=True) == ({}, [f"{root / 'gone.bmp'}: the file does not exist"])


def test_what_may_be_drawn_counts_by_its_content_for_every_seed(root: Path) -> None:
    def pool(seed: int) -> str | None:
        afresh()
        return folder_source(str(root), shots=1, split_seed=seed).train_digest

    before = pool(1)
    assert before == pool(2)
    bitmap(root / "train/cat/1.bmp", 77)
    assert pool(1) != before
    (root / "train/cat/1.bmp").write_bytes(b"no image")  # nobody has drawn it
    assert pool(1) not in (None, before)


def test_published_images_are_only_looked_for_where_nothing_may_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    card = fake_tree(load_card("eurosat"), tmp_path, (2, 1, 1))
    monkeypatch.setattr(contents, "check_header", lambda file: pytest.fail(f"{file} is opened"))
    afresh()
    source = ImageSource(card, tmp_path, opens=False)
    assert source.files_digest
    gone = card.image_dir(tmp_path) / source.split.test[0].path
    gone.unlink()
    afresh()
    with pytest.raises(DataError, match=gone.name):
        ImageSource(card, tmp_path, opens=False).fingerprint()


def test_an_image_that_goes_away_meanwhile_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(file: Path) -> None:
        file.unlink()

    monkeypatch.setattr(contents, "check_header", vanish)
    _, faults = look_at(root, PATHS[:1], "photos", whole=False)
    assert faults == [f"{root / PATHS[0]}: the file does not exist"]
