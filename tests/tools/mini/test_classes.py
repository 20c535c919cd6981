"""The search for classes gives what the cards hold, and leaves pretraining what it needs."""

from __future__ import annotations

import pytest

from clipbench.mini.cards import read_card
from clipbench.mini.words import FAMILIES
from tools.mini.classes import pretraining_tuples, search


@pytest.mark.parametrize("key", ["fgvc_aircraft", "ucf101"])
def test_the_search_gives_the_list_in_the_card(key: str) -> None:
    card = read_card(key)
    assert search(card.family) == list(card.classes)


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_reserved_values_are_novel_only_and_seen_in_pretraining(one) -> None:
    card = read_card(one.key)
    seen = pretraining_tuples(one, card.classes)
    for factor, values in one.reserved.items():
        place = list(one.factors).index(factor)
        for value in values:
            assert value not in {values[place] for values in card.classes[: card.base]}
            assert value in {values[place] for values in card.classes[card.base :]}
            assert value in {values[place] for values in seen}
