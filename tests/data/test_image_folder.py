"""Folders of one's own: every image is counted once, in one class and one part, or what happens to it is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clipbench.commands.predict import find_images
from clipbench.data.own import folder_dataset
from clipbench.data.readers.divide import parse_shares
from clipbench.data.splits import PARTS
from clipbench.errors import ConfigError, DataError
from clipbench.testing.cards import fake_image

CAFE, CAFE_OF_A_MAC = "caf\u00e9", "cafe\u0301"


def put(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fake_image(number, number, path.suffix))
    return path


def photos(root: Path, classes: tuple[str, ...] = ("cat", "dog"), parts: tuple[str, ...] = ("train", "test")) -> Path:
    for p, part in enumerate(parts):
        for c, name in enumerate(classes):
            for number in range(3):
                put(root / part / name / f"{number}.png", 8 * c + 3 * p + number)
    return root


def link(path: Path, to: Path) -> None:
    path.symlink_to(os.path.relpath(to, path.parent))


def counts(root: Path) -> dict[str, int]:
    return {part: len(folder_dataset(root)[1].part(part)) for part in PARTS}


# What is passed over, and what is said about it


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda r: [put(r / f"train/cat/p{i}.heic") for i in range(4)],
         "4 files are not read (4 .heic): train/cat/p0.heic, train/cat/p1.heic, train/cat/p2.heic and 1 more; "
         ".heic must be converted first"),
        (lambda r: [put(r / "test/dog/a.txt"), put(r / "test/dog/b.mp4"), put(r / "test/dog/LICENSE")],
         "3 files are not read (1 without an ending, 1 .txt, 1 .mp4): test/dog/LICENSE, test/dog/a.txt, test/dog"),
        (lambda r: put(r / "train/9.png"), "1 images of {root}/train lie in no class folder and are not read: 9.png"),
        (lambda r: link(r / "train/cat/up", r / "train"),
         "1 links lead back to a folder above them and are not followed: train/cat/up"),
        (lambda r: link(r / "train/cat/self", r / "train/cat"), "not followed: train/cat/self"),
        (lambda r: link(r / "train/cat/x.png", r / "train/cat/0.png"),
         "1 files of {root}/train are links to an image of the same class, taken once"),
        (lambda r: os.link(r / "train/cat/0.png", r / "train/cat/x.png"), "taken once"),
        (lambda r: put(r / "unlabelled/x/1.png"), "unlabelled/ beside train/, test/ is not read"),
        (lambda r: (r / "test/dog").rename(r.parent / "gone"), "test/ has no images of 1 of 2 classes: dog"),
    ],
)  # fmt: skip
def test_what_is_passed_over_is_said_and_moves_no_count(change: Callable, note: str, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    change(root)
    _, split = folder_dataset(root)
    assert len(split.notes) == 1
    assert split.notes[0].endswith(note.format(root=root)) or note in split.notes[0]
    assert [len(split.part(part)) for part in PARTS] == [6, 0, 3 if "no images" in note else 6]


def test_class_folders_that_hold_folders_are_said(tmp_path: Path) -> None:
    root = photos(tmp_path, classes=("animals/cat", "animals/dog", "things/cup"))
    card, split = folder_dataset(root)
    assert card.classnames == ("animals", "things")
    assert split.notes == (
        "4 class folders hold folders, whose images all count as theirs: train/animals/ (cat/, dog/), "
        "train/things/ (cup/), test/animals/ (cat/, dog/) and 1 more",
    )


def test_what_systems_leave_behind_is_passed_over_without_a_word(tmp_path: Path) -> None:
    root = photos(tmp_path)
    for name in (
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "._0.png",
        ".ipynb_checkpoints/0-checkpoint.png",
        "@eaDir/0.png",
    ):
        put(root / "train" / "cat" / name)
    put(root / "__MACOSX/train/cat/._0.png")
    put(root / "train" / ".ipynb_checkpoints" / "0.png")
    assert folder_dataset(root)[1].notes == ()
    assert counts(root) == {"train": 6, "val": 0, "test": 6}


def test_links_to_class_folders_and_images_elsewhere_are_followed(tmp_path: Path) -> None:
    store, root = photos(tmp_path / "store"), tmp_path / "photos"
    for part in ("train", "test"):
        (root / part).mkdir(parents=True)
        link(root / part / "cat", store / part / "cat")
        (root / part / "dog").mkdir()
        for number in range(3):
            link(root / part / "dog" / f"{number}.png", store / part / "dog" / f"{number}.png")
    assert counts(root) == {"train": 6, "val": 0, "test": 6}
    assert folder_dataset(root)[1].notes == ()


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: link(r / "test/cat/x.png", r / "train/cat/0.png"),
         "1 image files stand in two parts or two classes, by links: train/cat/0.png is test/cat/x.png"),
        (lambda r: os.link(r / "train/cat/0.png", r / "train/dog/x.png"), "train/cat/0.png is train/dog/x.png"),
        (lambda r: link(r / "train/eel", r / "train/dog"), "3 image files stand in two parts or two classes, by links"),
        (lambda r: link(r / "train/dog/in", r / "test/dog"), "3 image files stand in two parts"),
        (lambda r: link(r / "train/cat/x.png", r / "gone.png"), "train/cat/x.png: the link leads nowhere"),
        (lambda r: link(r / "train/eel", r / "unmounted"), "train/eel: the link leads nowhere"),
        (lambda r: os.mkfifo(r / "train/cat/x.png"), "train/cat/x.png: a pipe, not a file"),
        (lambda r: photos(r, ("Cat",), ("train",)), "classes 'Cat' and 'cat' give the same prompt"),
        (lambda r: photos(r, ("_",), ("train",)), "1 class names without a word: '_'"),
        (lambda r: [photos(r, (name,), ("train",)) for name in (CAFE, CAFE_OF_A_MAC)],
         "train are called caf\u00e9, in two Unicode forms"),
        (lambda r: photos(r, ("Dog",), ("test",)),
         "1 class folders of test/ do not exist in train/: Dog (there it is dog)"),
        (lambda r: photos(r, parts=("Train",)), "holds Train/ and train/, which both mean train: keep one"),
        (lambda r: photos(r, parts=("val", "valid")), "holds val/ and valid/, which both mean val: keep one"),
        (lambda r: put(r / "train/cat" / os.fsdecode(b"x\xff.png")), "its name is not UTF-8; rename it"),
        (lambda r: put(r / "train" / os.fsdecode(b"x\xff") / "0.png"), "is not UTF-8"),
    ],
)  # fmt: skip
def test_what_would_be_counted_wrongly_is_refused(change: Callable, words: str, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    change(root)
    with pytest.raises(DataError) as caught:
        folder_dataset(root)
    assert words in str(caught.value)
    str(caught.value).encode()  # it can be printed


@pytest.mark.parametrize("root", ["", "x" * 5000, "nowhere", "file", "a\0b"])
def test_what_is_no_folder_is_named(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos(tmp_path))
    Path("file").write_text("x")
    with pytest.raises(DataError, match="there is no folder"):
        folder_dataset(root)
    if root != "file":
        with pytest.raises(DataError, match="there is no image or folder"):
            find_images([root])


def test_parts_without_class_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    put(tmp_path / "Test" / "0.png")
    with pytest.raises(DataError, match=r"per class, but Test/ and train/ hold no class folder$"):
        folder_dataset(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scandir = photos(tmp_path), os.scandir
    put(root / "train" / "cat" / "shut" / "0.png")

    def refuse(path: str) -> object:
        if str(path).rstrip("/").endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("clipbench.data.walk.os.scandir", refuse)
    with pytest.raises(DataError, match=r"train/cat/shut/: you may not read it|train/cat/shut: you may not read it"):
        folder_dataset(root)


# One class under names that look the same; parts under the names that people give them


def test_a_class_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    photos(tmp_path, (CAFE, "tea"), ("train",))
    photos(tmp_path, (CAFE_OF_A_MAC, "tea"), ("test",))
    card, split = folder_dataset(tmp_path)
    assert card.classnames == (CAFE, "tea")
    assert {item.classname for item in split.test} == {CAFE, "tea"}
    assert all((tmp_path / item.path).is_file() for item in (*split.train, *split.test))


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Train", "Validation", "Test"), ("training", "VAL", "testing")]
)
def test_parts_are_known_under_the_names_that_people_give_them(names: tuple[str, ...], tmp_path: Path) -> None:
    photos(tmp_path, parts=names)
    assert counts(tmp_path) == {"train": 6, "val": 6, "test": 6}
    assert folder_dataset(tmp_path)[1].notes == ()


# `predict` sees what `fit` sees


def test_predict_reads_the_files_that_fit_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos")
    for ending in ("jfif", "pgm", "avif", "TIF", "heic", "txt"):
        put(root / f"train/cat/x.{ending}")
    link(root / "train/cat/in", root.parent)
    put(root / "train/cat/folder.jpg/y.png")
    put(root / "train/cat/.thumbs/z.png")
    _, split = folder_dataset(root)
    seen = [str(path.relative_to(root)) for path in find_images([str(root / "train" / "cat")])]
    assert seen == [item.path for item in split.train if item.classname == "cat"]
    assert len(seen) == 8
    said = capsys.readouterr().err
    assert "2 files are not read (1 .heic, 1 .txt): x.heic, x.txt; .heic must be converted first" in said
    assert "1 links lead back to a folder above them and are not followed: in" in said


def test_a_bench_says_once_what_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clipbench.bench.identity import DataFingerprints

    root, facts = photos(tmp_path / "photos"), DataFingerprints()
    put(root / "train/cat/x.heic")
    for seed in (1, 2):
        facts.of({"class_path": "ImageFolder", "init_args": {"root": str(root), "seed": seed, "protocol": "few_shot"}})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clipbench: photos: 1 files are not read (1 .heic): train/cat/x.heic")


# Divided once


@pytest.mark.parametrize(
    "split",
    ["nan,0.5,0.5", "inf,0,0", "-0.5,1,0.5", "0.5,0.2,0.3,", "", "0.5;0.2;0.3", "half,0.2,0.3", [None, 0.5, 0.5]],
)
def test_shares_that_are_none(split: str | list) -> None:
    with pytest.raises(ConfigError, match="train, val and test"):
        parse_shares(split)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text.replace("oak/0.png", "oak/1.png"), r"1 images stand twice: oak/1\.png"),
        (lambda text: text.replace('"oak"', '"ash"'), "5 images have another label or class name than their folder"),
        (
            lambda text: text.replace("oak/0.png", "../oak/0.png"),
            r"is not a split file at train.*below the image folder",
        ),
        (lambda text: "<html>" + text, "is not a split file"),
    ],
)
def test_a_kept_split_is_checked(edit: Callable[[str], str], words: str, tmp_path: Path) -> None:
    photos(tmp_path, ("ash", "oak"), ("",))
    for name in ("ash", "oak"):
        for number in (3, 4):
            put(tmp_path / name / f"{number}.png", number)
    _, split = folder_dataset(tmp_path, split="0.5,0.2,0.3")
    assert folder_dataset(tmp_path, split="0.5,0.2,0.3")[1] == split
    (file,) = tmp_path.glob("*.json")
    file.write_text(edit(file.read_text()))
    with pytest.raises(DataError, match=words):
        folder_dataset(tmp_path, split="0.5,0.2,0.3")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=r"split file .* is a pipe, not a file"):
        folder_dataset(tmp_path, split="0.5,0.2,0.3")


def test_images_beside_class_folders_are_not_divided_but_said(tmp_path: Path) -> None:
    photos(tmp_path, ("ash", "oak"), ("",))
    put(tmp_path / "loose.png")
    put(tmp_path / "ash" / "x.heic")
    link(tmp_path / "ash" / "again.png", tmp_path / "ash" / "0.png")
    _, split = folder_dataset(tmp_path, split="0.4,0.3,0.3")
    assert sum(len(split.part(part)) for part in PARTS) == 6
    assert len(split.notes) == 3
    with pytest.raises(DataError, match="must hold train/ and test/"):
        folder_dataset(tmp_path)
