"""The closed list of words: every prompt of the suite, and nothing else."""

from __future__ import annotations

from clipbench.mini.cards import all_cards
from tools.mini.vocabulary import all_phrases, known_words, split_words


def test_split_words_separates_punctuation_and_case() -> None:
    assert split_words("A photo of a Red star, striped.") == [
        "a",
        "photo",
        "of",
        "a",
        "red",
        "star",
        ",",
        "striped",
        ".",
    ]


def test_the_closed_list_holds_every_prompt_and_nothing_else() -> None:
    known = known_words()
    assert {"photo", "satellite", "centered", "texture", "x", ".", ",", "umbrella"} <= known
    assert "zebra" not in known
    assert all(set(split_words(text)) <= known for text in all_phrases())
    assert len(known) < 200


def test_every_class_name_in_its_template_is_known() -> None:
    known = known_words()
    for card in all_cards():
        for name in card.classnames:
            assert set(split_words(card.family.template.format(name))) <= known
