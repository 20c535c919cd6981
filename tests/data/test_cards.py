"""Cards: each holds every conformance property; a wrong card or an unknown name is refused with what would be right."""

from __future__ import annotations

import copy
import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clipbench.data.cards import SCHEMA_FILE, card_from_mapping, list_cards, load_card, read_yaml, schema_errors
from clipbench.data.readers import READERS
from clipbench.errors import ConfigError, UnknownName
from clipbench.testing.cards import CARD_CHECKS, check_card

CLIP11 = [
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
]
VARIANTS = ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
REAL = [*CLIP11, *VARIANTS]


@pytest.mark.parametrize("name", list_cards())
@pytest.mark.parametrize("check", CARD_CHECKS, ids=lambda check: check.__name__)
def test_card(check, name, tmp_path):
    check(load_card(name), tmp_path)


def test_the_fifteen_real_datasets_are_there():
    cards = {name: load_card(name) for name in REAL}
    assert [name for name, card in cards.items() if card.suite == "clip11"] == CLIP11
    assert [name for name, card in cards.items() if card.suite == "imagenet_variants"] == VARIANTS
    assert all(card.key == name for name, card in cards.items())
    assert len({card.published_name for card in cards.values()}) == 15


@pytest.mark.parametrize("name", CLIP11)
def test_class_names_are_the_published_ones(name, shared):
    with (shared / "splits" / "classnames.csv").open(newline="") as file:
        names = {int(row["label"]): row["stored_name"] for row in csv.DictReader(file) if row["dataset"] == name}
    assert load_card(name).classnames == tuple(names[label] for label in range(len(names)))


@pytest.mark.parametrize("name", sorted(set(CLIP11) - {"imagenet"}))
def test_counts_are_the_published_ones(name, shared):
    with (shared / "splits" / "counts.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["dataset"] == name)
    expected = {"classes": int(row["classes"]), "base": int(row["base_classes"]), "novel": int(row["new_classes"])}
    for part in ("train", "val", "test"):
        expected |= {
            f"{part}{ours}": int(row[part + theirs])
            for ours, theirs in (("", ""), ("_base", "_base"), ("_novel", "_new"))
        }
    assert load_card(name).counts == expected


def test_names_of_the_papers_tables(shared):
    names = set()
    for table, column in (("base_to_novel.csv", "dataset"), ("domain_generalisation.csv", "dataset")):
        with (shared / "published" / table).open(newline="") as file:
            names |= {row[column].removesuffix("(source)") for row in csv.DictReader(file)}
    assert names - {"average", "average_of_4_targets"} == {load_card(name).published_name for name in REAL}


def test_imagenet_variants_name_the_classes_of_imagenet():
    imagenet = load_card("imagenet")
    names = dict(zip(imagenet.class_folders, imagenet.classnames, strict=True))
    assert imagenet.class_folders == tuple(sorted(imagenet.class_folders))
    for variant in ("imagenet_sketch", "imagenet_a", "imagenet_r"):
        card = load_card(variant)
        assert card.class_folders == tuple(sorted(card.class_folders))
        assert card.classnames == tuple(names[folder] for folder in card.class_folders)
    assert load_card("imagenetv2").classnames == imagenet.classnames
    assert load_card("imagenetv2").class_folders == tuple(map(str, range(1000)))
    assert (imagenet.classnames[657], imagenet.classnames[744]) == ("missile", "missile")


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("dtb", "dtd"),
        ("DTD", "dtd"),
        ("Flowers102", "oxford_flowers"),
        ("mini/eurosta", "mini/eurosat"),
        ("ImageNet-A", "imagenet_a"),
    ],
)
def test_unknown_dataset_names_the_nearest(asked, nearest):
    with pytest.raises(UnknownName, match=f"unknown dataset '{asked}'; did you mean '{nearest}'") as caught:
        load_card(asked)
    assert caught.value.nearest == nearest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card.pop("licence"), "'licence' is a required property"),
        (lambda card: card.update(folders="x"), "unknown key 'folders'; did you mean 'folder'?"),
        (lambda card: card["counts"].update(tests=1), "counts: unknown key 'tests'; did you mean 'test'?"),
        (lambda card: card.update(reader="zhou_jsn"), "reader: 'zhou_jsn' is not one of"),
        (lambda card: card.update(reader="zhou_jsn"), "did you mean 'zhou_json'?"),
        (lambda card: card["class_folders"].__setitem__(0, "blotchy"), "class_folders names 1 folders twice: blotchy"),
        (lambda card: card.update(augmentation={"flip": float("nan")}), "augmentation.flip: nan is not of type"),
        (
            lambda card: card.update(augmentation={"crop_scale": [0.9, 0.1]}),
            "crop_scale: 0.9 to 0.1 is no range",
        ),
        (lambda card: card.update(split_file=None), "split_file: the reader zhou_json needs the name of a split file"),
        (lambda card: card.pop("split_file"), "'split_file' is a required property"),
        (lambda card: card.update(reader="imagenet") or card.pop("class_folders"), "'class_folders' is a required"),
        (
            lambda card: card.update(reader="class_folders") or card.pop("class_folders"),
            "'class_folders' is a required",
        ),
        (lambda card: card.update(reader="mini"), "reader: mini renders the packaged datasets mini/... only"),
        (lambda card: card["counts"].update(train=2820.0), "counts.train: 2820.0 is not of type 'integer'"),
        (lambda card: card.update(split_sha256="abc"), "split_sha256"),
        (lambda card: card["classnames"].pop(), "counts.classes is 47, but 46 class names are given"),
        (lambda card: card["counts"].update(base=23, novel=24), "must be 24 and 23"),
        (lambda card: card["counts"].update(test_base=1), "counts.test is 1692, but its halves sum to 829"),
        (lambda card: card.update(template="a photo of a cat."), "template"),
        (lambda card: card.update(folder="/abs"), "folder"),
        (lambda card: card["sources"].append({"link": "x"}), "sources"),
    ],
)
def test_a_wrong_card_is_refused(change, words):
    card = copy.deepcopy(read_yaml(load_card("dtd").path))
    assert schema_errors(card) == []
    change(card)
    with pytest.raises(ConfigError, match="card 'dtd' is not valid") as caught:
        card_from_mapping(card, "dtd")
    assert words in str(caught.value)


OUTSIDE = [
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "/etc",
    "C:/x",
    "~/x",
    "a\\..\\x",
    "a//b",
    "a/",
    "",
    "a\n",
    "\x1b[2J",
    "a\x00b",
    5,
    [],
]


@pytest.mark.parametrize("value", OUTSIDE, ids=repr)
@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("folder", lambda card, value: card.update(folder=value)),
        ("image_root", lambda card, value: card.update(image_root=value)),
        ("class_folders.3", lambda card, value: card["class_folders"].__setitem__(3, value)),
        ("wrong_layouts.0.found", lambda card, value: card["wrong_layouts"][0].update(found=value)),
        ("sources.0", lambda card, value: card["sources"][0].update(into=value)),
        ("split_file", lambda card, value: card.update(split_file=value)),
        ("extra_files.0.name", lambda card, value: card.update(extra_files=[{"name": value}])),
    ],
)
def test_nothing_in_a_card_leads_out_of_the_data_root(place, change, value):
    if (place, value) == ("image_root", ""):
        return  # the dataset's folder itself
    card = copy.deepcopy(read_yaml(load_card("dtd").path))
    change(card, value)
    assert [fault for fault in schema_errors(card) if fault.startswith(place)], value


@pytest.mark.parametrize("text", ["a\nb", "a\n", " ", "\x1b[31mred", "\u202egnp", "\ud800", "", 5, None], ids=repr)
@pytest.mark.parametrize("name", ["title", "licence", "citation", "published_name", "description", "classnames"])
def test_what_is_shown_of_a_card_is_one_line_of_text(name, text):
    card = copy.deepcopy(read_yaml(load_card("dtd").path))
    if name == "classnames":
        card[name][2] = text
    else:
        card[name] = text
    assert [fault for fault in schema_errors(card) if fault.startswith(name)]


def test_the_schema_knows_the_readers():
    import json

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert schema["properties"]["reader"]["enum"] == list(READERS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a card|the card: None is not of type 'object'"),
        (b"[1, 2]", "the card: .* is not of type 'object'"),
        (b"key: [", "is not YAML"),
        (b"key: !!python/object/apply:os.system [ls]", "is not YAML"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"key: dtd\nkey: dtd", "key 'key' stands twice, again in line 2"),
        (b"[" * 3000, "more than 50 levels of nesting"),
        (b"a: &a [*a]", "is not YAML"),
        (b"[a]: 1", "the key in line 1 is a list or mapping, not a word"),
        (b"5: 1\nnull: 2", "unknown key '5'"),
        (b"<!doctype html><html>", "the card: .* is not of type 'object'"),
    ],
)
def test_a_file_that_is_no_card_is_one_sentence(content, words, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_card(tmp_path / "mine.yaml")
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself", "link to nowhere", "long"])
def test_what_stands_in_place_of_a_card_is_named_not_waited_for(kind, tmp_path):
    path = tmp_path / "mine.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("link"):
        path.symlink_to("mine.yaml" if kind == "link to itself" else "gone.yaml")
    else:
        path = tmp_path / f"{'x' * 300}.yaml"
    with pytest.raises(ConfigError, match=r"is not a file|cannot be read|no card file"):
        load_card(path)


@pytest.mark.parametrize("name", ["../configs/suites/mini", "/etc/passwd", "..", "", "x" * 5000, "a\x00b", "dtd\n"])
def test_a_name_leads_to_no_file_outside_the_cards(name):
    with pytest.raises(UnknownName, match="unknown dataset"):
        load_card(name)


def test_a_thousand_faults_are_counted():
    card = copy.deepcopy(read_yaml(load_card("imagenet").path))
    card["classnames"] = list(range(1000))
    with pytest.raises(ConfigError, match=r"; and 990 more$"):
        card_from_mapping(card, "mine")


def test_all_faults_of_a_card_are_in_one_message():
    with pytest.raises(ConfigError) as caught:
        card_from_mapping({"key": "A B", "suite": "x", "extra": 1}, "mine")
    for word in ("key", "extra", "'title' is a required", "'classnames' is a required"):
        assert word in str(caught.value)


def test_a_card_file_of_ones_own(tmp_path):
    names = ["cat", "dog", "green_frog"]
    card = {
        "key": "pond", "suite": "own", "title": "Pond", "published_name": "Pond", "reader": "manifest",
        "description": "d", "licence": "mine", "citation": "none", "sources": ["https://example.org/pond.zip"],
        "folder": "pond", "split_file": "pond.csv", "template": "a photo of a {}.", "layout": "pond/\n",
        "classnames": names, "counts": {"classes": 3, "base": 2, "novel": 1, "train": 9, "val": 3, "test": 6},
    }  # fmt: skip
    file = tmp_path / "pond.yaml"
    file.write_text(yaml.safe_dump(card))
    loaded = load_card(file)
    assert (loaded.id, loaded.classnames, loaded.path) == ("pond", tuple(names), file)
    check_card(loaded, tmp_path / "checks")
    for number, suffix in enumerate((".yaml", ".yml")):
        with pytest.raises(ConfigError, match="no card file"):
            load_card(tmp_path / f"absent{number}{suffix}")


def test_a_card_of_image_folders(tmp_path):
    card = {
        "key": "zoo", "suite": "own", "title": "Zoo", "published_name": "Zoo", "reader": "image_folder",
        "description": "d", "licence": "mine", "citation": "none", "sources": ["https://example.org"], "folder": "zoo",
        "template": "a photo of a {}.", "layout": "zoo/\n", "classnames": ["ape", "bee"],
        "counts": {"classes": 2, "base": 1, "novel": 1, "train": 4, "val": 2, "test": 2},
    }  # fmt: skip
    check_card(card_from_mapping(card, "zoo"), tmp_path)


def test_a_plug_in_brings_a_card(tmp_path, monkeypatch):
    from importlib import metadata

    from clipbench.data import cards

    (tmp_path / "their.yaml").write_text(Path(load_card("dtd").path).read_text().replace("key: dtd", "key: theirs"))
    module = tmp_path / "their_plugin.py"
    module.write_text(f"CARD = {str(tmp_path / 'their.yaml')!r}\ndef card():\n    return CARD\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [metadata.EntryPoint("theirs", "their_plugin:card", cards.ENTRY_POINTS)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == cards.ENTRY_POINTS else [])
    assert "theirs" in list_cards()
    assert load_card("theirs").key == "theirs"


@pytest.mark.parametrize("target", [None, 5, lambda: ["x.yaml"], "gone.yaml"])
def test_a_plug_in_that_brings_no_card_is_one_sentence(target, monkeypatch):
    from clipbench.data import cards

    class Point:
        def load(self):
            return target

    monkeypatch.setattr(cards, "_plugins", lambda: {"theirs": Point()})
    with pytest.raises(ConfigError, match=r"plug-in of dataset 'theirs' gives|card file .*gone.yaml cannot be read"):
        load_card("theirs")


def test_cards_need_no_torch():
    code = (
        "import sys; from clipbench.data.cards import list_cards, load_card; "
        "import clipbench.data.status, clipbench.data.draw, clipbench.data.own; "
        "[load_card(name) for name in list_cards()]; print(sorted({'torch', 'pandas', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
