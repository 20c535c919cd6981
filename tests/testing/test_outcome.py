"""What the conformance suite asks of any record refuses numbers that do not fit together."""

from __future__ import annotations

import re

import pytest

from clipbench.recipes.recipe import Recipe
from clipbench.records.cell import Record
from clipbench.testing.outcome import refuse_joint_above_half, refuse_unsaid_validation
from tests.records.records import cell, joint, record


def test_joint_counts_are_never_above_those_of_the_half() -> None:
    refuse_joint_above_half(Record(record(joint=joint())))
    refuse_joint_above_half(Record(record(no_joint="a reason")))
    refuse_joint_above_half(Record(record(cell(protocol="few_shot"))))
    with pytest.raises(AssertionError, match="no joint, and no reason"):
        refuse_joint_above_half(Record(record()))
    with pytest.raises(AssertionError, match="31 base images are right among all classes, 30 among those of base"):
        refuse_joint_above_half(Record(record(joint=joint(base=31))))
    with pytest.raises(AssertionError, match="a pair is won only where both images are right"):
        refuse_joint_above_half(Record(record(joint=joint(pairs=(601, 0, 1600)))))


@pytest.mark.parametrize(("looked", "said"), [(8, {}), (0, {"validation": "C"})])
def test_what_a_fit_looks_at_stands_in_its_recipe(looked: int, said: dict[str, str]) -> None:
    of = Record(record(provenance={"val_images": looked}, validation_free=not looked))
    refuse_unsaid_validation(of, Recipe("mine", {}, (), {} if said else {"validation": "C"}))
    with pytest.raises(AssertionError, match=re.escape("`validation:`")):
        refuse_unsaid_validation(of, Recipe("mine", {}, (), said))
