"""Which classes are trained on and which are tested."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.errors import UnknownName
from clipbench.protocols import known_protocols, protocol


@given(st.integers(2, 400))
def test_base_is_the_first_half_rounded_up(classes: int) -> None:
    train, tests = protocol("base_to_novel").divide(range(classes))
    assert train == tests["base"] == list(range(-(-classes // 2)))
    assert tests["base"] + tests["novel"] == list(range(classes))


@given(st.permutations(range(7)))
def test_halves_do_not_depend_on_the_order_of_labels(labels: list[int]) -> None:
    assert protocol("base_to_novel").divide(labels) == protocol("base_to_novel").divide(range(7))


def test_few_shot_trains_and_tests_all_classes() -> None:
    assert protocol("few_shot").divide(range(5)) == ([0, 1, 2, 3, 4], {"all": [0, 1, 2, 3, 4]})


def test_cross_dataset_trains_on_all_classes_of_its_source() -> None:
    transfer = protocol("cross_dataset")
    assert transfer.divide([2, 0, 1]) == ([0, 1, 2], {"source": [0, 1, 2]})
    assert [name for name in known_protocols() if protocol(name).has_targets] == ["cross_dataset"]


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'few_shot'"):
        protocol("fewshot")
    assert known_protocols() == ["base_to_novel", "few_shot", "cross_dataset"]
