"""Decoded images: few-shot images kept within a budget, all bad files named together."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipbench.data import images
from clipbench.data.decoding import DamagedImages, decode
from clipbench.data.images import ArrayImages, ImageStore, kept_images
from clipbench.errors import DataError
from tests.data.pictures import picture


def test_preload_names_every_bad_file_in_one_message(files: list[Path], truncated: Path) -> None:
    (truncated.parent / "empty.png").touch()
    store = ImageStore([files[0], truncated, files[1], truncated.parent / "empty.png"])
    with pytest.raises(DataError, match="2 of 4 images cannot be used") as caught:
        store.preload()
    assert "cut.jpg" in str(caught.value)
    assert "empty.png" in str(caught.value)


def test_a_kept_image_is_decoded_once_and_a_streamed_one_each_time(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(images, "decode", lambda path: opened.append(Path(path).name) or decode(path))
    kept, streamed = ImageStore(files), ImageStore(files, keep=False)
    assert opened == []
    for store in (kept, streamed):
        for _ in range(2):
            np.testing.assert_array_equal(store[3], np.asarray(Image.open(files[3])))
    assert opened == ["3.png"] * 3


def test_beyond_the_budget_images_lie_in_a_memory_map_and_are_equal(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "CHUNK", 5000)  # the images have 1800 to 2160 bytes: two in one scratch file
    store = ImageStore(files, budget=2000)
    store.preload()
    assert store._in_memory <= 2000
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("decoded again"))
    for position, path in enumerate(files):
        np.testing.assert_array_equal(store[position], np.asarray(Image.open(path)))
        assert not store[position].flags.writeable
    in_memory = [position for position in range(5) if store[position].base is None or store[position].flags.owndata]
    assert len(in_memory) <= 1
    assert list((tmp_path / "cache").iterdir()) == [], "scratch files have no name, so nothing is left after a kill"


def test_no_room_for_the_memory_map_is_a_sentence(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cannot take the decoded images .*: a file stands where .* CLIPBENCH_CACHE"):
        ImageStore(files, budget=0).preload()


def test_a_cache_folder_that_vanishes_is_made_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "CHUNK", 5000)
    store = ImageStore(files, budget=0)
    for position, path in enumerate(files):
        np.testing.assert_array_equal(store[position], np.asarray(Image.open(path)))
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    for position, path in enumerate(files):
        np.testing.assert_array_equal(store[position], np.asarray(Image.open(path)))


def test_a_disk_that_takes_a_part_at_a_time_gets_all_of_it(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path))
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: whole(file, bytes(data)[:700], place))
    store = ImageStore(files, budget=0)
    store.preload()
    monkeypatch.undo()
    for position, path in enumerate(files):
        np.testing.assert_array_equal(store[position], np.asarray(Image.open(path)))


@pytest.mark.parametrize("error", [None, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_images_that_are_not_written_whole_are_refused(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    """A full disk after the first part of an image: an error of the system, or nothing more taken."""
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path))
    whole, room = os.pwrite, [700]

    def full(file: int, data: memoryview, place: int) -> int:
        taken = whole(file, bytes(data)[: room[0]], place) if room[0] else 0
        if not taken and error is not None:
            raise OSError(error, os.strerror(error))
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "pwrite", full)
    reason = "the disk quota is used up" if error == errno.EDQUOT else "error" if error == errno.EIO else "is full"
    with pytest.raises(DataError, match=f"{tmp_path} cannot take the decoded images .*{reason}; .*CLIPBENCH_CACHE"):
        ImageStore(files, budget=0).preload()


def test_a_forked_child_does_not_write_into_the_parents_scratch(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(files, budget=0)
    store._owner = -1  # as a child sees it
    monkeypatch.setattr(images, "_Scratch", lambda: pytest.fail("written by a child"))
    np.testing.assert_array_equal(store[0], np.asarray(Image.open(files[0])))


def test_a_store_travels_without_its_pixels(files: list[Path]) -> None:
    store = ImageStore(files)
    store.preload()
    sent = pickle.dumps(store)
    assert len(sent) < 1500
    np.testing.assert_array_equal(pickle.loads(sent)[1], store[1])


def test_the_next_cell_finds_unchanged_files_decoded_and_changed_ones_not(files: list[Path]) -> None:
    first = kept_images(files)
    assert kept_images(list(files)) is first
    picture(77, 40, 40).save(files[0])
    assert kept_images(files) is not first
    assert kept_images(files)[0].shape == (40, 40, 3)


def test_array_images_are_rows_of_the_array() -> None:
    array = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    store = ArrayImages(array, [3, 1])
    assert len(store) == 2
    np.testing.assert_array_equal(store[0], array[3])
    with pytest.raises(DataError, match="has 4 images, but image 4 is asked for"):
        ArrayImages(array, [4])
    with pytest.raises(DataError, match="uint8"):
        ArrayImages(array.astype(np.float32), [0])


def test_a_workers_traceback_is_cut_to_the_sentence() -> None:
    traceback = "Caught DamagedImages in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    error = DamagedImages(traceback + "clipbench.data.decoding.DamagedImages: a.jpg: cannot be decoded (truncated)\n")
    assert str(error) == "a.jpg: cannot be decoded (truncated)"
