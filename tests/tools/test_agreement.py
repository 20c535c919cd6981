"""Bounds on the differences from official code: of rows that are written, and of those that stand in the page."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tools.agreement import compare, page
from tools.agreement.bounds import BOUNDS, COLUMNS, Wider, check, in_words
from tools.agreement.compare import Measured

WIDER = {"gradients": Wider(1e-2, "they are drawn")}


def wider_of(recipe: str) -> dict[str, Wider]:
    """What the script of a recipe states."""
    return getattr(importlib.import_module(f"tools.agreement.{recipe}"), "WIDER", {})


def measured(**differences: float) -> Measured:
    """As of a run with differences of a tensor of ones, by kind."""
    found = Measured()
    for kind, difference in differences.items():
        found.see(kind, torch.ones(3, dtype=torch.float64) + difference, torch.ones(3))
    return found


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the page, which is written instead."""
    path = tmp_path / "agreement.md"
    path.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", path)
    return path


@pytest.fixture
def write(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script with `--write`, with given differences; it needs no checkout."""
    monkeypatch.setattr(sys, "argv", ["script", "--official", "nowhere", "--write"])
    monkeypatch.setattr(compare, "commit_of", lambda folder: "0123abc")

    def written(wider: dict[str, Wider] | None = None, **differences: float) -> None:
        compare.run("kgcoop", "htyao89/KgCoOp", "none", lambda *_: measured(**differences), wider=wider or {})

    return written


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_row_within_the_bounds_is_written(kind: str, write: Callable[..., None]) -> None:
    before = page.rows()
    write(**{kind: BOUNDS[kind] / 2})
    after = page.rows()
    assert after.pop("kgcoop").endswith("| htyao89/KgCoOp@0123abc | none |")
    assert after == {name: row for name, row in before.items() if name != "kgcoop"}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("times", [2, float("nan"), float("inf")])
def test_a_row_outside_is_refused(kind: str, times: float, write: Callable[..., None], copy: Path) -> None:
    before = copy.read_bytes()
    with pytest.raises(SystemExit) as refused:
        write(**dict.fromkeys(COLUMNS, 1e-7) | {kind: times * BOUNDS[kind]})
    value = f"{times * BOUNDS[kind]:.1e}" if times == 2 else "inf"
    expected = f"'kgcoop' is too far from the official code for its row: {COLUMNS[kind]} {value}, bounded by "
    assert refused.value.code == f"{expected}{BOUNDS[kind]:.1e}"  # a text: exit status 1
    assert copy.read_bytes() == before


def test_the_worst_of_several_runs_counts() -> None:
    found = measured(logits=1e-7)
    found.join(measured(logits=float("nan")))
    found.join(measured(logits=1e-7))
    with pytest.raises(SystemExit, match="logits inf"):
        check("kgcoop", found.largest, {})


def test_a_wider_bound_is_kept_and_stands_in_the_row(write: Callable[..., None]) -> None:
    write(WIDER, gradients=5e-3)
    assert page.rows()["kgcoop"].endswith("| none; gradients bounded by 1.0e-02: they are drawn |")
    with pytest.raises(SystemExit, match=r"gradients 2\.0e-02, bounded by 1\.0e-02"):
        write(WIDER, gradients=2e-2)


def test_the_page_states_the_bounds_and_a_script_writes_them(write: Callable[..., None], copy: Path) -> None:
    text = copy.read_text(encoding="utf-8")
    assert f"\n{page.bounds_row()}\n" in text
    copy.write_text(text.replace(page.bounds_row(), "| bound | 1 | 1 | 1 | 1 | 1 | 1 |"), encoding="utf-8")
    write(logits=1e-7)
    assert f"\n{page.bounds_row()}\n" in copy.read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", sorted(page.rows()))
def test_the_row_in_the_page_lies_within_its_bounds(recipe: str) -> None:
    row, wider = page.rows()[recipe], wider_of(recipe)
    numbers = page.numbers_of(row)
    assert numbers, "nothing is compared"
    check(recipe, numbers, wider)
    assert row.endswith(f"{'; '.join(in_words(wider))} |")
    assert row.count(" bounded by ") == len(wider)
    assert all(numbers[kind] > BOUNDS[kind] for kind in wider), "a wider bound that the row does not need"
