"""What a recipe trains on a backbone, by tower and kind, without any weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clipbench.backbone.names import kind_of, parse_name
from clipbench.recipes.recipe import load_recipe, merge
from clipbench.recipes.settings import from_dotted, read_setting


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
        the recipe or file whose weights are stored too; `derived_from` that which was trained, where nothing else is.

    Raises:
        ConfigError: a wrong recipe or setting, or a selection that means nothing on this backbone.
        BackboneError: the backbone lacks an ability that the method needs.
    """
    recipe = load_recipe(config_name)
    config = merge(recipe.sections, from_dotted(read_setting(text) for text in settings))
    from clipbench.bench.build import method_without_weights, resolved
    from clipbench.methods import method_class

    given = set(config["model"].get("init_args") or {})
    model = resolved({"model": config["model"], "data": {"class_path": "FewShotDataModule"}})["model"]
    kind = method_class(model["class_path"])
    arguments = {name: value for name, value in model["init_args"].items() if name in given}
    arguments["backbone"] = backbone or arguments.get("backbone", "mini")
    start = arguments.get("start")
    if kind.derived:
        return trained_by(str(start), arguments["backbone"]) | {"recipe": recipe.name, "derived_from": start}
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
        facts["stored_bytes"] = sum(tensor.nbytes for tensor in method.adapter_state_dict().values())
    except NotImplementedError:  # it looks at values, of which there are none here
        facts["stored_at_most"] = True
    more = sum(tensor.numel() for tensor in method_without_weights(kind, arguments, classes=3).trainable.values())
    return facts | ({"per_class": more - count} if more > count else {}) | ({"starts_from": start} if start else {})


def _tower(name: str) -> str:
    return parse_name(name).tower_of_backbone or "added"
