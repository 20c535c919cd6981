"""What there is and what a recipe trains: the text of `clipbench list` and `clipbench show params`."""

from __future__ import annotations

from typing import Any

from clipbench.bench.recipe import known_recipes, load_recipe
from clipbench.bench.suites import known_suites, load_suite


def list_methods() -> list[dict[str, Any]]:
    """A row per packaged recipe; reads YAML only."""
    rows = []
    for name in known_recipes():
        recipe = load_recipe(name)
        needs = "; ".join(f"{tower} tower: {', '.join(what)}" for tower, what in recipe.about.get("needs", {}).items())
        rows.append(
            {
                "recipe": name,
                "method": recipe.method,
                "paper": recipe.about.get("paper", ""),
                "needs": needs or "any CLIP",
            }
        )
    return rows


def list_datasets() -> list[dict[str, Any]]:
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


def list_suites() -> list[dict[str, Any]]:
    """A row per packaged suite."""
    suites = [load_suite(name) for name in known_suites()]
    return [{"suite": s.name, "backbone": s.backbone, "datasets": len(s.datasets), "title": s.title} for s in suites]


def list_studies() -> list[dict[str, Any]]:
    """A row per packaged study; reads YAML only."""
    from clipbench.bench.studies import known_studies, load_study

    studies = [load_study(name) for name in known_studies()]
    return [
        {
            "study": s.name, "suite": s.suite, "variants": len(s.variants), "datasets": len(s.datasets),
            "seeds": len(s.seeds), "minutes": f"{s.minutes:g}", "title": s.title,
        }
        for s in studies
    ]  # fmt: skip


def list_backbones() -> list[dict[str, Any]]:
    """A row per backbone: the embedded one, then every open_clip architecture that our towers take, with its tags."""
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
    rows.append(
        {"backbone": "local-dir:FOLDER", "towers": "", "weights": "a folder with open_clip_config.json and weights"}
    )
    return rows


def _towers(name: str) -> str:
    from clipbench.backbone.spec import resolve_spec

    abilities = resolve_spec(name).abilities
    return ", ".join(f"{tower}: {' '.join(sorted(what)) or 'plain'}" for tower, what in abilities.items())


def trained_by(config_name: str, backbone: str | None) -> dict[str, Any]:
    """What a recipe trains on a backbone: by tower and kind, total, share, stored bytes; no weights are loaded.

    Args:
        config_name: a packaged recipe or a YAML file.
        backbone: its name; None: that of the recipe, else `mini`.
    """
    from clipbench.backbone.clip import describe_backbone
    from clipbench.methods import method_class
    from clipbench.methods.task import Task

    recipe = load_recipe(config_name)
    arguments = dict(recipe.sections["model"].get("init_args") or {})
    arguments["backbone"] = backbone or arguments.get("backbone", "mini")
    method = method_class(recipe.sections["model"]["class_path"])(**arguments)
    method.bind(Task(("first class", "second class"), ()), ("a photo of a {}.",), 1)
    method.backbone = describe_backbone(arguments["backbone"])
    trained = method.build()
    total = sum(parameter.numel() for parameter in method.backbone.parameters())
    count = sum(parameter.numel() for parameter in trained.values())
    rows: dict[tuple[str, str], list[int]] = {}
    for name, parameter in trained.items():
        tower = name.partition(".")[0] if name.startswith(("image.", "text.")) else "added"
        rows.setdefault((tower, _kind(name)), []).append(parameter.numel())
    return {
        "recipe": recipe.name,
        "backbone": arguments["backbone"],
        "parts": [
            {"tower": tower, "kind": kind, "tensors": len(sizes), "parameters": sum(sizes)}
            for (tower, kind), sizes in rows.items()
        ],
        "trained_parameters": count,
        "backbone_parameters": total,
        "share": 100 * count / total,
        "stored_bytes": 4 * count,
    }


def _kind(name: str) -> str:
    """A tensor's kind: its name without tower and block number."""
    return ".".join(part for part in name.split(".") if not part.isdigit() and part not in ("image", "text", "blocks"))
