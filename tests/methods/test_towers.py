"""Towers that a method cannot use: every recipe is refused there, or built, before any weights are read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from clipbench.bench.build import method_without_weights
from clipbench.errors import ClipbenchWarning, LacksAbility
from clipbench.methods import method_class
from clipbench.methods.base import Method
from clipbench.recipes.recipe import known_recipes, load_recipe

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 12}
VIT = {"image_size": 32, "patch_size": 16, "width": 16, "layers": 12, "head_width": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None}
TIMM = {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}
CLASS_TOKEN = TEXT | {"embed_cls": True, "output_tokens": True}
ON_ITS_OWN = sorted(
    name for name in known_recipes() if not method_class(load_recipe(name).sections["model"]["class_path"]).derived
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Backbones of one odd tower each, without weights."""
    found = {}
    shapes = {"resnet": (RESNET, TEXT), "timm": (TIMM, TEXT), "class token": (VIT, CLASS_TOKEN)}
    for name, (vision, text) in shapes.items():
        folder = tmp_path_factory.mktemp("tower")
        model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "custom_text": text is CLASS_TOKEN}
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
        found[name] = f"local-dir:{folder}"
    return found


def built(recipe: str, backbone: str) -> Method:
    section = load_recipe(recipe).sections["model"]
    arguments = {**(section.get("init_args") or {}), "backbone": backbone}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClipbenchWarning)
        return method_without_weights(method_class(section["class_path"]), arguments, classes=2)


def needing(tower: str) -> list[str]:
    return [recipe for recipe in ON_ITS_OWN if tower in load_recipe(recipe).about["needs"]]


@pytest.mark.parametrize(
    ("shape", "tower", "recipe"),
    [
        (shape, tower, recipe)
        for shape, tower in (("resnet", "image"), ("timm", "image"), ("class token", "text"))
        for recipe in needing(tower)
    ],
)
def test_a_recipe_is_refused_where_a_tower_lacks_what_it_needs(
    shape: str, tower: str, recipe: str, folders: dict[str, str]
) -> None:
    with pytest.raises(
        LacksAbility, match=rf"in the {tower} tower, which that of backbone .* does not have: it"
    ) as said:
        built(recipe, folders[shape])
    assert "\n" not in str(said.value)
    assert said.value.exit_status == 2


@pytest.mark.parametrize("recipe", sorted(set(ON_ITS_OWN) - set(needing("image"))))
def test_a_recipe_that_needs_nothing_of_the_image_tower_takes_a_convolutional_one(
    recipe: str, folders: dict[str, str]
) -> None:
    needs = {tower: sorted(abilities) for tower, abilities in built(recipe, folders["resnet"]).requires().items()}
    assert needs == load_recipe(recipe).about["needs"]


def test_the_folders_hold_no_weights(folders: dict[str, str]) -> None:
    for name in folders.values():
        assert [path.name for path in Path(name.removeprefix("local-dir:")).iterdir()] == ["open_clip_config.json"]
