"""What there is and what a recipe trains: the text of `clipbench list` and `clipbench show params`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipbench.backbone.names import kind_of, parse_name
from clipbench.bench.keys import check_names
from clipbench.bench.recipe import from_dotted, known_recipes, load_recipe, merge, read_setting, recipe_origin
from clipbench.bench.suites import known_suites, load_suite

if TYPE_CHECKING:
    from clipbench.methods.base import Method


def list_methods() -> list[dict[str, Any]]:
    """A row per recipe, packaged or of a plug-in; reads YAML only."""
    rows = []
    for name in known_recipes():
        recipe = load_recipe(name)
        needs = "; ".join(f"{tower} tower: {', '.join(what)}" for tower, what in recipe.about.get("needs", {}).items())
        rows.append(
            {
                "recipe": name,
                "method": recipe.method,
                "from": recipe_origin(name),
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


def trained_by(config_name: str, backbone: str | None, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe trains on a backbone; no weights are loaded.

    Args:
        config_name: a packaged recipe or a YAML file.
        backbone: its name; None: that of the recipe, else `mini`.
        settings: as `model.rank=8`, above the recipe's.

    Returns:
        `parts` by tower and kind, numbers by tower (`image`, `text`, `added`), `trained_parameters`, `share` percent of
        `backbone_parameters`, `stored_bytes` of what is learned (`stored_at_most` where training decides
        what is stored); `per_class` where the count grows with the classes, of which it then assumes two; `starts_from`
        the recipe or file whose weights are stored too; `made_of` that which was trained, where nothing else is.

    Raises:
        ConfigError: a wrong recipe or setting, or a selection that means nothing on this backbone.
        BackboneError: the backbone lacks an ability that the method needs.
    """
    recipe = load_recipe(config_name)
    config = merge(recipe.sections, from_dotted(dict(read_setting(text) for text in settings)))
    check_names({"model": config["model"]})
    from clipbench.bench.objects import check_keys
    from clipbench.methods import method_class

    check_keys({"model": config["model"]})
    kind, arguments = method_class(config["model"]["class_path"]), dict(config["model"].get("init_args") or {})
    arguments["backbone"] = backbone or arguments.get("backbone", "mini")
    start = arguments.get("start")
    if kind.derived:
        return trained_by(str(start), arguments["backbone"]) | {"recipe": recipe.name, "made_of": start}
    method = method_without_weights(kind, arguments, classes=2)
    trained = {name: parameter.numel() for name, parameter in method.trainable.items()}
    count = sum(trained.values())
    rows: dict[tuple[str, str], list[int]] = {}
    for name, size in trained.items():
        rows.setdefault((_tower(name), kind_of(name)), []).append(size)
    towers = {tower: sum(sum(sizes) for (where, _), sizes in rows.items() if where == tower) for tower, _ in rows}
    facts: dict[str, Any] = {
        "recipe": recipe.name,
        "backbone": arguments["backbone"],
        "parts": [
            {"tower": tower, "kind": kind, "tensors": len(sizes), "parameters": sum(sizes)}
            for (tower, kind), sizes in rows.items()
        ],
        "towers": towers,
        "trained_parameters": count,
        "backbone_parameters": method.backbone.pretrained.size(),
        "share": 100 * count / method.backbone.pretrained.size(),
        "stored_bytes": 4 * count,
        "stored_at_most": False,
    }
    try:
        facts["stored_bytes"] = sum(
            tensor.numel() * tensor.element_size() for tensor in method.adapter_state_dict().values()
        )
    except NotImplementedError:  # it looks at values, of which there are none here
        facts["stored_at_most"] = True
    more = sum(tensor.numel() for tensor in method_without_weights(kind, arguments, classes=3).trainable.values())
    return facts | ({"per_class": more - count} if more > count else {}) | ({"starts_from": start} if start else {})


def method_without_weights(kind: type[Method], arguments: Mapping[str, Any], classes: int) -> Method:
    """A method set up on a backbone without weights, for so many classes, and without its `start`.

    Raises:
        ConfigError: a wrong argument, or a selection that means nothing on this backbone.
        BackboneError: the backbone lacks an ability that the method requires.
    """
    from clipbench.backbone.clip import describe_backbone
    from clipbench.data.task import Task

    method = kind(**(dict(arguments) | ({"start": None} if "start" in arguments else {})))
    names = ("first class", "second class", "third class")[:classes]
    method.setup(task=Task("", None, names, ()), backbone=describe_backbone(method.backbone_name))
    return method


def said(facts: Mapping[str, Any]) -> str:
    """What `trained_by` found, in lines for people."""
    start, of = facts.get("starts_from"), facts.get("made_of")
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


def _tower(name: str) -> str:
    return parse_name(name).tower_of_backbone or "added"
