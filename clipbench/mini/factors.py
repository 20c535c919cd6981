"""What a family is: factors, their values, and how a tuple of values is put into words."""

from __future__ import annotations

import itertools
import string
from dataclasses import dataclass

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

Values = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Family:
    """One family of images.

    Attributes:
        name: what the renderer draws, e.g. ``things``.
        key: file name of the card, by the role it plays, e.g. ``imagenet``.
        factors: factor name to its values, in the order of a tuple.
        phrases: six wordings; the first is the class name, the second states every factor too.
        template: how a class name becomes a prompt.
        also: other templates met in few-shot code for the dataset this family stands for.
        classes: number of held-out tuples, an even number; half base, half novel.
        reserved: factor values kept for the novel half (pretraining does see them).
    """

    name: str
    key: str
    factors: dict[str, Values]
    phrases: tuple[str, ...]
    template: str
    also: tuple[str, ...]
    classes: int
    reserved: dict[str, Values]

    def grid(self) -> list[Values]:
        """All tuples of factor values, in lexicographic order of the value lists."""
        return list(itertools.product(*self.factors.values()))

    def phrase(self, values: Values, form: int = 0) -> str:
        """The words for a tuple, e.g. ``striped red star``; ``form`` picks the wording (0: the class name)."""
        return self.phrases[form].format(**dict(zip(self.factors, values, strict=True)))

    def stated(self, form: int) -> tuple[bool, ...]:
        """For each factor, whether wording ``form`` states it."""
        names = {field for _, field, _, _ in string.Formatter().parse(self.phrases[form])}
        return tuple(factor in names for factor in self.factors)

    def colour_factors(self) -> tuple[bool, ...]:
        """For each factor, whether raw pixels show it as a plain colour, without any reading of shape."""
        return tuple(factor in ("colour", "center", "tail", "sky", "ground", "land") for factor in self.factors)
