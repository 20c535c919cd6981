"""The cache of pictures: complete or absent, rendered once, never stale."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipbench.errors import ClipbenchWarning, ConfigError, UnknownName
from clipbench.mini import images
from clipbench.mini.cards import read_card
from clipbench.mini.images import cache_file, fingerprint, load_images, render_split
from clipbench.mini.render import key, render


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path))
    return tmp_path


def test_shape_order_and_contents() -> None:
    card = read_card("eurosat")
    pictures = load_images("mini/eurosat", "val")
    assert pictures.shape == (80, 48, 48, 3)
    assert pictures.dtype == np.uint8
    for label, image in ((0, 0), (3, 5), (9, 7)):
        drawn = render("satellite", card.classes[label], card.style, key(card.seed, "satellite", "val", label, image))
        assert np.array_equal(pictures[label * 8 + image], drawn)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("state", ["rendered", "remembered"])
def test_the_array_cannot_be_changed(state: str) -> None:
    pictures = load_images("eurosat", "val")
    if state == "remembered":
        pictures = load_images("eurosat", "val")
    with pytest.raises(ValueError, match="read-only"):
        pictures[0, 0, 0, 0] = 1


def test_a_second_call_does_not_render(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(load_images("eurosat", "val"))
    monkeypatch.setattr(images, "render_split", lambda *_: pytest.fail("rendered again"))
    assert np.array_equal(first, load_images("eurosat", "val"))
    assert [p.suffix for p in (empty / "mini").iterdir() if p.suffix != ".lock"] == [".npy"]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "digest cut": lambda data: data[:-1],
    "other": lambda _: b"no array",
    "a bit": flipped,
    "of right size": lambda data: data[:128] + bytes(len(data) - 160) + data[-32:],
    "digest": lambda data: data[:-32] + bytes(32),
    "longer": lambda data: data + b"x",
    "pickle": lambda _: pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_rendered_anew_and_said(empty: Path, damage: str) -> None:
    first = np.array(load_images("eurosat", "val"))
    path = cache_file(read_card("eurosat"), "val")
    good = path.read_bytes()
    path.write_bytes(DAMAGE[damage](good))
    with pytest.warns(ClipbenchWarning, match=f"{path.name} is damaged: its pictures are rendered again") as said:
        assert np.array_equal(first, load_images("eurosat", "val"))
    assert len(said) == 1
    assert path.read_bytes() == good
    assert np.array_equal(first, load_images("eurosat", "val"))


@pytest.mark.usefixtures("empty")
def test_pictures_under_another_name_are_not_taken() -> None:
    right = np.array(load_images("food101", "val"))
    load_images("dtd", "val")
    cache_file(read_card("food101"), "val").write_bytes(cache_file(read_card("dtd"), "val").read_bytes())
    with pytest.warns(ClipbenchWarning, match="food101"):
        assert np.array_equal(right, load_images("food101", "val"))


@pytest.mark.usefixtures("empty")
def test_a_file_of_an_earlier_version_is_replaced_without_a_word() -> None:
    first = np.array(load_images("eurosat", "val"))
    path = cache_file(read_card("eurosat"), "val")
    good = path.read_bytes()
    np.save(path, first[::-1])  # without a digest nobody knows what it holds
    assert np.array_equal(first, load_images("eurosat", "val"))
    assert path.read_bytes() == good


def blocked(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that takes no file, in one of the ways in which that happens."""

    def refuse(code: int) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        return fail

    if how == "full disk":
        monkeypatch.setattr(images.os, "fsync", refuse(errno.ENOSPC))
    elif how == "read-only":
        monkeypatch.setattr(images.Path, "mkdir", refuse(errno.EROFS))
    elif how == "no locks":
        monkeypatch.setattr(images, "FileLock", refuse(errno.ENOLCK))
    elif how == "a file for the folder":
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
        (path / "x").touch()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("full disk", "the disk is full"),
        ("read-only", "the file system is read-only"),
        ("no locks", "No locks available"),
        ("a file for the folder", "a file stands where a folder is needed"),
        ("a folder for the file", "Is a directory"),
    ],
)
def test_where_nothing_can_be_kept_the_pictures_are_rendered_once(
    empty: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    right = render_split(read_card("eurosat"), "val")
    images._rendered.cache_clear()
    images._say_once.cache_clear()
    blocked(cache_file(read_card("eurosat"), "val"), how, monkeypatch)
    with pytest.warns(ClipbenchWarning, match="are rendered for this process alone") as said:
        assert np.array_equal(right, load_images("eurosat", "val"))
    assert f"cannot be kept in {empty / 'mini'} ({reason}); CLIPBENCH_CACHE names" in str(said[0].message)
    monkeypatch.setattr(images, "render_split", lambda *_: pytest.fail("rendered again"))
    assert np.array_equal(right, load_images("eurosat", "val")), "and said once: another warning would be an error here"
    assert not list(empty.rglob("*.part"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_in_place_of_a_file_is_replaced_not_waited_for(empty: Path) -> None:
    path = cache_file(read_card("eurosat"), "val")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert load_images("eurosat", "val").shape == (80, 48, 48, 3)
    assert path.is_file()


def test_a_cache_that_vanishes_leaves_the_pictures_in_use(empty: Path) -> None:
    pictures = load_images("eurosat", "val")
    shutil.rmtree(empty / "mini")
    assert np.array_equal(pictures, load_images("eurosat", "val"))


def test_a_render_that_dies_leaves_nothing(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images.np, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        load_images("eurosat", "val")
    assert [p.name for p in (empty / "mini").iterdir() if not p.name.endswith(".lock")] == []


def test_what_a_killed_process_left_is_removed(empty: Path) -> None:
    path = cache_file(read_card("eurosat"), "val")
    path.parent.mkdir(parents=True)
    path.with_suffix(".99999.part").write_bytes(b"half")
    load_images("eurosat", "val")
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, path.name + ".lock"]


def test_two_processes_get_the_same_and_render_once(empty: Path) -> None:
    code = (
        "import sys, hashlib\n"
        "from clipbench.mini import images\n"
        "inner = images.render_split\n"
        "def told(*a):\n    print('rendered'); return inner(*a)\n"
        "images.render_split = told\n"
        "print(hashlib.sha256(images.load_images('eurosat', 'val').tobytes()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "CLIPBENCH_CACHE": str(empty)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [one.communicate(timeout=60)[0].split() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sum(words.count("rendered") for words in said) == 1
    assert said[0][-1] == said[1][-1]


def test_the_name_of_the_file_follows_card_and_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    card = read_card("eurosat")
    before = fingerprint(card)
    assert fingerprint(read_card("dtd")) != before
    monkeypatch.setattr(images, "RENDERER_VERSION", -1)
    assert fingerprint(card) != before


def test_wrong_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="split 'valid' of eurosat: there are train, val, test"):
        load_images("eurosat", "valid")
    with pytest.raises(UnknownName, match="unknown mini dataset 'cifar'"):
        load_images("cifar", "val")
