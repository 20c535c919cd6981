"""The cache of pictures: complete or absent, rendered once, never stale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipbench.errors import ConfigError, UnknownName
from clipbench.mini import images
from clipbench.mini.cards import read_card
from clipbench.mini.images import cache_file, fingerprint, load_images
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


def test_the_array_is_mapped_and_cannot_be_changed() -> None:
    pictures = load_images("eurosat", "val")
    assert isinstance(pictures, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pictures[0, 0, 0, 0] = 1


def test_a_second_call_does_not_render(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(load_images("eurosat", "val"))
    monkeypatch.setattr(images, "render_split", lambda *_: pytest.fail("rendered again"))
    assert np.array_equal(first, load_images("eurosat", "val"))
    assert [p.suffix for p in (empty / "mini").iterdir() if p.suffix != ".lock"] == [".npy"]


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_file_is_rendered_anew(empty: Path, damage: str) -> None:
    first = np.array(load_images("eurosat", "val"))
    path = cache_file(read_card("eurosat"), "val")
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "other": b"no array", "empty": b""}[damage])
    assert np.array_equal(first, load_images("eurosat", "val"))


def test_a_render_that_dies_leaves_nothing(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images.np, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        load_images("eurosat", "val")
    assert [p.name for p in (empty / "mini").iterdir() if not p.name.endswith(".lock")] == []


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
