"""The cards: names, tuples, counts and words from one object."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from clipbench.errors import DataError, UnknownName
from clipbench.mini.cards import all_cards, card_path, parse_card, read_card
from clipbench.mini.words import FAMILIES

CARDS = pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)


def _mapping() -> dict[str, Any]:
    return yaml.safe_load(card_path("imagenet").read_text(encoding="utf-8"))


@CARDS
def test_a_card_agrees_with_the_words(one) -> None:
    card = read_card(one.key)
    assert card.family is one
    assert len(card.classes) == len(set(card.classes)) == one.classes
    assert list(card.classnames) == [one.phrase(values) for values in card.classes]
    assert set(card.classes) <= set(one.grid())
    assert card.per_class == {"train": 32, "val": 8, "test": 40}
    data = yaml.safe_load(card_path(one.key).read_text(encoding="utf-8"))
    assert data["template"] == one.template
    assert data["mini"]["factors"] == list(one.factors)
    assert {k: tuple(v) for k, v in data["mini"]["reserved"].items()} == one.reserved
    assert data["counts"]["base"] == card.base == -(-one.classes // 2)
    assert data["counts"]["base"] + data["counts"]["novel"] == data["counts"]["classes"]


def test_five_datasets_reserve_values() -> None:
    assert sum(bool(one.reserved) for one in FAMILIES) == 5


@CARDS
def test_other_novel_values_occur_in_base(one) -> None:
    card = read_card(one.key)
    for place, factor in enumerate(one.factors):
        base, novel = (
            {values[place] for values in half} for half in (card.classes[: card.base], card.classes[card.base :])
        )
        assert novel - base <= set(one.reserved.get(factor, ()))


def test_most_classes_have_a_neighbour_that_no_colour_tells_apart() -> None:
    close = 0
    for card in all_cards():
        colour = card.family.colour_factors()
        for half in card.halves().values():
            group = [card.classes[label] for label in half]
            for a in group:
                apart = [[p for p in range(3) if a[p] != b[p]] for b in group]
                close += any(len(p) == 1 and not colour[p[0]] for p in apart)
    assert close >= 110


def test_a_name_beside_the_wrong_tuple_is_refused() -> None:
    data = _mapping()
    data["classnames"][0], data["classnames"][1] = data["classnames"][1], data["classnames"][0]
    with pytest.raises(DataError, match="is not the phrase of its tuple"):
        parse_card(data, "imagenet.yaml")


def test_an_unknown_value_is_refused() -> None:
    data = _mapping()
    data["mini"]["classes"][0][2] = "blob"
    with pytest.raises(DataError, match="shape 'blob' is not one of"):
        parse_card(data, "imagenet.yaml")


def test_counts_that_are_no_equal_classes_are_refused() -> None:
    data = _mapping()
    data["counts"]["test"] += 1
    with pytest.raises(DataError, match="equal classes"):
        parse_card(data, "imagenet.yaml")


def test_an_unknown_card_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'eurosat'"):
        read_card("mini/eurosatt")


@pytest.mark.parametrize("where", ["strength", "seed", "style", "classes"])
def test_the_digest_follows_whatever_decides_a_pixel(where: str) -> None:
    data = _mapping()
    block = copy.deepcopy(data["mini"])
    if where == "style":
        block["style"]["noise"] += 0.01
    elif where == "classes":
        block["classes"] = block["classes"][1:] + block["classes"][:1]
        data["classnames"] = data["classnames"][1:] + data["classnames"][:1]
    else:
        block[where] += 1
    assert parse_card({**data, "mini": block}, "x").digest != read_card("imagenet").digest
    assert parse_card({**_mapping(), "description": "other"}, "x").digest == read_card("imagenet").digest
