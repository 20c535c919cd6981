"""`clipbench data`: what is on disk, and the few-shot draw."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from clipbench.data.card import Card


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("data", help="what is on disk, and the few-shot draw")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="status|verify|draw")
    about = {
        "status": "what is there, what is missing and where to get it",
        "verify": "every path, count and hash, and how the folders must look",
    }
    for name, text in about.items():
        one = kinds.add_parser(name, help=text)
        one.add_argument("datasets", nargs="*", help="cards, or suites of them (default: all real ones)")
        one.add_argument("--root", type=_folder, help="data root (default: $CLIPBENCH_DATA, else ./data)")
        if name == "verify":
            one.add_argument("--images", action="store_true", help="also open every image")
        one.set_defaults(run=check)
    drawn = kinds.add_parser("draw", help="the drawn files of a dataset; needs the split file, not the images")
    drawn.add_argument("dataset")
    drawn.add_argument("--shots", type=int, default=16)
    drawn.add_argument("--seed", type=int, default=1)
    drawn.add_argument("--root", type=_folder, help="data root (default: $CLIPBENCH_DATA, else ./data)")
    drawn.add_argument("--splits", type=_folder, help="a folder of split files, plain or gzipped")
    drawn.add_argument("--format", default="text", choices=["text", "json"])
    drawn.set_defaults(run=draw)


def check(options: argparse.Namespace) -> int:
    """Print what is there and what is missing, or whether every path, count and hash is right; 1 where it is not.

    Raises:
        ClipbenchError: an unknown card.
    """
    from clipbench.data.status import status, verify
    from clipbench.printable import printable
    from clipbench.resources import data_root

    cards = _cards(options.datasets)
    root = options.root or data_root()
    if options.kind == "status":
        text, good = status(cards, root)
    else:
        text, good = verify(cards, root, _open if options.images else None)
    print(printable(text, keep="\n"))
    return 0 if good else 1


def _open(card: Card, paths: Sequence[Path]) -> list[str]:
    from clipbench.data.opening import check_all

    return check_all(paths, card.id)


def _cards(names: list[str]) -> list[Card]:
    """The cards of that name, or of suites of that name; all real ones where none is named."""
    from clipbench.data.cards import list_cards, load_card

    if not names:
        return [load_card(name) for name in list_cards() if not name.startswith("mini/")]
    suites: dict[str, list[Card]] = {}
    if set(names) - set(list_cards()):
        for card in map(load_card, list_cards()):
            suites.setdefault(card.suite, []).append(card)
    found = []
    for name in dict.fromkeys(names):
        if difflib.get_close_matches(name.lower(), suites, cutoff=0.8) and name not in suites:
            raise UnknownName("dataset or suite", name, suites)
        found += suites.get(name) or [load_card(name)]
    return found


def _folder(text: str) -> Path:
    try:
        if "\0" in text:
            raise argparse.ArgumentTypeError(f"{text!r} is no folder")
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"no home of that name is known: '{text}'") from error


def draw(options: argparse.Namespace) -> int:
    """Print the drawn files of a dataset.

    Raises:
        ClipbenchError: an unknown card, no split file, or a draw that cannot be.
    """
    from clipbench.data.cards import load_card
    from clipbench.data.draw import draw_listing
    from clipbench.printable import printable
    from clipbench.resources import data_root

    if options.splits is not None and not os.path.isdir(options.splits):
        raise ConfigError(f"--splits {options.splits}: there is no such folder")
    listing = draw_listing(
        load_card(options.dataset), options.shots, options.seed, options.root or data_root(), options.splits
    )
    if options.format == "json":
        print(json.dumps(listing))
    else:
        for part in ("train", "val"):
            for item in listing[part]:
                print(f"{part}\t{item['label']}\t{printable(item['path'])}")
    return 0
