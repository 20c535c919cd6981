"""`clipbench list`: the recipes, datasets, backbones, suites and studies there are, with what each needs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.recipes.recipe import Recipe

Rows = list[dict[str, Any]]
DIFFERS = "differs"  # what a recipe leaves out of the published one; sentences, so below the table
FORMS = {
    "ViT-B/16, RN50, ViT-L/14@336px": "OpenAI's own names of its weights, as ViT-B-16/openai",
    "ARCH/TAG": "one of the tags above, taken from the cache or downloaded once",
    "ARCH@FILE": "a checkpoint of an architecture above: safetensors, torch.save, TorchScript, an index of shards",
    "FOLDER, FILE": "open_clip_config.json with weights beside it; local-dir:FOLDER says the same",
    "hf-hub:ORG/NAME": "a repository of the Hugging Face hub with open_clip_config.json",
    "ARCH/random, ARCH": "random weights; none, where none are needed (show params)",
    "...?image_size=112": "positions resampled for another image size; ?activation=gelu or quickgelu for files",
}


def add_parser(commands: Any) -> None:
    """The words of the command."""
    parser = commands.add_parser("list", help="what there is, with what each needs")
    parser.add_argument("what", choices=["methods", "datasets", "backbones", "suites", "studies"])
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the rows."""
    known = {
        "methods": list_methods, "datasets": list_datasets, "backbones": list_backbones, "suites": list_suites,
        "studies": list_studies,
    }  # fmt: skip
    rows = known[options.what]()
    if options.format == "json":
        print(json.dumps(rows, indent=1))
        return 0
    print(columns([{key: value for key, value in row.items() if key != DIFFERS} for row in rows]))
    if said := [f"{row['recipe']}: {row[DIFFERS]}" for row in rows if row.get(DIFFERS)]:
        print("\nWhat differs from what was published:", *said, sep="\n")
    return 0


def columns(rows: Rows) -> str:
    """Rows as aligned columns; the last column runs free."""
    if not rows:
        return "nothing"
    heads = list(rows[0])
    cells = [heads, *[[str(row.get(head, "")) for head in heads] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def list_methods() -> Rows:
    """A row per recipe, packaged, of a plug-in or beside the user; reads YAML only.

    `parameters` are those trained on OpenAI's ViT-B/16; `validation_free` is `yes` where no setting is chosen on
    labelled images beyond the shots.
    """
    from clipbench.recipes.recipe import known_recipes, load_recipe, recipe_origin, recipes_here

    found = [(name, load_recipe(name), recipe_origin(name)) for name in known_recipes()]
    found += [(file, recipe, "this folder") for file, recipe in recipes_here().items()]
    recipes = {name: recipe for name, recipe, _ in found}
    rows = []
    for name, recipe, origin in found:
        needs = "; ".join(f"{tower} tower: {', '.join(what)}" for tower, what in recipe.about.get("needs", {}).items())
        rows.append(
            {
                "recipe": name,
                "method": recipe.method,
                "parameters": recipe.parameters,
                "validation_free": _validation_free(recipe, recipes),
                "from": origin,
                "paper": recipe.about.get("paper", ""),
                "needs": needs or "any CLIP",
                DIFFERS: recipe.about.get("description", ""),
            }
        )
    return rows


def _validation_free(recipe: Recipe, recipes: Mapping[str, Recipe]) -> str:
    """What a recipe says of itself, or else that which it starts from."""
    start = str((recipe.sections["model"].get("init_args") or {}).get("start"))
    own = recipe.validation_free
    return _validation_free(recipes[start], recipes) if own == "yes" and start in recipes else own


def list_datasets() -> Rows:
    """A row per card; reads YAML only."""
    from clipbench.data.cards import list_cards, load_card

    rows = []
    for name in list_cards():
        card = load_card(name)
        counts = card.counts
        needs = "nothing (rendered)" if card.reader == "mini" else f"$CLIPBENCH_DATA/{card.folder}"
        rows.append(
            {
                "dataset": name, "title": card.title, "classes": counts.get("classes"), "train": counts.get("train"),
                "val": counts.get("val"), "test": counts.get("test"), "needs": needs,
            }
        )  # fmt: skip
    return rows


def list_suites() -> Rows:
    """A row per packaged suite."""
    from clipbench.recipes.suites import known_suites, load_suite

    suites = [load_suite(name) for name in known_suites()]
    return [{"suite": s.name, "backbone": s.backbone, "datasets": len(s.datasets), "title": s.title} for s in suites]


def list_studies() -> Rows:
    """A row per packaged study; reads YAML only."""
    from clipbench.recipes.studies import known_studies, load_study

    studies = [load_study(name) for name in known_studies()]
    return [
        {
            "study": s.name, "suite": s.suite, "variants": len(s.variants), "datasets": len(s.datasets),
            "seeds": len(s.seeds), "minutes": f"{s.minutes:g}", "title": s.title,
        }
        for s in studies
    ]  # fmt: skip


def list_backbones() -> Rows:
    """A row per backbone: the embedded one, every open_clip architecture with its tags, then other ways to name one."""
    from clipbench.backbone import catalogue
    from clipbench.errors import BackboneError

    rows = [{"backbone": "mini", "towers": _towers("mini"), "weights": "embedded"}]
    tags = catalogue.pretrained_tags()
    for architecture in sorted(tags):
        try:
            towers = _towers(f"{architecture}/random")
        except BackboneError:
            towers = "refused"
        rows.append({"backbone": architecture, "towers": towers, "weights": " ".join(tags[architecture])})
    return [*rows, *({"backbone": form, "towers": "", "weights": what} for form, what in FORMS.items())]


def _towers(name: str) -> str:
    from clipbench.backbone.spec import resolve_spec

    abilities = resolve_spec(name).abilities
    return ", ".join(f"{tower}: {' '.join(sorted(what)) or 'plain'}" for tower, what in abilities.items())
