"""Counts of several records of one row taken together: OpenworldAUC over the pairs of all seeds."""

from __future__ import annotations

from collections.abc import Iterable

from clipbench.errors import RecordError
from clipbench.records.cell import Record


def pooled_openworld_auc(records: Iterable[Record]) -> float:
    """OpenworldAUC in percent over the pairs of several records of one recipe and dataset, as one test run of them all.

    Pairs are of images that one model has seen: a base image of one seed is never paired with a novel one of another.

    Args:
        records: of different seeds.

    Raises:
        RecordError: there is none, one has no pairs, or they are of several recipes or datasets.
    """
    records = list(records)
    if not records:
        raise RecordError("there is no record to pool pairs of")
    kinds = {(record.cell.suite, record.cell.dataset, record.cell.recipe) for record in records}
    if len(kinds) > 1:
        raise RecordError(f"pairs are pooled over seeds of one recipe and dataset, not of {len(kinds)}")
    for record in records:
        if "joint" not in record.data:
            why = record.data.get("no_joint", "its protocol has no base and novel, or it is from before they were kept")
            raise RecordError(f"the record of {record.cell} has no pairs: {why}")
    pairs = [record.data["joint"]["pairs"] for record in records]
    won, tied, total = (sum(one[name] for one in pairs) for name in ("won", "tied", "total"))
    return 100 * (won + tied / 2) / total
