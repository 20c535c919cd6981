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
# A package may import itself and packages of a lower rank, so there is no circle; types count like any other import.
# `tools` is outside the package: it may import all of it, and nothing of it imports `tools`.
RANK = {
    **dict.fromkeys(["errors", "regular_files", "schemas"], 0),
    **dict.fromkeys(
        ["argument_types", "atomic", "json_files", "printable", "randomness", "resources", "yaml_files"], 1
    ),
    **dict.fromkeys(["mini", "protocols"], 2),
    **dict.fromkeys(["backbone", "records"], 3),
    "data": 4,
    **dict.fromkeys(["recipes", "tuning"], 5),
    "methods": 6,
    "report": 7,
    "bench": 8,
    **dict.fromkeys(["analysis", "testing"], 9),
    "commands": 10,
    "__main__": 11,
    "tools": 12,
}
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


def imported(tree: ast.AST, types: bool) -> Iterator[str]:
    """What is imported, at once or in functions; with `types` also what only types need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types:
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
            yield from imported(node, types)


@cache
def imports_of(module: str, types: bool = True) -> frozenset[str]:
    return frozenset(imported(ast.parse(modules()[module].read_text(encoding="utf-8")), types))


def own(module: str, types: bool = True) -> set[str]:
    """What a module imports of this repository."""
    names = imports_of(module, types)
    return {name for name in names if name.split(".")[0] in ("clipbench", "tools", "tests") and room(name)}


def modules_of(*rooms: str) -> list[str]:
    return [module for module in modules() if room(module) in rooms]


@pytest.mark.parametrize("module", [name for name in modules() if room(name)])
def test_nothing_imports_upward(module: str) -> None:
    here = room(module)
    assert here in RANK, f"{here} is no package of the design: say in test_imports.py where it stands"
    for name in own(module):
        there = room(name)
        if here != there:
            assert there in RANK, f"{module} imports {name}"
            assert RANK[there] < RANK[here], f"{module} imports {name}"


@pytest.mark.parametrize("module", modules_of("recipes", "records", "report", "mini", "protocols"))
def test_no_torch_where_none_belongs(module: str) -> None:
    heavy = {name for name in imports_of(module) if name.split(".")[0] in HEAVY}
    assert not heavy, f"{module} imports {heavy}"


@pytest.mark.parametrize("module", modules_of("data"))
def test_data_ask_the_backbone_only_how_images_are_prepared(module: str) -> None:
    asked = {name for name in own(module) if room(name) == "backbone"}
    assert asked <= {"clipbench.backbone.spec"}, f"{module} imports {asked}"


@pytest.mark.parametrize("module", modules_of("recipes"))
def test_recipes_ask_data_only_for_cards(module: str) -> None:
    asked = {name for name in own(module) if room(name) == "data"}
    assert asked <= {"clipbench.data.cards"}, f"{module} imports {asked}"


@pytest.mark.parametrize("module", modules_of("protocols"))
def test_protocols_know_of_nothing_but_labels(module: str) -> None:
    others = {name for name in own(module) if room(name) not in ("protocols", "errors")}
    assert not others, f"{module} imports {others}"


def test_the_package_itself_does_not_need_tools() -> None:
    assert not [name for name in imports_of("clipbench") if name.split(".")[0] == "tools"]


@pytest.mark.parametrize("module", modules_of("report"))
def test_the_report_reads_records_only(module: str) -> None:
    others = {name for name in own(module, types=False) if room(name) not in GROUND | {"report", "records"}}
    assert not others, f"{module} imports {others}"


# beside whole packages: recipes, records, report, commands, mini, protocols
LIGHT = [
    "clipbench.backbone.names",
    "clipbench.backbone.spec",
    "clipbench.data.cards",
    "clipbench.data.draw",
    "clipbench.data.preprocessing",
    "clipbench.data.readers",
    "clipbench.data.status",
    "clipbench.data.task",
    "clipbench.data.templates",
    "clipbench.methods",
]


def test_what_must_start_fast_does_not_import_torch() -> None:
    assert set(LIGHT) <= modules().keys()
    light = [*LIGHT, *modules_of("recipes", "records", "report", "commands", "mini", "protocols")]
    code = f"import sys, {', '.join(light)}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
