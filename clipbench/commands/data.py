"""`clipbench data`: what is on disk, and the few-shot draw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("data", help="what is on disk, and the few-shot draw")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="status|verify|draw")
    for name, text in (("status", "what is there and what is missing"), ("verify", "every path, count and hash")):
        one = kinds.add_parser(name, help=text)
        one.add_argument("datasets", nargs="*", help="cards (default: all real ones)")
        one.add_argument("--root", type=Path, default=None, help="data root (default: $CLIPBENCH_DATA, else ./data)")
        one.set_defaults(run=check)
    drawn = kinds.add_parser("draw", help="the drawn files of a dataset; needs the split file, not the images")
    drawn.add_argument("dataset")
    drawn.add_argument("--shots", type=int, default=16)
    drawn.add_argument("--seed", type=int, default=1)
    drawn.add_argument("--root", type=Path, default=None)
    drawn.add_argument("--splits", type=Path, default=None, help="a folder of split files, plain or gzipped")
    drawn.add_argument("--format", default="text", choices=["text", "json"])
    drawn.set_defaults(run=draw)


def check(options: argparse.Namespace) -> int:
    """Print what is there and what is missing, or whether every path, count and hash is right; 1 where it is not.

    Raises:
        ClipbenchError: an unknown card.
    """
    from clipbench.data.cards import list_cards, load_card
    from clipbench.data.status import status, verify
    from clipbench.resources import data_root

    names = options.datasets or [name for name in list_cards() if not name.startswith("mini/")]
    cards = [load_card(name) for name in names]
    root = options.root or data_root()
    text, good = (status if options.kind == "status" else verify)(cards, root)
    print(text)
    return 0 if good else 1


def draw(options: argparse.Namespace) -> int:
    """Print the drawn files of a dataset.

    Raises:
        ClipbenchError: an unknown card, or no split file.
    """
    from clipbench.data.cards import load_card
    from clipbench.data.draw import draw_listing
    from clipbench.resources import data_root

    listing = draw_listing(
        load_card(options.dataset), options.shots, options.seed, options.root or data_root(), options.splits
    )
    if options.format == "json":
        print(json.dumps(listing))
    else:
        for part in ("train", "val"):
            for item in listing[part]:
                print(f"{part}\t{item['label']}\t{item['path']}")
    return 0
