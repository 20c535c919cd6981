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
# A package may import itself and packages of a lower rank; `data` asks `backbone` only what images are prepared for.
# `tools` is outside the package: it may import all of it, and nothing of it imports `tools`.
RANK = {
    "errors": 0,
    **dict.fromkeys(["atomic", "randomness", "resources"], 1),
    **dict.fromkeys(["mini", "protocols"], 2),
    "backbone": 3,
    "data": 4,
    "tuning": 5,
    "methods": 6,
    "report": 7,
    "bench": 8,
    **dict.fromkeys(["analysis", "testing"], 9),
    "cli": 10,
    "__main__": 11,
    "tools": 12,
}
RECORDS = "clipbench.bench.record"  # all that the report sees of the bench, which calls it when it is done
GROUND = {room for room, rank in RANK.items() if rank < 2}
HEAVY = {"torch", "torchvision", "lightning", "open_clip", "timm"}


@cache
def modules() -> dict[str, Path]:
    """Name to file of every module of the package and of tools."""
    names = {}
    for path in sorted([*(ROOT / "clipbench").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def room(module: str) -> str:
    """The first folder or file below `clipbench`, or `tools`; the package's own `__init__` has none."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "clipbench" else top


def imported(tree: ast.AST) -> Iterator[str]:
    """What is imported when the code runs, at once or in functions; never what only types need."""
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
        else:
            yield from imported(node)


@cache
def imports_of(module: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(modules()[module].read_text(encoding="utf-8"))))


def own(module: str) -> set[str]:
    """What a module imports of this repository."""
    return {name for name in imports_of(module) if name.split(".")[0] in ("clipbench", "tools", "tests") and room(name)}


@pytest.mark.parametrize("module", [name for name in modules() if room(name)])
def test_nothing_imports_upward(module: str) -> None:
    here = room(module)
    assert here in RANK, f"{here} is no room of the house: say in test_imports.py where it stands"
    for name in own(module):
        there = room(name)
        if here != there and (here, name) != ("report", RECORDS):
            assert there in RANK, f"{module} imports {name}"
            assert RANK[there] < RANK[here], f"{module} imports {name}"


def test_data_ask_the_backbone_only_how_images_are_prepared() -> None:
    for module in modules():
        if room(module) == "data":
            asked = {name for name in own(module) if room(name) == "backbone"}
            assert asked <= {"clipbench.backbone.spec"}, f"{module} imports {asked}"


def test_protocols_know_of_nothing_but_labels() -> None:
    for module in modules():
        if room(module) == "protocols":
            text = modules()[module].read_text(encoding="utf-8")
            others = {name for name in own(module) if room(name) not in ("protocols", "errors")}
            assert not others, f"{module} imports {others}"
            assert "TYPE_CHECKING" not in text, f"{module} names types of others"


def test_the_package_itself_does_not_need_tools() -> None:
    assert not [name for name in imports_of("clipbench") if name.split(".")[0] == "tools"]


def test_the_report_reads_records_only() -> None:
    for module in modules():
        if room(module) == "report":
            others = {name for name in own(module) if room(name) not in GROUND | {"report"}}
            assert others <= {RECORDS}, f"{module} imports {others}"


def test_mini_knows_no_torch() -> None:
    for module in modules():
        if room(module) == "mini":
            heavy = {name for name in imports_of(module) if name.split(".")[0] in HEAVY}
            assert not heavy, f"{module} imports {heavy}"


LIGHT = [
    "clipbench.cli",
    "clipbench.backbone.names",
    "clipbench.backbone.spec",
    "clipbench.bench.record",
    "clipbench.data.cards",
    "clipbench.data.draw",
    "clipbench.data.readers",
    "clipbench.data.preprocessing",
    "clipbench.data.status",
    "clipbench.data.task",
    "clipbench.data.templates",
    "clipbench.methods",
    "clipbench.protocols",
]


def test_what_must_start_fast_does_not_import_torch() -> None:
    present = [name for name in modules() if name in LIGHT or room(name) in ("mini", "report")]
    code = f"import sys, {', '.join(present)}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
