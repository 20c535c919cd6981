"""The papers' rows through our aggregator must give the papers' averages; what does not is known by name."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import yaml

from clipbench.report import published
from clipbench.report.aggregate import aggregate, rows_of
from clipbench.report.published import KEYS, Deviation, deviations, published_frame, read_errata, read_published
from clipbench.resources import configs_dir, published_dir

ELEVEN = set(KEYS.values())


def rows_by_method(table: str) -> dict[tuple[str, int], dict[str, published.Published]]:
    methods: dict[tuple[str, int], dict[str, published.Published]] = {}
    for row in read_published(table):
        methods.setdefault((row.method, row.shots), {})[row.dataset] = row
    return methods


@pytest.mark.parametrize(("table", "complete"), [("base_to_novel", 30), ("few_shot", 11), ("cross_dataset", 20)])
def test_aggregating_the_published_rows_gives_the_published_averages(table: str, complete: int) -> None:
    """Straight through the aggregator, without the code that reads and reports deviations."""
    errata = {(erratum.method, erratum.column) for erratum in read_errata() if erratum.dataset == "average"}
    whole = ELEVEN - {"imagenet"} if table == "cross_dataset" else ELEVEN
    sets = {key: rows for key, rows in rows_by_method(table).items() if set(rows) >= whole}
    assert len(sets) == complete
    for (method, shots), rows in sets.items():
        cells = [published._cell(table, shots, rows[name]) for name in KEYS.values() if name in rows]
        average = rows_of(aggregate(cells, datasets={"clip11": list(KEYS.values())}))[-1]
        printed = rows.get("average")
        if printed is None:
            continue  # plot++ prints no average
        for column, tolerance in (("base", 0.011), ("novel", 0.011), ("h", 0.015)):
            if (method, column) not in errata and not math.isnan(getattr(printed, column)):
                own = average["accuracy" if table in published.SINGLE else column]
                assert own == pytest.approx(getattr(printed, column), abs=tolerance + 1e-9), (
                    method,
                    column,
                )


def test_every_printed_h_follows_from_its_row_but_for_the_errata() -> None:
    known = {(erratum.method, erratum.dataset) for erratum in read_errata() if erratum.column == "h"}
    checked = 0
    for row in read_published("base_to_novel"):
        if (row.method, row.dataset) in known or math.isnan(row.base):
            continue
        assert abs(2 * row.base * row.novel / (row.base + row.novel) - row.h) <= 0.015 + 1e-9, row
        checked += 1
    assert checked > 400


def _same(erratum: published.Erratum, found: Deviation) -> bool:
    return erratum.stated == found.stated and abs(erratum.recomputed - found.recomputed) <= 0.0051


@pytest.mark.parametrize("table", published.TABLES)
def test_the_errata_are_exactly_what_recomputing_finds(table: str) -> None:
    found = {(d.method, d.dataset, d.column): d for d in deviations(table)}
    known = {(e.method, e.dataset, e.column): e for e in read_errata() if e.table == table and e.checked}
    assert set(found) - set(known) == set(), "a new erratum"
    assert set(known) - set(found) == set(), "an erratum vanished"
    for name, erratum in known.items():
        assert _same(erratum, found[name]), name
    if table == "base_to_novel":
        assert {name for name, _, _ in known} == {
            "coop_rerun_by_dept", "promptkd", "promptsrc_dept", "mmrl", "rmadapter", "hpt", "rpo", "gda",
        }  # fmt: skip


def test_a_new_fault_in_the_tables_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row._replace(base=row.base + 0.5) if (row.method, row.dataset) == ("maple", "dtd") else row
        for row in read_published("base_to_novel")
    ]
    monkeypatch.setattr(published, "read_published", lambda table: tuple(rows))
    found = {(d.dataset, d.column) for d in deviations("base_to_novel") if d.method == "maple"}
    assert found == {("dtd", "h"), ("average", "base"), ("average", "h")}


def test_the_two_conventions_of_the_average_are_both_there() -> None:
    frame = published_frame("base_to_novel").set_index(["recipe", "dataset"])
    for method, of_averages, mean_of_h in (("clip_zs", 71.70, 71.59), ("coop", 71.66, 70.83), ("maple", 78.55, 78.27)):
        average = frame.loc[(method, "average")]
        assert round(float(average["h"]), 2) == of_averages
        assert round(float(average["h_mean"]), 2) == mean_of_h


def test_rows_that_are_not_comparable_say_why_and_stay_out_of_the_block() -> None:
    shown = set(published_frame("base_to_novel")["recipe"])
    for row in read_published("base_to_novel"):
        assert row.comparable or row.note, row.method
        assert (row.method in shown) == row.comparable, row.method
        if "rerun" in row.method or row.method.startswith("promptkd"):
            assert not row.comparable, row.method
    assert {"clip_zs", "coop", "promptsrc", "maple"} <= shown


def test_every_row_has_a_source_and_evidence() -> None:
    for table in published.TABLES:
        with open(published_dir() / f"{table}.csv", newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                assert line["source"]
                assert line["evidence"].startswith(("[code]", "[paper]", "[secondary]"))
                assert None not in line, "a comma that is not quoted"
                assert None not in line.values()


def test_the_readme_names_every_erratum_and_file() -> None:
    text = (published_dir() / "README.md").read_text(encoding="utf-8")
    for erratum in read_errata():
        assert erratum.method in text, erratum
    for path in published_dir().glob("*.csv"):
        assert path.name in text


def test_dataset_keys_are_those_of_the_suite_and_of_the_cards() -> None:
    suite = yaml.safe_load((configs_dir() / "suites" / "clip11.yaml").read_text(encoding="utf-8"))
    assert set(suite["datasets"]) == ELEVEN
    from clipbench.data.cards import load_card

    for name, key in KEYS.items():
        assert load_card(suite["datasets"][key]).published_name == name


@pytest.mark.parametrize("table", published.TABLES)
def test_the_carried_rows_are_the_collected_ones(table: str, shared: Path) -> None:
    with (
        open(shared / "published" / f"{table}.csv", newline="", encoding="utf-8") as theirs,
        open(published_dir() / f"{table}.csv", newline="", encoding="utf-8") as ours,
    ):
        carried = [{k: v for k, v in line.items() if k not in ("comparable", "note")} for line in csv.DictReader(ours)]
        assert carried == list(csv.DictReader(theirs))


def test_a_transfer_is_known_by_the_name_of_its_recipe_and_its_source_counts_in_no_average() -> None:
    frame = published_frame("cross_dataset")
    assert {"coop", "cocoop", "maple", "promptsrc", "kgcoop"} <= set(frame["recipe"])
    assert set(frame["dataset"]) == {*ELEVEN, "average"}
    coop = {row["dataset"]: row["accuracy"] for row in rows_of(frame) if row["recipe"] == "coop"}
    assert coop["imagenet"] == 71.51
    assert coop["average"] == pytest.approx(63.88, abs=0.01)  # as CoCoOp's table 5 has it
    shown = [row["accuracy"] for row in rows_of(frame) if row["dataset"] == "average"]
    assert shown == sorted(shown, reverse=True)
