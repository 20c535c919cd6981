"""`clipbench show`: what a recipe trains, what a record says was computed, what a recipe would compute."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbench.commands.list import columns
from clipbench.errors import ConfigError
from clipbench.printable import printable

OPTIONS = {
    "params": ("config", "backbone", "set"),
    "record": ("datasets", "seeds"),
    "recipe": ("config", "suite", "dataset", "shots", "seed", "protocol", "backbone", "setting", "set"),
}


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser(
        "show", help="what a recipe trains, what a record says, what a recipe would compute",
        epilog="params NAME: what a recipe trains, by tower and kind. record FILE: what was computed; of a file of "
        "several those of --datasets and --seeds. recipe NAME: every setting of a cell, and where it comes from.",
    )  # fmt: skip
    parser.add_argument("what", choices=[*OPTIONS])
    parser.add_argument("name", nargs="?", default=None, help="a packaged recipe or a YAML file; or a file of records")
    parser.add_argument("--config", default=None, help="the recipe, as NAME")
    parser.add_argument("--backbone", default=None, help="for example ViT-B-16/openai; its weights are not needed")
    parser.add_argument(
        "--set", action="append", default=None, metavar="KEY=VALUE", help="one setting, as model.rank=8"
    )
    parser.add_argument("--suite", default=None, help="of a cell: mini (default), clip11, or a YAML file")
    parser.add_argument("--dataset", default=None, help="of a cell: key of the suite (default: its first)")
    parser.add_argument("--shots", type=int, default=None, help="of a cell (default: 16)")
    parser.add_argument("--seed", type=int, default=None, help="of a cell (default: 1)")
    parser.add_argument(
        "--protocol", default=None, help="of a cell: base_to_novel (default), few_shot or cross_dataset"
    )
    parser.add_argument("--setting", default=None, choices=["paper", "fixed"], help="of a cell (default: paper)")
    parser.add_argument("--datasets", default=None, help="of a file of records: these, separated by commas")
    parser.add_argument("--seeds", default=None, help="of a file of records: these, separated by commas")
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it.

    Raises:
        ClipbenchError: a wrong recipe, setting or record, or a backbone that cannot do what the method needs.
    """
    for name in sorted({name for names in OPTIONS.values() for name in names} - set(OPTIONS[options.what])):
        if getattr(options, name) is not None:
            raise ConfigError(f"show {options.what} takes no --{name}")
    if options.what != "record":
        options.name = options.name or options.config
    if options.name is None:
        raise ConfigError(f"show {options.what} {'FILE' if options.what == 'record' else 'NAME'}: name what to show")
    return {"params": show_params, "record": show_record, "recipe": show_recipe}[options.what](options)


def show_params(options: argparse.Namespace) -> int:
    """Print what is trained.

    Raises:
        ClipbenchError: a wrong recipe or setting, or a backbone that cannot do what the method needs.
    """
    from clipbench.bench.trained_parameters import trained_by

    facts = trained_by(options.name, options.backbone, options.set or [])
    if options.format == "json":
        print(json.dumps(facts, indent=1))
        return 0
    if facts["parts"]:
        print(columns([row | {"parameters": f"{row['parameters']:,}"} for row in facts["parts"]]))
    print(lines_for(facts))
    return 0


def show_record(options: argparse.Namespace) -> int:
    """Print records.

    Raises:
        ClipbenchError: a damaged record, or none of the wanted cells.
    """
    from clipbench.recipes.request import requested_names
    from clipbench.records.packed import choose, read_records
    from clipbench.report.record_text import record_text, records_text

    path = Path(options.name)
    wanted = {name: requested_names(getattr(options, f"{name}s") or "") for name in ("dataset", "seed")}
    records = choose(read_records(path), path.name, wanted)
    if options.format == "json":
        data = [record.data for record in records]
        print(json.dumps(data[0] if len(data) == 1 else data, indent=1))
    else:
        print(record_text(records[0]) if len(records) == 1 else records_text(records))
    return 0


def show_recipe(options: argparse.Namespace) -> int:
    """Print the settings of a cell.

    Raises:
        ClipbenchError: a wrong recipe, suite, dataset or setting.
    """
    from clipbench.protocols.base import protocol
    from clipbench.recipes.origins import datasets_that_differ, settings_with_origins
    from clipbench.recipes.request import request_from
    from clipbench.recipes.suites import load_suite

    words = {
        "method": options.name, "suite": options.suite or "mini", "datasets": options.dataset or "", "jobs": None,
        "seeds": "1" if options.seed is None else str(options.seed), "config": [], "set": options.set or [],
        "shots": 16 if options.shots is None else options.shots, "protocol": options.protocol or "base_to_novel",
        "backbone": options.backbone, "setting": options.setting or "paper", "root": None,
    }  # fmt: skip
    if protocol(words["protocol"]).has_targets and words["datasets"] == load_suite(words["suite"]).source:
        words["datasets"] = ""  # what its cells train on needs no name
    request = request_from(argparse.Namespace(**words))
    if len(request.recipes) != 1 or len(request.datasets) > 1:
        raise ConfigError("show recipe takes one recipe and one dataset")
    recipe = request.recipes[0]
    sections = request.trained()
    dataset = next(iter(sections))
    from clipbench.backbone.spec import resolve_spec
    from clipbench.bench.build import resolved, with_precision
    from clipbench.recipes.cell_config import cell_config

    config = cell_config(request, recipe, dataset, sections[dataset], request.seeds[0])
    resolve_spec(config["model"]["init_args"]["backbone"])  # there is one of that name
    settings = settings_with_origins(request, recipe, dataset, resolved(with_precision(config)))
    others = datasets_that_differ(request, recipe, dataset)
    cell = {
        "recipe": recipe.name, "suite": request.suite.name, "dataset": dataset, "protocol": request.protocol,
        "shots": request.shots, "seed": request.seeds[0], "setting": request.setting,
    }  # fmt: skip
    if options.format == "json":
        names = ("setting", "value", "from", "source")
        rows = [dict(zip(names, one, strict=True)) for one in settings]
        print(json.dumps(cell | {"settings": rows, "other_settings_on": others}, indent=1))
        return 0
    shown = [
        {"setting": one.name, "value": printable(_text(one.value)), "from": printable(one.origin)}
        for one in settings
        if one.value is not None and (one.origin != "default" or not one.name.startswith("trainer."))
    ]
    print(printable(", ".join(f"{name} {value}" for name, value in cell.items())))
    print(columns(shown))
    print("what is not listed keeps Lightning's default, or is not set")
    if others and not request.datasets:
        print(printable(f"other settings on {', '.join(others)}: name one with --dataset"))
    return 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def lines_for(facts: Mapping[str, Any]) -> str:
    """What `trained_by` found, in lines for people."""
    start, of = facts.get("starts_from"), facts.get("derived_from")
    lines = [
        f"{facts['recipe']} on {facts['backbone']}: {facts['trained_parameters']:,} trained of "
        f"{facts['backbone_parameters']:,} ({facts['share']:.4f} %)",
        "  by tower: " + (", ".join(f"{tower} {count:,}" for tower, count in facts["towers"].items()) or "nothing"),
        f"  stored: {'at most ' if facts['stored_at_most'] else ''}{facts['stored_bytes']:,} bytes"
        + (f", and what '{start}' changes" if start else "")
        + (f", those of '{of}'" if of else ""),
    ]
    if "per_class" in facts:
        lines.append(f"  for two classes; {facts['per_class']:,} more for each further one")
    return "\n".join(lines)
