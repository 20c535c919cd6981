"""`clipbench show params`: what a recipe trains, by tower and kind."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from clipbench.commands.list import columns


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("show", help="what a recipe trains")
    parser.add_argument("what", choices=["params"])
    parser.add_argument("--config", required=True, help="a packaged recipe or a YAML file")
    parser.add_argument("--backbone", default=None, help="for example ViT-B-16/openai; its weights are not needed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, as model.rank=8")
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what is trained.

    Raises:
        ClipbenchError: a wrong recipe or setting, or a backbone that cannot do what the method needs.
    """
    from clipbench.bench.trained_parameters import trained_by

    facts = trained_by(options.config, options.backbone, options.set)
    if options.format == "json":
        print(json.dumps(facts, indent=1))
        return 0
    if facts["parts"]:
        print(columns([row | {"parameters": f"{row['parameters']:,}"} for row in facts["parts"]]))
    print(lines_for(facts))
    return 0


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
