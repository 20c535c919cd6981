"""The closed list of words that pretraining shows; the weights hold their tokens and no others."""

from __future__ import annotations

from collections.abc import Iterator

from clipbench.mini.words import FAMILIES

# Wordings that any family may be put into; the last four words of the first start learned contexts.
GENERAL_TEMPLATES = (
    "a photo of a {}.",
    "a photo of {}.",
    "a picture of a {}.",
    "{}.",
    "an image of the {}.",
    "a {}.",
)

# "x" holds the place of a learned context vector.
PLACEHOLDER = "x"


def split_words(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text, as the tokenizer separates them."""
    spaced = "".join(c if c.isalnum() else f" {c} " for c in text.lower())
    return spaced.split()


def all_phrases() -> Iterator[str]:
    """Every text that captions and prompts are made of, with ``{}`` left out."""
    yield PLACEHOLDER
    yield from (t.replace("{}", " ") for t in GENERAL_TEMPLATES)
    for one in FAMILIES:
        yield from (t.replace("{}", " ") for t in (one.template, *one.also))
        for form, wording in enumerate(one.phrases):
            if wording not in one.phrases[:form]:
                yield from (one.phrase(values, form) for values in one.grid())


def known_words() -> frozenset[str]:
    """The closed list of words and punctuation marks that the mini backbone can read."""
    return frozenset(word for text in all_phrases() for word in split_words(text))
