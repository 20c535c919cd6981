"""What a plan holds: cells with all that is needed to run them, and how long that will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbench.errors import ConfigError
from clipbench.recipes.recipe import Config
from clipbench.recipes.request import Request
from clipbench.records.store import Cell, RecordStore

NO_WEIGHTS = "whether it is done shows with the weights of its backbone, which are not on this machine"


@dataclass(frozen=True)
class PlannedCell:
    """A cell with everything needed to run it in any process.

    Attributes:
        cell: its identity.
        key: its content key.
        config: the merged config.
        resolved: the config with every default, for the record.
        provenance: hashes and names that stand in the record.
        undone: why it has to be run; None when it is done.
        start: the cell that has to be run before, since this one begins from its learned weights.
        beside: keys of records of the same training that were measured on other targets (`bench/transfers.py`).
    """

    cell: Cell
    key: str
    config: Config = field(hash=False)
    resolved: Config = field(hash=False)
    provenance: dict[str, Any] = field(hash=False)
    undone: str | None
    start: PlannedCell | None = None
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """The cells of a request and those that they start from, in running order, and where their records lie.

    Attributes:
        request: what was asked for.
        folder: the run folder.
        cells: all of them.
        absent: the backbones whose weights are not on this machine; the keys of their cells are not known yet.
    """

    request: Request
    folder: Path
    cells: list[PlannedCell]
    absent: tuple[str, ...] = ()

    @property
    def to_run(self) -> list[PlannedCell]:
        """The cells without a valid record."""
        return [planned for planned in self.cells if planned.undone is not None]

    @property
    def others(self) -> list[PlannedCell]:
        """The cells of recipes that were not asked for: others start from them."""
        asked = {recipe.name for recipe in self.request.recipes}
        return [planned for planned in self.cells if planned.cell.recipe not in asked]


def absent_weights(backbones: Iterable[str]) -> str:
    """The sentence for weights that are not on this machine, or that a name does not say."""
    from clipbench.backbone.spec import refuse_untagged, resolve_spec

    lines = []
    for name in backbones:
        line = (
            f"the weights of backbone '{name}' are not on this machine (a bench fetches them where there is a network)"
        )
        try:
            refuse_untagged(resolve_spec(name))
        except ConfigError as error:
            line = str(error)
        lines.append(line)
    return "\n".join(lines)


def estimate(plan: Plan) -> float | None:
    """Seconds of one process for the undone cells, from the records of the same recipe there are; None without any.

    Those of the same dataset and number of shots count where there are some, else those as near as there are.
    """
    known: dict[tuple[str, str, int], list[float]] = {}
    for record in RecordStore(plan.folder).all():
        if record.ok and record.cost.get("total_seconds"):
            place = (record.cell.recipe, record.cell.dataset, record.cell.shots)
            known.setdefault(place, []).append(record.cost["total_seconds"])
    total = 0.0
    for planned in plan.to_run:
        cell = planned.cell
        own = [(place, seconds) for place, seconds in known.items() if place[0] == cell.recipe]
        alike = [(place, seconds) for place, seconds in own if place[2] == cell.shots] or own
        same = [(place, seconds) for place, seconds in alike if place[1] == cell.dataset] or alike
        times = [second for _, seconds in same for second in seconds]
        if not times:
            return None
        total += sorted(times)[len(times) // 2]
    return total
