"""A cell, its content key and its outcome, as plain data without files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbench.errors import ConfigError, RecordError
from clipbench.printable import printable

TIMINGS = ("seconds_per_step", "train_seconds", "test_seconds", "total_seconds", "peak_bytes", "inference_overhead")


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """One run: what is asked, before anything is computed. `shots` per class; `setting` is `paper` or `fixed`."""

    suite: str
    dataset: str
    recipe: str
    backbone: str
    protocol: str
    setting: str
    shots: int
    seed: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        """The cell of a record's `cell` object."""
        return cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})

    def as_dict(self) -> dict[str, Any]:
        """The `cell` object of a record."""
        return dataclasses.asdict(self)

    def check_names(self) -> None:
        """Refuse, before anything is computed, a name that no record could keep.

        Raises:
            ConfigError: a name is empty or not Unicode, as that of a file may be.
        """
        for field, value in self.as_dict().items():
            if value == "":
                raise ConfigError(f"the {field} of a cell has an empty name: no record could keep it")
            if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ConfigError(
                    f"{field} '{printable(value)}' is no UTF-8: no record could keep that name, change it"
                )

    @property
    def name(self) -> str:
        """Readable and safe in a file name, also one with a key and a suffix; unique only together with the key."""
        text = f"{self.recipe}-{self.dataset}-s{self.shots}-seed{self.seed}"
        return re.sub(r"[^A-Za-z0-9._+-]", "_", text).lstrip(".")[:200]

    def __str__(self) -> str:
        return f"{self.recipe} on {self.dataset}, {self.shots} shots, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class Record:
    """A thin typed view of a record's JSON.

    Attributes:
        data: the JSON.
        path: its file.
        variant: of the row that it counts in, as a table names it; "" for the packaged settings.
    """

    data: dict[str, Any]
    path: Path | None = None
    variant: str = ""

    @property
    def ok(self) -> bool:
        """Whether the cell ended well."""
        return self.data["status"] == "ok"

    @property
    def key(self) -> str:
        """The content key: SHA-256 of everything that determines the outcome."""
        return self.data["key"]

    @functools.cached_property
    def cell(self) -> Cell:
        """The cell's identity."""
        return Cell.from_dict(self.data["cell"])

    @property
    def method(self) -> str:
        """The class name of the method."""
        return self.data["method"]

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """By name of the test split: counts, number of classes, whether trained, novel rule, bitmap."""
        return self.data["splits"]

    @property
    def measured(self) -> list[str]:
        """The datasets that it has an accuracy of: that of the cell, or under cross_dataset its targets."""
        if self.cell.protocol != "cross_dataset":
            return [self.cell.dataset]
        return [name for name in self.splits if name != "source"]

    @property
    def cost(self) -> dict[str, Any]:
        """Parameters, bytes and seconds."""
        return self.data["cost"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Hashes, seeds, precision and versions of the numeric path."""
        return self.data["provenance"]

    @property
    def error(self) -> str | None:
        """The failure in one line, or None."""
        return f"{self.data['error']['type']}: {self.data['error']['message']}" if self.data["error"] else None

    @property
    def finished(self) -> str:
        """When the cell ended (ISO 8601), empty when unknown."""
        return str(self.data["environment"].get("finished", ""))

    @property
    def validation_free(self) -> bool | None:
        """Whether no setting was chosen by looking at labelled images beyond the shots; None where it is not known."""
        return self.data.get("validation_free")

    def accuracy(self, split: str) -> float:
        """Accuracy on a test split in percent, unrounded."""
        return 100.0 * self.splits[split]["correct"] / self.splits[split]["total"]

    def joint(self) -> dict[str, float]:
        """`joint_base`, `joint_novel` and `openworld_auc` in percent, unrounded; empty where none were measured."""
        if "joint" not in self.data:
            return {}
        joint = self.data["joint"]
        pairs = joint["pairs"]
        halves = {f"joint_{half}": 100.0 * joint[half]["correct"] / joint[half]["total"] for half in ("base", "novel")}
        return {**halves, "openworld_auc": 100.0 * (pairs["won"] + pairs["tied"] / 2) / pairs["total"]}


def content_key(determines: Mapping[str, Any]) -> str:
    """SHA-256 of everything that determines an outcome, in canonical JSON (sorted keys, shortest exact floats).

    Args:
        determines: plain data; keys are strings. 1 and 1.0 give different keys.

    Returns:
        64 hexadecimal digits, equal on every machine and Python version.

    Raises:
        RecordError: something is not plain data, or not finite.
    """
    try:
        text = json.dumps(determines, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"a content key needs finite plain data: {error}") from error
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def comparable(record: Mapping[str, Any] | Record) -> dict[str, Any]:
    """What must be equal when the same cell is run twice: the record without times, memory and environment."""
    data = record.data if isinstance(record, Record) else record
    kept = {name: value for name, value in data.items() if name != "environment"}
    kept["cost"] = {name: value for name, value in data["cost"].items() if name not in TIMINGS}
    return kept
