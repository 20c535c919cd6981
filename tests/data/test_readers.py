"""Readers: the published files give the published splits; every other content is refused with what is wrong where."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from clipbench.data.cards import load_card
from clipbench.data.draw import draw
from clipbench.data.own import folder_dataset, manifest_dataset
from clipbench.data.readers import divide, read_split
from clipbench.data.readers.divide import parse_shares
from clipbench.data.readers.zhou import dump, parse
from clipbench.data.splits import PARTS, Item, Split, differences, halves
from clipbench.errors import ConfigError, DataError, RecordError, UnknownName
from clipbench.testing.cards import fake_image, fake_split, fake_tree

JSON = ["caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "sun397", "dtd", "eurosat", "ucf101"]


def unzip(path, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(gzip.decompress(path.read_bytes()))
    return to


# published split files


@pytest.mark.parametrize("name", JSON)
def test_published_split(name, shared):
    """Order, labels and names are those of the file, and it can be written again byte for byte."""
    card = load_card(name)
    data = gzip.decompress((shared / "splits" / f"{card.split_file}.gz").read_bytes())
    split = read_split(card, "nowhere", shared / "splits")
    raw = json.loads(data)
    assert {part: [list(item) for item in split.part(part)] for part in PARTS} == raw
    assert dump(split) == data
    base, novel = halves(len(card.classnames))
    assert sum(item.label in base for item in split.test) == card.counts["test_base"]
    assert sum(item.label in novel for item in split.test) == card.counts["test_novel"]


def test_first_appearance_is_not_label_order_in_two_datasets(shared):
    firsts = {}
    for name in ("oxford_flowers", "stanford_cars", "dtd"):
        items = read_split(load_card(name), "nowhere", shared / "splits").train
        firsts[name] = list(dict.fromkeys(item.label for item in items))[:5]
    assert firsts == {
        "oxford_flowers": [76, 72, 87, 88, 80],
        "stanford_cars": [13, 2, 90, 133, 105],
        "dtd": [0, 1, 2, 3, 4],
    }


def test_split_hash_covers_order_labels_and_names():
    items = [Item("a.jpg", 0, "a"), Item("b.jpg", 1, "b")]
    hashes = {
        Split(tuple(items), (), ()).hash,
        Split(tuple(items[::-1]), (), ()).hash,
        Split((), tuple(items), ()).hash,
        Split((items[0], Item("b.jpg", 0, "b")), (), ()).hash,
        Split((items[0], Item("b.jpg", 1, "c")), (), ()).hash,
        Split(tuple(items), (), (), {1: ((0,), ())}).hash,
    }
    assert len(hashes) == 6


def test_caltechs_second_copy_is_accepted(shared, tmp_path):
    file = unzip(shared / "splits/split_zhou_Caltech101.json.gz", tmp_path / "caltech-101/split_zhou_Caltech101.json")
    first = read_split(load_card("caltech101"), tmp_path)
    file.write_bytes(file.read_bytes() + b"\n")
    assert read_split(load_card("caltech101"), tmp_path) == first


def test_another_split_is_never_taken(shared, tmp_path):
    file = unzip(shared / "splits/split_zhou_EuroSAT.json.gz", tmp_path / "eurosat/split_zhou_EuroSAT.json")
    raw = json.loads(file.read_bytes())
    raw["train"][0], raw["train"][1] = raw["train"][1], raw["train"][0]
    file.write_text(json.dumps(raw, indent=4, separators=(",", ": ")))
    with pytest.raises(DataError, match=r"split_zhou_EuroSAT\.json is not the published file.*541503a77d0b"):
        read_split(load_card("eurosat"), tmp_path)


def test_plain_and_gzipped_files_and_no_file(shared, tmp_path):
    card = load_card("dtd")
    with pytest.raises(DataError, match=r"needs .*split_zhou_DescribableTextures\.json.*does not exist"):
        read_split(card, tmp_path)
    shutil.copy(shared / "splits" / f"{card.split_file}.gz", tmp_path)
    gzipped = read_split(card, "nowhere", tmp_path)
    unzip(tmp_path / f"{card.split_file}.gz", tmp_path / card.split_file)
    (tmp_path / f"{card.split_file}.gz").unlink()
    assert read_split(card, "nowhere", tmp_path) == gzipped
    (tmp_path / card.split_file).unlink()
    (tmp_path / f"{card.split_file}.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(card, "nowhere", tmp_path)


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"train": [["a", 1]], "val": [], "test": []}', b'{"train": []}', b"\xff"]
)
def test_what_is_no_split_file(data):
    with pytest.raises(DataError, match="is not a split file"):
        parse(data, Path("split.json"))


# FGVCAircraft


def fgvc(shared, root, change=lambda part, text: text):
    for name in ("variants", *(f"images_variant_{part}" for part in PARTS)):
        file = unzip(shared / "splits" / f"fgvc_{name}.txt.gz", root / "fgvc_aircraft" / f"{name}.txt")
        file.write_bytes(change(name, file.read_bytes()))
    return read_split(load_card("fgvc_aircraft"), root)


def test_fgvc_files_of_the_archive(shared, tmp_path):
    """In the dataset's folder the names are the archive's; line endings and order of the test list do not matter."""
    published = read_split(load_card("fgvc_aircraft"), "nowhere", shared / "splits")
    assert published.train[0].path.endswith(".jpg")
    assert [len(published.part(part)) for part in PARTS] == [3334, 3333, 3333]
    assert fgvc(shared, tmp_path / "a") == published
    assert fgvc(shared, tmp_path / "b", lambda part, text: text.replace(b"\n", b"\r\n")) == published

    def reorder(name, text):
        return b"".join(sorted(text.splitlines(keepends=True))) if name.endswith("test") else text

    reordered = fgvc(shared, tmp_path / "c", reorder)
    assert (reordered.train, reordered.val, set(reordered.test)) == (
        published.train,
        published.val,
        set(published.test),
    )


def test_fgvc_with_another_order_of_train_is_refused(shared, tmp_path):
    def reorder(name, text):
        lines = text.splitlines(keepends=True)
        return b"".join([lines[1], lines[0], *lines[2:]]) if name.endswith("train") else text

    with pytest.raises(DataError, match="does not hold the published train list"):
        fgvc(shared, tmp_path, reorder)


@pytest.mark.parametrize("image", ["../../x", "/etc/passwd", "a\\b", "", "1\x1b[2J"])
def test_fgvc_with_a_path_in_place_of_a_number(shared, tmp_path, image):
    with pytest.raises(DataError, match=r"is no number of an image|does not stand in"):
        fgvc(shared, tmp_path, lambda name, text: text + f"{image} A300B4\n".encode() if name.endswith("val") else text)


def test_fgvc_with_an_unknown_variant(shared, tmp_path):
    with pytest.raises(DataError, match=r"the variant 'Zeppelin' of image 0000001 does not stand in variants\.txt"):
        fgvc(shared, tmp_path, lambda name, text: text + b"0000001 Zeppelin\n" if name.endswith("val") else text)


# folders: ImageNet and its variants


def test_readme_between_the_folders_and_hidden_files_are_no_images(tmp_path):
    card = fake_tree(load_card("imagenet_a"), tmp_path, images=(0, 0, 2))
    folder = card.image_dir(tmp_path)
    assert (folder / "README.txt").is_file()
    (folder / card.class_folders[0] / ".DS_Store").write_bytes(b"")
    split = read_split(card, tmp_path)
    assert len(split.test) == 400
    assert {item.label for item in split.test} == set(range(200))
    assert split.train == split.val == ()


def test_class_folders_of_another_dataset_are_all_named(tmp_path):
    card = fake_tree(load_card("imagenet_r"), tmp_path, images=(0, 0, 1))
    folder = card.image_dir(tmp_path)
    shutil.rmtree(folder / card.class_folders[3])
    (folder / "n99999999").mkdir()
    for path in (folder / card.class_folders[5]).iterdir():
        path.unlink()
    with pytest.raises(DataError) as caught:
        read_split(card, tmp_path)
    for words in (
        f"1 class folders are missing: {card.class_folders[3]}",
        "n99999999",
        f"hold no image: {card.class_folders[5]}",
    ):
        assert words in str(caught.value)


def test_class_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    card = fake_tree(load_card("imagenet_r"), tmp_path, images=(0, 0, 1))
    listed = os.listdir

    def refused(path):
        if Path(path).name == card.class_folders[3]:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(DataError, match=f"1 class folders cannot be read: {card.class_folders[3]} .Permission denied"):
        read_split(card, tmp_path)


def test_both_halves_of_imagenet_are_reported_at_once(tmp_path):
    card = fake_tree(load_card("imagenet"), tmp_path, images=(1, 0, 1))
    shutil.rmtree(card.image_dir(tmp_path) / "train" / "n01440764")
    shutil.rmtree(card.image_dir(tmp_path) / "val" / "n15075141")
    with pytest.raises(DataError, match=r"train: 1 class folders are missing: n01440764.*val: 1 .*n15075141"):
        read_split(card, tmp_path)


def test_classnames_file_is_compared_by_content(shared, tmp_path):
    card = fake_tree(load_card("imagenet_a"), tmp_path, images=(0, 0, 1))
    file = card.folder_in(tmp_path) / "classnames.txt"
    unzip(shared / "splits" / "imagenet_classnames.txt.gz", file)  # all 1000 names: a copy of ImageNet's file
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_split(card, tmp_path).test) == 200
    file.write_text(file.read_text().replace("stingray", "dasyatis").replace("goldfinch", "carduelis"))
    with pytest.raises(
        DataError, match=r"classnames\.txt has other class names .*'dasyatis', expected 'stingray'.*carduelis"
    ):
        read_split(card, tmp_path)
    file.unlink()
    assert len(read_split(card, tmp_path).test) == 200


def test_imagenetv2_folders_are_labels(tmp_path):
    card = fake_tree(load_card("imagenetv2"), tmp_path, images=(0, 0, 1))
    split = read_split(card, tmp_path)
    assert [item.path.split("/")[0] for item in split.test] == [str(item.label) for item in split.test]
    listed = dataclasses.replace(card, extra_files=load_card("imagenetv2").extra_files)
    file = card.folder_in(tmp_path) / "classnames.txt"
    file.write_text("".join(f"n{label:08d} {name}\n" for label, name in enumerate(card.classnames)))
    assert read_split(listed, tmp_path) == split
    file.write_text(file.read_text().replace("goldfish", "gold fish"))
    with pytest.raises(DataError, match="line 2 names 'gold fish', expected 'goldfish'"):
        read_split(listed, tmp_path)


@pytest.mark.parametrize("name", ["imagenet", "imagenet_sketch"])
def test_folders_cannot_be_read_from_split_files(name, tmp_path):
    with pytest.raises(DataError, match=f"'{name}' has no split file"):
        read_split(load_card(name), tmp_path, tmp_path)


# checks against the card


def test_every_difference_from_the_card_is_named():
    card = load_card("eurosat")
    split = fake_split(card, (2, 1, 1))
    wrong = Split(
        (*split.train[:-2], Item("x.jpg", 99, "X"), split.train[0]),
        split.val,
        (*split.test, split.train[1]._replace(classname="Meadow")),
    )
    text = "; ".join(differences(card, wrong))
    for words in (
        "train: 20 images, expected 13,500",
        "labels 99 outside 0..9",
        "1 of 10 classes without an image: Sea or Lake",
        "1 paths stand twice",
        "label 0 is 'Meadow', expected 'Annual Crop Land'",
        "1 test images are also train or val images",
    ):
        assert words in text
    assert differences(fake_tree_card(card), fake_split(card, (3, 1, 2))) == []


def fake_tree_card(card):
    counts = {
        "classes": 10,
        "base": 5,
        "novel": 5,
        "train": 30,
        "val": 10,
        "test": 20,
        "test_base": 10,
        "test_novel": 10,
    }
    return dataclasses.replace(card, counts=counts)


def test_rendered_datasets_need_no_file():
    card = load_card("mini/eurosat")
    split = read_split(card, "nowhere")
    each = card.counts["train"] // len(card.classnames)
    assert split.train[each + 1] == Item("001/train_01.png", 1, card.classnames[1])
    assert [len(split.part(part)) for part in PARTS] == [card.counts[part] for part in PARTS]


def test_unknown_reader_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown reader 'zhou_jsn'; did you mean 'zhou_json'"):
        read_split(dataclasses.replace(load_card("dtd"), reader="zhou_jsn"), "x")


# manifests


HEAD = "path,label,classname,split,draws\n"


def images(root, *paths):
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(fake_image(number, number, Path(path).suffix))


def manifest(root, *lines, head=HEAD):
    file = root / "manifest.csv"
    file.write_text(head + "".join(f"{line}\n" for line in lines))
    return file


GOOD = (
    "a/1.png,0,big_cat,train,1 2", "a/2.png,0,big_cat,train,2", "a/3.png,0,big_cat,val,", "b/1.png,1,dog,train,1",
    "b/2.png,1,dog,train,2 3", "b/3.png,1,dog,test,", "a/4.png,0,big_cat,test,",
)  # fmt: skip


def test_manifest(tmp_path):
    images(tmp_path, *(line.split(",")[0] for line in GOOD))
    card, split = manifest_dataset(manifest(tmp_path, *GOOD), key="pets")
    assert (card.key, card.suite, card.template) == ("pets", "own", "a photo of a {}.")
    assert card.classnames == ("big_cat", "dog")
    assert card.counts == {"classes": 2, "base": 1, "novel": 1, "train": 4, "val": 1, "test": 2}
    assert split.test == (Item("b/3.png", 1, "dog"), Item("a/4.png", 0, "big_cat"))
    assert [item.path for item in draw(split, 16, 1).train] == ["a/1.png", "b/1.png"]
    assert [item.path for item in draw(split, 16, 2).train] == ["a/1.png", "a/2.png", "b/2.png"]
    assert len(draw(split, 16, 9).train) == 4  # a seed that is not named draws from all
    assert read_split(card, "any root") == split
    assert (card.image_dir("any root") / "a/1.png").is_file()


def test_manifest_without_draws_with_byte_order_mark_and_extra_columns(tmp_path):
    images(tmp_path, "1.png", "2.png")
    text = "\ufefflabel,classname,path,split,camera\n0,a,1.png,train,x\n1,b,2.png,train,y\n"
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    card, split = manifest_dataset(tmp_path / "list.csv", template="{}.")
    assert (card.key, card.template, len(split.train), split.test, split.marks) == ("list", "{}.", 2, (), {})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a/9.png,0,big_cat,valid,", "line 9: split is 'valid', must be train, val or test"),
        ("a/9.png,x,big_cat,train,", "line 9: label 'x' is not a whole number"),
        ("a/9.png,-1,big_cat,train,", "label -1 is negative"),
        ("a/9.png,0,small_cat,train,", "label 0 is 'small_cat' here and 'big_cat' before"),
        ("a/1.png,0,big_cat,test,", "a/1.png stands already in line 2"),
        ("a/9.png,0,big_cat,test,1", "a test image cannot be part of a draw"),
        ("a/9.png,0,big_cat,train,1;2", "draws '1;2' must be whole numbers separated by blanks"),
        ("a/9.png,3,eel,train,", "labels must be 0..2 without gaps, but 2 are missing"),
        ("a/9.png,2,eel,test,", "1 classes have no train image: eel"),
        (",2,eel,test,", "path and classname must not be empty"),
        ("a/9.png,0", "path and classname must not be empty"),
        ("a/1.png,0,big_cat,train,", "line 9"),
    ],
)
def test_wrong_manifest_lines_are_named(line, words, tmp_path):
    images(tmp_path, "a/9.png", *(line.split(",")[0] for line in GOOD))
    with pytest.raises(DataError) as caught:
        manifest_dataset(manifest(tmp_path, *GOOD, line))
    assert words in str(caught.value)
    assert "manifest.csv is not right" in str(caught.value)


def test_everything_wrong_with_a_manifest_is_in_one_message(tmp_path):
    images(tmp_path, "a/1.png")
    with pytest.raises(DataError) as caught:
        manifest_dataset(manifest(tmp_path, *GOOD, "a/9.png,z,big_cat,train,"))
    assert "label 'z'" in str(caught.value)
    assert "6 images do not exist" in str(caught.value)
    assert "b/3.png" in str(caught.value)


def test_manifests_that_are_none(tmp_path):
    with pytest.raises(DataError, match="there is no manifest"):
        manifest_dataset(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="has no column label, classname, split; its first line must name path,label"):
        manifest_dataset(
            manifest(tmp_path, head="path;label;classname;split\npath\n".replace(";", "|").replace("path|", "path,x|"))
        )
    with pytest.raises(DataError, match="0 classes; at least two"):
        manifest_dataset(manifest(tmp_path))
    with pytest.raises(ConfigError, match="a template needs"):
        manifest_dataset(manifest(tmp_path, *GOOD), template="a photo")


@pytest.mark.parametrize(("folder", "key"), [("caltech-101", "caltech101"), ("eurosat", "eurosat")])
def test_real_manifests_hold_the_reference_draws(folder, key, shared):
    card, split = manifest_dataset(shared / "real" / folder / "manifest.csv")
    reference = read_split(load_card(key), "nowhere", shared / "splits")
    assert card.classnames == load_card(key).classnames
    assert split.val == ()
    for seed in (1, 2, 3):
        ours = [item.path.split("/", 1)[1] for item in draw(split, 16, seed).train]
        assert sorted(ours) == sorted(item.path for item in draw(reference, 16, seed).train)


# folders of images by class


def classes(root, sizes, suffix=".png"):
    for name, size in sizes.items():
        images(root, *(f"{name}/{number}{suffix}" for number in range(size)))
    return root


def test_folder_with_train_val_test(tmp_path):
    for part, size in (("train", 3), ("val", 1), ("test", 2)):
        classes(tmp_path / part, {"oak_tree": size, "ash": size, "Elm": size})
    (tmp_path / "train" / "ash" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "ash" / "deeper").mkdir()
    images(tmp_path / "train" / "ash" / "deeper", "4.JPG")
    card, split = folder_dataset(tmp_path, template="a leaf of {}.")
    assert card.classnames == ("Elm", "ash", "oak_tree")  # sorted as the folders' names
    assert card.counts == {"classes": 3, "base": 2, "novel": 1, "train": 10, "val": 3, "test": 6}
    assert Item("train/ash/deeper/4.JPG", 1, "ash") in split.train
    assert [item.label for item in split.test] == [0, 0, 1, 1, 2, 2]
    assert read_split(card, "any root") == split
    assert not list(tmp_path.glob("*.json"))


def test_folder_of_classes_is_split_once(tmp_path, capsys):
    classes(tmp_path, {"ash": 20, "elm": 7, "oak": 3})
    card, split = folder_dataset(tmp_path, split="0.5,0.2,0.3", split_seed=1)
    sizes = {part: [sum(item.label == label for item in split.part(part)) for label in range(3)] for part in PARTS}
    assert sizes == {"train": [10, 4, 1], "val": [4, 1, 1], "test": [6, 2, 1]}
    file = tmp_path / "clipbench_split_0.5-0.2-0.3_seed1.json"
    assert f"the split is kept in {file}" in capsys.readouterr().err
    assert read_split(card, "any root") == split
    before = file.read_bytes()
    assert folder_dataset(tmp_path, split=[0.5, 0.2, 0.3], split_seed=1)[1] == split
    assert (file.read_bytes(), capsys.readouterr().err) == (before, "")
    assert folder_dataset(tmp_path, split="0.5,0.2,0.3", split_seed=2)[1] != split
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_split_file_is_what_counts(tmp_path):
    """A kept split is read, not made again: an edited one stays."""
    classes(tmp_path, {"ash": 10, "oak": 10})
    _, split = folder_dataset(tmp_path, split="0.5,0.2,0.3")
    edited = Split((*split.train, split.val[0]), split.val[1:], split.test)
    (tmp_path / "clipbench_split_0.5-0.2-0.3_seed1.json").write_bytes(dump(edited))
    assert folder_dataset(tmp_path, split="0.5,0.2,0.3")[1] == edited


def test_images_that_came_or_went_are_no_reason_for_a_new_split(tmp_path):
    classes(tmp_path, {"ash": 5, "oak": 5})
    folder_dataset(tmp_path, split="0.5,0.2,0.3")
    images(tmp_path, "ash/new.png")
    (tmp_path / "oak" / "0.png").unlink()
    with pytest.raises(
        DataError, match=r"1 images are gone: oak/0\.png; 1 images are new: ash/new\.png; delete that file"
    ):
        folder_dataset(tmp_path, split="0.5,0.2,0.3")


def test_a_class_keeps_its_images_when_another_class_comes(tmp_path):
    first = folder_dataset(classes(tmp_path / "a", {"ash": 9, "oak": 9}), split="0.5,0.2,0.3")[1]
    second = folder_dataset(classes(tmp_path / "b", {"ash": 9, "bay": 9, "oak": 9}), split="0.5,0.2,0.3")[1]
    assert [item.path for item in second.train if item.classname != "bay"] == [item.path for item in first.train]


def test_a_read_only_folder_keeps_its_split_in_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLIPBENCH_CACHE", str(tmp_path / "cache"))
    root = classes(tmp_path / "data", {"ash": 6, "oak": 6})
    write, places = divide.atomic.write_bytes, [root]

    def refuse(path, data):
        if path.parent in places or None in places:
            raise RecordError("read-only")
        return write(path, data)

    monkeypatch.setattr(divide.atomic, "write_bytes", refuse)
    _, split = folder_dataset(root, split="0.5,0.2,0.3")
    kept = list((tmp_path / "cache").rglob("*.json"))
    assert len(kept) == 1
    assert str(kept[0]) in capsys.readouterr().err
    assert folder_dataset(root, split="0.5,0.2,0.3")[1] == split
    places.append(None)
    with pytest.raises(DataError, match=r"can be kept neither there nor in .*: make one of them writable, or name"):
        folder_dataset(root, split="0.4,0.3,0.3")


def test_a_class_folder_without_a_readable_image(tmp_path):
    for part in ("train", "test"):
        classes(tmp_path / part, {"ash": 2, "elm": 2, "oak": 2})
    for path in (tmp_path / "train" / "elm").iterdir():
        path.unlink()
    (tmp_path / "train" / "oak" / "0.png").write_bytes(b"no image at all")
    (tmp_path / "train" / "oak" / "1.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        folder_dataset(tmp_path)
    assert f"the class folder {tmp_path / 'train' / 'elm'} holds no readable image (it is empty)" in str(caught.value)
    assert f"{tmp_path / 'train' / 'oak'} holds no readable image (2 files: 0.png, 1.png)" in str(caught.value)


def test_folders_of_another_layout(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        folder_dataset(tmp_path / "absent")
    classes(tmp_path / "flat", {"ash": 3, "oak": 3})
    with pytest.raises(
        DataError,
        match=r"must hold train/ and test/ .* but holds ash/, oak/; if these 2 folders are the classes, give split=",
    ):
        folder_dataset(tmp_path / "flat")
    classes(tmp_path / "both" / "train", {"ash": 3, "oak": 3})
    classes(tmp_path / "both" / "test", {"ash": 3, "yew": 3})
    with pytest.raises(DataError, match=r"1 class folders of test/ do not exist in train/: yew"):
        folder_dataset(tmp_path / "both")
    with pytest.raises(ConfigError, match="is split already"):
        folder_dataset(tmp_path / "both", split="0.5,0.2,0.3")
    classes(tmp_path / "few", {"ash": 3, "oak": 2})
    with pytest.raises(DataError, match="oak has 2 images, too few for 3 parts"):
        folder_dataset(tmp_path / "few", split="0.5,0.2,0.3")
    classes(tmp_path / "one", {"ash": 3})
    with pytest.raises(DataError, match="1 class folders; at least two are needed"):
        folder_dataset(tmp_path / "one", split="0.5,0.2,0.3")


@pytest.mark.parametrize("split", ["0.5,0.5", "a,b,c", "0.5,0.2,0.2", "0,0.5,0.5", "0.6,0.4,0", [1, 2]])
def test_shares_that_make_no_sense(split):
    with pytest.raises(ConfigError, match="train, val and test"):
        parse_shares(split)


def test_shares_without_val(tmp_path):
    _, split = folder_dataset(classes(tmp_path, {"ash": 4, "oak": 2}), split=(0.5, 0, 0.5))
    assert [len(split.part(part)) for part in PARTS] == [3, 0, 3]


def test_split_files_are_written_in_one_step(tmp_path, monkeypatch):
    """A kill between write and rename leaves nothing that would be read."""
    classes(tmp_path, {"ash": 5, "oak": 5})

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder_dataset(tmp_path, split="0.5,0.2,0.3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ash", "oak"]
