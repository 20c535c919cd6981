"""The few-shot draw equals the reference's image by image: 300 published digests, and the published index lists."""

from __future__ import annotations

import csv
import random

import pytest

from clipbench.data.cards import load_card
from clipbench.data.draw import draw, draw_listing
from clipbench.data.readers import read_split
from clipbench.data.splits import Item, Split, digest, halves
from clipbench.errors import ConfigError, DataError
from clipbench.testing.cards import fake_tree

DATASETS = [
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


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def split(shared):
    """Reads a published split once."""
    known = {}

    def read(name):
        if name not in known:
            known[name] = read_split(load_card(name), "no data root", shared / "splits")
        return known[name]

    return read


@pytest.mark.parametrize("name", DATASETS)
def test_digests_of_the_reference(name, split, shared):
    """30 of the 300 lists: three seeds, five numbers of shots, train and val."""
    compared = 0
    for row in rows(shared / "splits" / "fewshot_reference" / "draw_digests.csv"):
        if row["dataset"] == name:
            drawn = draw(split(name), int(row["shots"]), int(row["seed"]))
            items = drawn.train if row["part"] == "train" else drawn.val
            assert (len(items), digest(items)) == (int(row["n"]), row["sha256"]), row
            compared += 1
    assert compared == 30


@pytest.mark.parametrize("name", DATASETS)
def test_index_lists_of_the_reference(name, split, shared):
    """Positions in the split file, class after class in the order of the draw."""
    expected: dict[tuple[int, int, str], list[int]] = {}
    for row in rows(shared / "splits" / "fewshot_reference" / f"{name}_seed1.csv"):
        key = int(row["seed"]), int(row["shots"]), row["part"]
        indices = [int(index) for index in row["indices"].split()]
        items = split(name).part(row["part"])
        assert {items[index].label for index in indices} == {int(row["label"])}
        assert items[indices[0]].path == row["first_path"]
        expected.setdefault(key, []).extend(indices)
    assert len(expected) >= 10
    for (seed, shots, part), indices in expected.items():
        drawn = draw(split(name), shots, seed)
        assert list(drawn.train_indices if part == "train" else drawn.val_indices) == indices


def test_base_images_do_not_depend_on_the_halving(split):
    """Drawn over all classes first: the images of the base half are those of the all-class draw."""
    whole = draw(split("stanford_cars"), 16, 1)
    base, _ = halves(196)
    assert sum(item.label in base for item in whole.train) == 1568


def by_hand(split, shots, seed):
    """The protocol's pseudo-steps, slowly."""
    rng = random.Random(seed)
    lists = []
    for items, limit in ((split.train, shots), (split.val, min(shots, 4))):
        order, drawn = [], []
        for item in items:
            if item.label not in order:
                order.append(item.label)
        for label in order:
            group = [item for item in items if item.label == label]
            drawn += rng.sample(group, limit) if len(group) >= limit else group
        lists.append(tuple(drawn))
    return lists


def toy(sizes, val=(0, 5, 2)):
    items = [
        Item(f"{label}/{number}.jpg", label, f"c{label}")
        for number in range(20)
        for label, size in enumerate(sizes)
        if number < size
    ]
    items.reverse()  # labels do not appear in their order
    return Split(
        tuple(items),
        tuple(Item(f"v{label}/{n}.jpg", label, f"c{label}") for label, size in enumerate(val) for n in range(size)),
        (),
    )


@pytest.mark.parametrize("shots", [1, 2, 5, 8, 16])
def test_against_the_protocol_by_hand(shots):
    dataset = toy((20, 7, 3))
    for seed in range(20):
        drawn = draw(dataset, shots, seed)
        assert [drawn.train, drawn.val] == by_hand(dataset, shots, seed)
        assert drawn.train == tuple(dataset.train[index] for index in drawn.train_indices)


def test_more_shots_than_a_class_has_images_takes_all_in_file_order():
    dataset = toy((20, 7, 3))
    drawn = draw(dataset, 16, 1)
    small = [item for item in dataset.train if item.label == 2]
    assert [item for item in drawn.train if item.label == 2] == small
    assert len([item for item in drawn.train if item.label == 0]) == 16


def test_global_random_state_plays_no_part():
    random.seed(123)
    before = random.getstate()
    first = draw(toy((9, 9, 9)), 4, 1)
    assert random.getstate() == before
    random.seed(5)
    assert draw(toy((9, 9, 9)), 4, 1) == first


def test_marked_images_are_the_draw_of_their_seed():
    dataset = toy((20, 7, 3))
    chosen = tuple(index for index, item in enumerate(dataset.train) if item.path.endswith(("/1.jpg", "/0.jpg")))
    marked = Split(dataset.train, dataset.val, (), {3: (chosen, ())})
    assert draw(marked, 2, 3).train == tuple(dataset.train[index] for index in chosen_by_class(dataset, chosen))
    assert draw(marked, 16, 3).train == draw(marked, 2, 3).train  # what is not marked is never drawn
    assert set(draw(marked, 1, 3).train) < set(draw(marked, 2, 3).train)
    assert draw(marked, 2, 4) == draw(dataset, 2, 4)  # another seed knows no marks


def chosen_by_class(dataset, chosen):
    order = list(dict.fromkeys(item.label for item in dataset.train))
    return [index for label in order for index in chosen if dataset.train[index].label == label]


def test_marks_that_leave_out_a_class_are_refused():
    dataset = toy((20, 7, 3))
    only_first = tuple(index for index, item in enumerate(dataset.train) if item.label == 0)
    with pytest.raises(DataError, match=r"marked for seed 3 leave out 2 classes.*c1"):
        draw(Split(dataset.train, (), (), {3: (only_first, ())}), 2, 3)


def test_what_cannot_be_drawn_says_so():
    with pytest.raises(ConfigError, match="shots is 0"):
        draw(toy((5, 5, 5)), 0, 1)
    with pytest.raises(DataError, match="test set only"):
        draw(Split((), (), (Item("a", 0, "a"),)), 1, 1)


def test_listing_is_what_the_command_prints(shared):
    listing = draw_listing(load_card("eurosat"), 16, 1, splits_dir=shared / "splits")
    assert list(listing) == ["train", "val"]
    assert [len(items) for items in listing.values()] == [160, 40]
    items = [Item(entry["path"], entry["label"], "") for entry in listing["train"]]
    wanted = [row for row in rows(shared / "splits/fewshot_reference/draw_digests.csv") if row["dataset"] == "eurosat"]
    assert digest(items) in {row["sha256"] for row in wanted if (row["seed"], row["shots"]) == ("1", "16")}


def test_imagenet_draws_from_sorted_names_and_has_no_val(tmp_path):
    card = fake_tree(load_card("imagenet"), tmp_path, images=(3, 0, 1))
    drawn = draw(read_split(card, tmp_path), 2, 1)
    rng = random.Random(1)
    expected = [rng.sample([f"train/{name}/{name}_{n}.JPEG" for n in (1, 2, 3)], 2) for name in card.class_folders]
    assert [item.path for item in drawn.train] == [path for pair in expected for path in pair]
    assert drawn.val == ()
    assert [item.label for item in drawn.train] == [label for label in range(1000) for _ in range(2)]


def test_draws_stay_what_they_are():
    """Golden: who moves these raises `clipbench.data.version.VERSION`, so that no old record is taken for a new one."""
    from clipbench.data.version import VERSION

    dataset = toy((20, 7, 3))
    found = {(shots, seed): draw(dataset, shots, seed).digest[:16] for shots in (1, 4, 16) for seed in (1, 2)}
    assert VERSION == 1
    assert found == {
        (1, 1): "c879a8596a5a0882",
        (1, 2): "9128026de2065d0c",
        (4, 1): "09d82be2453b57de",
        (4, 2): "2018bee3ed5ac214",
        (16, 1): "11d5a7fb501bd93b",
        (16, 2): "e058405ea44cccce",
    }
