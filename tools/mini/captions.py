"""Captions for pretraining: a wording of the tuple in a template, and which other pictures it is true of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import yaml

from clipbench import resources
from clipbench.mini.factors import Family, Values
from tools.mini.vocabulary import GENERAL_TEMPLATES, PLACEHOLDER

# Share of captions in a template of the family's own, and of these in one that only other code uses.
OWN_TEMPLATE, OTHER_CODE = 1 / 3, 0.4


# What learned contexts start from.
DEFAULT_CONTEXT = "a photo of a"


@dataclass(frozen=True)
class Caption:
    """One caption.

    Attributes:
        text: the words.
        stated: for each factor of the family, whether the text states it.
    """

    text: str
    stated: tuple[bool, ...]


def templates(family: Family) -> tuple[str, ...]:
    """Every template that a caption of the family may have."""
    return tuple(dict.fromkeys((*GENERAL_TEMPLATES, family.template, *family.also)))


def draw(family: Family, values: Values, rng: np.random.Generator, placeholders: int = 0) -> Caption:
    """A random caption of a tuple, in a template or after 1 to ``placeholders`` placeholders if that is not 0."""
    form = int(rng.integers(len(family.phrases)))
    if placeholders:
        before = f"{PLACEHOLDER} " * int(rng.integers(1, placeholders + 1))
        return Caption(f"{before}{family.phrase(values, form)}.", family.stated(form))
    pool: tuple[str, ...] = GENERAL_TEMPLATES
    if rng.random() < OWN_TEMPLATE:
        pool = family.also if family.also and rng.random() < OTHER_CODE else (family.template,)
    template = pool[int(rng.integers(len(pool)))]
    return Caption(template.format(family.phrase(values, form)), family.stated(form))


def every_caption(family: Family, tuples: list[Values]) -> Iterator[str]:
    """Every text that :func:`draw` can give for these tuples, placeholders left out."""
    for form in range(len(family.phrases)):
        for values in tuples:
            phrase = family.phrase(values, form)
            yield from (template.format(phrase) for template in templates(family))


def truth(
    families: npt.NDArray[np.int64], values: npt.NDArray[np.int64], stated: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which caption is true of which picture.

    Args:
        families: (B,) index of the family.
        values: (B, 3) index of each factor's value.
        stated: (B, 3) whether the caption states the factor.

    Returns:
        (B, B), rows pictures, columns captions: same family, and all that the caption states holds for the picture.
    """
    agree = (values[:, None, :] == values[None, :, :]) | ~stated[None, :, :]
    return (families[:, None] == families[None, :]) & agree.all(-1)


def value_index(family: Family, values: Values) -> tuple[int, ...]:
    """The place of each value in its factor's list."""
    return tuple(family.factors[f].index(v) for f, v in zip(family.factors, values, strict=True))


UNKNOWN = ("promptsrc", "tcp")  # sets with words that mini does not know: there data bring a template of their own


def template_sets() -> set[str]:
    """Every template of every other named set: recipes may use any of them on any dataset of the suite."""
    found: set[str] = set()
    for path in sorted((resources.configs_dir() / "templates").glob("*.yaml")):
        if path.stem in UNKNOWN:
            continue
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        found.update(data["default"])
        found.update(template for templates in data["templates"].values() for template in templates)
    return found


def prompts(classnames: Mapping[Family, Sequence[str]]) -> list[str]:
    """Every text that prompts of these classes, the shared templates and the default contexts need."""
    shared = [*GENERAL_TEMPLATES, *sorted(template_sets())]
    out = [DEFAULT_CONTEXT, PLACEHOLDER, PLACEHOLDER.upper(), ".", ",", *(t.replace("{}", " ") for t in shared)]
    for family, names in classnames.items():
        for template in templates(family):
            out += [template.format(name) for name in names]
    return out
