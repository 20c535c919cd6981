"""Numbers that must not move unless a version is raised: the content key of every record rests on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipbench.bench.recipe import known_recipes
from clipbench.testing.golden import golden_numbers
from tests.methods.make_golden import CASES

# a gate or a freezing that turns on rounding moves the logits by more than rounding
DECIDING = (
    "mft",
    "clipfit_mft",
    "amt",
    "ramt",
    "fisher_adaptune",
    "fisher_adaptune_faithful",
    "clipfit with FisherFreezing",
)
STORED = json.loads(Path(__file__).with_name("golden.json").read_text())


def test_every_recipe_has_golden_numbers() -> None:
    assert sorted(STORED) == sorted(CASES)
    assert set(known_recipes()) <= set(CASES)


@pytest.mark.parametrize("name", sorted(STORED))
def test_numbers_move_only_with_a_version(name: str, tmp_path: Path) -> None:
    recipe, extra = CASES[name]
    now, stored = golden_numbers(recipe, tmp_path, extra), STORED[name]
    assert now["versions"] == stored["versions"], "a version was raised: run `make golden` and look at the diff"
    assert now["losses"] == pytest.approx(stored["losses"], rel=1e-3, abs=1e-5)
    assert now["moved"] == pytest.approx(stored["moved"], rel=2e-3)
    allowed = 5e-2 if name in DECIDING else 2e-3
    for split, rows in stored["logits"].items():
        for ours, theirs in zip(now["logits"][split], rows, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=allowed)
