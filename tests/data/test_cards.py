"""Cards: each holds every conformance property; a wrong card or an unknown name is refused with what would be right."""

from __future__ import annotations

import copy
import csv
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clipbench.data.cards import card_from_mapping, list_cards, load_card, read_yaml, schema_errors
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
        (lambda card: card.update(folders="x"), "'folders' was unexpected"),
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


def test_cards_need_no_torch():
    code = (
        "import sys; from clipbench.data.cards import list_cards, load_card; "
        "import clipbench.data.status, clipbench.data.draw, clipbench.data.own; "
        "[load_card(name) for name in list_cards()]; print(sorted({'torch', 'pandas', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
