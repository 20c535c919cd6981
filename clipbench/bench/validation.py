"""Whether a cell is validation-free: no setting was chosen by looking at labelled images beyond the shots."""

from __future__ import annotations

from clipbench.bench.planned import PlannedCell
from clipbench.records.store import RecordStore


def validation_free(planned: PlannedCell, store: RecordStore, val_images: int) -> bool | None:
    """Whether nobody looked: not the fit, not who wrote the recipe's settings, and not where it starts from.

    What users choose themselves is not known here; an override in their own file may say it (`selected_on`).

    Args:
        planned: the cell; `selected_on` of its provenance are the settings that people chose on such images.
        store: where the record lies of the cell that this one starts from.
        val_images: how many of them the fit asked for.

    Returns:
        None where it starts from a file of learned weights, which does not say how it was made.
    """
    if val_images or planned.provenance.get("selected_on"):
        return False
    if planned.start is not None:
        before = store.find(planned.start.cell, planned.start.key)
        return before.validation_free if before is not None else None
    return None if "start" in planned.provenance else True
