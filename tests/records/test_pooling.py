"""OpenworldAUC over the pairs of several seeds, against the definition on hand-made counts."""

from __future__ import annotations

from typing import Any

import pytest

from clipbench.errors import RecordError
from clipbench.records.cell import Record
from clipbench.records.pooling import pooled_openworld_auc
from tests.records.records import cell, joint, record


def of_seed(seed: int, pairs: tuple[int, int, int], **identity: Any) -> Record:
    return Record(record(cell(seed=seed, **identity), joint=joint(pairs=pairs)))


def test_pairs_of_all_seeds_count_alike() -> None:
    records = [of_seed(1, (300, 100, 1600)), of_seed(2, (10, 0, 40))]  # another split may have fewer images
    assert pooled_openworld_auc(records) == pytest.approx(100 * (310 + 50) / 1640)
    assert pooled_openworld_auc(records[:1]) == records[0].joint()["openworld_auc"] == 100 * 350 / 1600


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "no record"),
        ([of_seed(1, (1, 0, 4)), of_seed(1, (1, 0, 4), dataset="eurosat")], "not of 2"),
        ([Record(record())], "from before they were kept"),
        ([Record(record(no_joint="1 class names stand in both halves"))], "stand in both halves"),
    ],
)
def test_what_cannot_be_pooled_is_one_sentence(records: list[Record], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        pooled_openworld_auc(records)
