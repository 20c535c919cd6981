"""Imports go one way, and what must start fast does not import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clipbench"
# A room may import itself and rooms of a lower rank; `data` and `backbone` stand beside each other.
RANK = {
    "errors": 0,
    **dict.fromkeys(["atomic", "randomness", "resources"], 1),
    **dict.fromkeys(["data", "backbone"], 2),
    "tuning": 3,
    "methods": 4,
    **dict.fromkeys(["protocols", "report"], 5),
    "bench": 6,
    **dict.fromkeys(["analysis", "mini", "testing"], 7),
    "cli": 8,
    "__main__": 9,
}
RECORDS = "clipbench.bench.record"  # all that the report sees of the bench, which calls it when it is done
GROUND = {room for room, rank in RANK.items() if rank < 2}
HEAVY = {"torch", "torchvision", "lightning", "open_clip", "timm"}


@cache
def modules() -> dict[str, Path]:
    """Name to file of every module of the package."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported(tree: ast.AST, nested: bool) -> Iterator[str]:
    """What is imported when the code runs: at once, or (nested) in functions as well; never what only types need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in inner if name in modules()]
            yield from known
            if len(known) < len(inner):
                yield node.module
        elif nested or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported(node, nested)


@cache
def imports_of(module: str, nested: bool = True) -> frozenset[str]:
    return frozenset(imported(ast.parse(modules()[module].read_text(encoding="utf-8")), nested))


def own(module: str) -> set[str]:
    return {name for name in imports_of(module) if name.startswith("clipbench.")}


@cache
def lower_mini() -> frozenset[str]:
    """The modules of `mini` that `data` and `backbone` stand on."""
    reached = {name for module in modules() if room(module) in ("data", "backbone") for name in own(module)}
    waiting = [name for name in reached if room(name) == "mini"]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in modules() and name not in found:
            found.add(name)
            waiting += [inner for inner in own(name) if room(inner) == "mini"]
    return frozenset(found)


@pytest.mark.parametrize("module", [name for name in modules() if room(name)])
def test_nothing_imports_upward(module: str) -> None:
    here = room(module)
    assert here in RANK, f"{here} is no room of the house: say in test_imports.py where it stands"
    for name in own(module):
        there = room(name)
        if module in lower_mini():
            assert there in GROUND | {"mini"}, f"{module} is under data and backbone, and imports {name}"
        elif here != there and (here, name) != ("report", RECORDS) and name not in lower_mini():
            assert RANK[there] < RANK[here], f"{module} imports {name}"


def test_the_report_reads_records_only() -> None:
    for module in modules():
        if room(module) == "report":
            others = {name for name in own(module) if room(name) not in GROUND | {"report"}}
            assert others <= {RECORDS}, f"{module} imports {others}"


def test_the_lower_half_of_mini_knows_no_torch() -> None:
    for module in sorted(lower_mini()):
        heavy = {name for name in imports_of(module, nested=False) if name.split(".")[0] in HEAVY}
        assert not heavy, f"{module} imports {heavy}"


LIGHT = [
    "clipbench.cli",
    "clipbench.backbone.names",
    "clipbench.backbone.spec",
    "clipbench.bench.record",
    "clipbench.data.cards",
    "clipbench.data.draw",
    "clipbench.data.readers",
    "clipbench.data.status",
    "clipbench.data.templates",
    "clipbench.methods",
    "clipbench.mini.render",
]


def test_what_must_start_fast_does_not_import_torch() -> None:
    present = [name for name in modules() if name in LIGHT or room(name) == "report"]
    code = f"import sys, {', '.join(present)}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
