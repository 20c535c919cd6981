"""Missing, damaged or misplaced data: all that is wrong in one message, with what to get from where into where."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from clipbench.data import opening
from clipbench.data.card import Source
from clipbench.data.cards import list_cards, load_card
from clipbench.data.opening import check_all
from clipbench.data.status import inspect, open_split, problems, sources_for, status, verify
from clipbench.errors import DataError
from clipbench.testing.cards import fake_tree


def test_a_dataset_that_is_all_there(tmp_path):
    card = fake_tree(load_card("dtd"), tmp_path)
    assert problems(card, tmp_path) == []
    assert inspect(card, tmp_path).state == "ready"
    assert len(open_split(card, tmp_path).train) == 3 * 47
    assert status([card], tmp_path)[1]
    assert verify([card], tmp_path)[1]


def test_a_tree_with_every_image_of_the_published_split(tmp_path, shared):
    """The unchanged card of the real dataset against 5,640 files in the real layout."""
    card = load_card("dtd")
    assert fake_tree(card, tmp_path, splits_dir=shared / "splits") is card
    text, good = verify([card], tmp_path)
    assert good, text
    assert "ready" in text
    gone = sorted((tmp_path / "dtd/images/woven").iterdir())
    for path in gone[:100]:
        path.unlink()
    gone[100].write_bytes(b"")
    text, good = verify([card], tmp_path)
    assert not good
    listed = [line for line in text.splitlines() if line.startswith("  - ") and "do not exist" in line]
    assert sum(int(line.split(": ")[1].split(" of ")[0].replace(",", "")) for line in listed) == 100
    assert all(line.count("woven_") == 10 and line.endswith(" more") for line in listed)
    assert gone[100].name in text
    assert "are empty" in text


def test_nothing_there(tmp_path):
    card = load_card("dtd")
    for root in (tmp_path, tmp_path / "absent"):
        message = inspect(card, root).message()
        assert inspect(card, root).state == "absent"
        for words in (
            "dtd (Describable Textures)",
            "dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            "MD5 fff73e5086ae6bdbea199a49dfb8a4c1",
            "split_zhou_DescribableTextures.json from https://drive.google.com/file/d/1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
            f"/view into {root / 'dtd'}",
            "|-- images/",
        ):
            assert words in message
    with pytest.raises(DataError, match="what to get"):
        open_split(card, tmp_path)
    assert "does not exist" in inspect(card, tmp_path / "absent").problems[0]


def test_only_what_is_missing_is_to_be_got(tmp_path):
    card = fake_tree(load_card("oxford_pets"), tmp_path)
    (tmp_path / "oxford_pets" / card.split_file).unlink()
    message = inspect(card, tmp_path).message()
    assert "1 problem " in message
    assert "split_zhou_OxfordPets.json from" in message
    assert "images.tar.gz" not in message
    shutil.rmtree(tmp_path / "oxford_pets" / "images")
    message = inspect(card, tmp_path).message()
    assert "2 problems " in message
    assert "images.tar.gz" in message


def test_the_lists_of_fgvc_come_with_its_archive():
    card = load_card("fgvc_aircraft")
    take, others = sources_for(card, False, ["variants.txt"])
    assert ([source.file for source in take], others) == (["fgvc-aircraft-2013b.tar.gz"], [])


def test_another_split_file_is_named_with_both_hashes(tmp_path):
    card = fake_tree(load_card("ucf101"), tmp_path)
    file = tmp_path / "ucf101" / card.split_file
    file.write_bytes(file.read_bytes() + b" ")
    (found,) = problems(card, tmp_path)
    assert f"{file} is not the published file: its SHA-256 is " in found
    assert card.split_sha256[0] in found
    text, good = status([card], tmp_path)  # the quick look notices as well
    assert not good
    assert "split_zhou_UCF101.json from" in text


@pytest.mark.parametrize(
    ("name", "found", "instead"),
    [
        ("dtd", "DTD/images", "dtd"),
        ("imagenet", "imagenet/train", "imagenet/images/train"),
        ("imagenet", "imagenet/val", "imagenet/images/val"),
        ("eurosat", "eurosat/EuroSAT_RGB", "eurosat/2750"),
        ("caltech101", "caltech-101/caltech-101/101_ObjectCategories", "caltech-101/101_ObjectCategories"),
        ("fgvc_aircraft", "fgvc_aircraft/data/images", "fgvc_aircraft/images"),
        ("stanford_cars", "stanford_cars/cars_train/cars_train", "stanford_cars/cars_train"),
        ("imagenet_sketch", "imagenet-sketch/sketch", "imagenet-sketch/images"),
    ],
)
def test_known_other_layouts_are_named(name, found, instead, tmp_path):
    (tmp_path / found).mkdir(parents=True)
    message = inspect(load_card(name), tmp_path).message()
    assert f"found {tmp_path / found.removesuffix('/images' if found == 'DTD/images' else '')}" in message
    assert f"expected {tmp_path / instead}" in message


def test_the_right_layout_is_not_called_wrong(tmp_path):
    card = fake_tree(load_card("eurosat"), tmp_path)
    (tmp_path / "eurosat" / "EuroSAT_RGB").mkdir()  # a leftover beside the right folder
    assert problems(card, tmp_path) == []


def test_other_layout_of_the_images(tmp_path):
    """Right folders, but the images lie elsewhere in them."""
    card = fake_tree(load_card("food101"), tmp_path)
    images = card.image_dir(tmp_path)
    for folder in list(images.iterdir()):
        folder.rename(images / f"class_{folder.name}")
    found = problems(card, tmp_path)
    assert [line.split(":")[0] for line in found] == ["train", "val", "test"]
    assert "303 of 303 images do not exist" in found[0]
    assert found[0].endswith("and 293 more")


def test_folders_and_counts_of_imagenet(tmp_path):
    card = load_card("imagenet")
    (tmp_path / "imagenet" / "images" / "train").mkdir(parents=True)
    assert problems(card, tmp_path) == [f"the folder {tmp_path / 'imagenet/images/val'} does not exist"]
    small = fake_tree(card, tmp_path, images=(1, 0, 1))
    assert problems(small, tmp_path) == []
    found = "; ".join(problems(card, tmp_path))
    assert "train: 1,000 images, expected 1,281,167" in found
    assert "test: 1,000 images, expected 50,000" in found


def test_rendered_datasets_are_always_there(tmp_path):
    card = load_card("mini/dtd")
    assert inspect(card, tmp_path / "absent").state == "rendered"
    assert problems(card, tmp_path / "absent") == []


def test_report_of_several_datasets_drops_none(tmp_path):
    good = fake_tree(load_card("eurosat"), tmp_path)
    names = ["caltech101", "fgvc_aircraft", "mini/dtd"]
    text, all_there = status([good, *map(load_card, names)], tmp_path)
    assert not all_there
    head = [line for line in text.splitlines()[1:] if not line.startswith(" ")]
    assert [line.split()[:2] for line in head] == [
        ["ready", "eurosat"], ["absent", "caltech101"], ["absent", "fgvc_aircraft"], ["rendered", "mini/dtd"],
    ]  # fmt: skip
    assert "caltech-101.zip from" in text
    assert "fgvc-aircraft-2013b.tar.gz from" in text


REAL = [name for name in list_cards() if not name.startswith("mini/")]


@pytest.mark.parametrize("root", [".", "absent", "file"])
def test_all_that_is_missing_stands_on_a_screen(tmp_path, root):
    (tmp_path / "file").touch()
    text, good = status(map(load_card, REAL), tmp_path / root)
    assert not good
    assert len(text.splitlines()) <= 40
    for name in REAL:
        assert f"absent      {name} " in text


@pytest.mark.parametrize("name", REAL)
def test_of_several_sources_one_is_to_be_taken(name):
    card = load_card(name)
    needed = [file.name for file in card.files if file.needed]
    take, others = sources_for(card, True, needed)
    archives = [source for source in take if source.file not in needed]
    assert len(archives) == (2 if name == "imagenet" else 1)
    assert [source.file for source in take if source.file in needed] == (needed if name != "fgvc_aircraft" else [])
    assert not set(take) & set(others)
    assert sources_for(card, False, []) == ([], [])


def test_a_card_that_marks_no_source_names_the_authors_ones_first():
    card = dataclasses.replace(
        load_card("dtd"), sources=(Source("https://a"), Source("https://b")), mirrors=(Source("https://c"),)
    )
    take, others = sources_for(card, True, [])
    assert ([one.url for one in take], [one.url for one in others]) == (["https://a", "https://b"], ["https://c"])
    take, others = sources_for(dataclasses.replace(card, sources=()), True, [])
    assert [one.url for one in take] == ["https://c"]


@pytest.mark.parametrize("look", [status, verify])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_ready_means_that_no_image_is_missing(tmp_path, look, part):
    card = fake_tree(load_card("eurosat"), tmp_path)
    split = open_split(card, tmp_path)
    text, good = look([card], tmp_path)
    assert good
    assert "ready       eurosat" in text
    (card.image_dir(tmp_path) / split.part(part)[-1].path).unlink()
    text, good = look([card], tmp_path)
    assert not good
    assert "incomplete  eurosat" in text
    assert split.part(part)[-1].path in text
    assert "EuroSAT.zip from https://huggingface.co" in text


def test_status_counts_what_is_missing_over_all_parts(tmp_path):
    card = fake_tree(load_card("eurosat"), tmp_path)
    shutil.rmtree(card.image_dir(tmp_path) / "Forest")
    text, _ = status([card], tmp_path)
    assert f"6 of 60 images are not below {card.image_dir(tmp_path)}, for example Forest/" in text


def test_a_folder_of_images_may_be_a_link_to_elsewhere(tmp_path):
    card = fake_tree(load_card("eurosat"), tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "eurosat").symlink_to(tmp_path / "elsewhere" / "eurosat")
    assert status([card], tmp_path / "data")[1]


@pytest.mark.parametrize("kind", ["folder", "link to nowhere", "pipe"])
def test_what_is_no_file_is_no_image(tmp_path, kind):
    card = fake_tree(load_card("eurosat"), tmp_path)
    path = card.image_dir(tmp_path) / open_split(card, tmp_path).train[0].path
    path.unlink()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}.get(kind, lambda: path.symlink_to("nowhere"))()
    text, good = status([card], tmp_path)
    assert not good
    assert "1 of 60 images are not below" in text


def test_verify_opens_every_image_where_it_is_asked_to(tmp_path):
    card = fake_tree(load_card("eurosat"), tmp_path)
    split = open_split(card, tmp_path)
    damaged = [card.image_dir(tmp_path) / part[0].path for part in (split.train, split.val, split.test)]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:200])
    assert verify([card], tmp_path)[1], "hashes and counts are right"
    text, good = verify([card], tmp_path, lambda card, paths: check_all(paths, card.id))
    assert not good
    assert "3 of 60 images cannot be used:" in text
    assert all(f"{path}: cannot be decoded" in text for path in damaged)
    damaged[1].write_bytes(b"")
    damaged[0].unlink()
    text, _ = verify([card], tmp_path, lambda card, paths: check_all(paths, card.id))
    assert "1 of 30 images do not exist" in text, "what is missing and what is damaged stand in one message"
    assert "1 image files below" in text
    assert "1 of 58 images cannot be used" in text, "each is named once"


def test_rendered_datasets_have_no_image_to_open(tmp_path):
    assert verify([load_card("mini/dtd")], tmp_path, lambda *_: pytest.fail("opened"))[1]


def test_long_work_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(opening, "PAUSE", -1)
    assert check_all([tmp_path / str(number) for number in range(130)], "x", lambda paths: list(map(str, paths)))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("clipbench: 64 of 130 images of x opened, about ")
    assert lines[-1].startswith("clipbench: 130 of 130 images of x opened, about 0 s left")


@pytest.mark.parametrize("place", ["", "eurosat", "eurosat/2750", "eurosat/2750/Forest"])
def test_a_folder_that_may_not_be_looked_into_is_not_called_missing(tmp_path, monkeypatch, place):
    card = fake_tree(load_card("eurosat"), tmp_path)
    closed = tmp_path / place
    inside = [str(closed), *(str(path) for path in closed.rglob("*") if path.is_dir())]
    scandir, access, lexists = os.scandir, os.access, os.path.lexists

    def refused(path="."):
        if str(path) in inside:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in inside and access(path, mode))
    monkeypatch.setattr(os.path, "lexists", lambda path: os.path.dirname(path) not in inside and lexists(path))
    monkeypatch.setattr(os.path, "isfile", lambda path: os.path.dirname(path) not in inside and lexists(path))
    found = inspect(card, tmp_path)
    assert "you may not look into (Forest)" in found.problems[0] or "may not be looked into by you" in found.problems[0]
    assert "what to get" not in found.message()


def test_a_split_file_that_cannot_be_read(tmp_path):
    card = fake_tree(load_card("dtd"), tmp_path)
    file = tmp_path / "dtd" / card.split_file
    file.unlink()
    (tmp_path / "dtd" / f"{card.split_file}.gz").write_bytes(b"\x1f\x8b broken")
    (found,) = problems(card, tmp_path)
    assert "cannot be read" in found
