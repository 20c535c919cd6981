"""Prompts as data: the token sequences of a class list, cut at the end of text, with what they have in common.

A sequence holds token ids; an id at or above the vocabulary size names a row of the `extra` matrix that is given to
`encode_text`, which is how learned context enters. Class-specific context is just other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from clipbench.errors import BackboneError

ROW_LENGTH = 32  # measured best of 16 ... 256 (positions of one packed row); longer suffixes make longer rows


class PromptPlan:
    """What the text tower runs on for one class list; pure data, made once per list.

    Args:
        sequences: per class the ids from start of text to end of text, no padding.
        row_length: positions of a packed row; rows are as long as the longest suffix if that is longer.

    Attributes:
        sequences: the same, as tuples.
        prefix: number of leading ids that all classes share; at least one id of each class is left out of it.

    Raises:
        BackboneError: no class, or a class without a token.

    Example:
        >>> PromptPlan([[9, 1, 2, 8], [9, 1, 3, 4, 8]]).prefix
        2
    """

    def __init__(self, sequences: Sequence[Sequence[int]], row_length: int = ROW_LENGTH) -> None:
        self.sequences = tuple(tuple(int(token) for token in sequence) for sequence in sequences)
        self.row_length = int(row_length)
        if not self.sequences:
            raise BackboneError("a prompt plan needs at least one class")
        for index, sequence in enumerate(self.sequences):
            if not sequence or min(sequence) < 0:
                raise BackboneError(f"class {index} of the prompt plan has no tokens, or a negative one")
        self.prefix = _common_prefix(self.sequences)
        self._derived: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.sequences)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptPlan) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        tokens = sum(map(len, self.sequences))
        return f"PromptPlan({len(self)} classes, {tokens} tokens, shared prefix of {self.prefix})"

    def __getstate__(self) -> dict[str, Any]:
        return {"sequences": self.sequences, "row_length": self.row_length, "prefix": self.prefix, "_derived": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptPlan:
        return self

    @property
    def _identity(self) -> tuple[Any, ...]:
        return self.sequences, self.row_length

    def parts(self, classes: int) -> list[PromptPlan]:
        """The plan in pieces of at most so many classes, in order; made once."""

        def cut() -> list[PromptPlan]:
            starts = range(0, len(self), classes)
            return [PromptPlan(self.sequences[i : i + classes], self.row_length) for i in starts]

        return [self] if len(self) <= classes else self.derived(("parts", classes), cut)

    def derived(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What a tower derives from the plan (layouts, index tensors), made once and kept with the plan."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]


def _common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    """Length of the longest common head that leaves every sequence at least its last token."""
    limit = min(map(len, sequences)) - 1
    # the smallest and the largest sequence differ first where any two do
    low, high = min(sequences), max(sequences)
    return next((i for i in range(limit) if low[i] != high[i]), limit)
