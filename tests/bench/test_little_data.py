"""Data of one's own with little in it: a class of one image, no val images, fewer images than a cache has entries."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from clipbench.commands import main
from clipbench.data.cards import load_card
from clipbench.data.sources import card_source
from clipbench.mini.images import load_images
from clipbench.recipes.recipe import known_recipes, load_recipe

CHOOSING = [name for name in known_recipes() if load_recipe(name).about.get("validation")]
CARD = "mini/eurosat"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six classes with four train images each, but the last has one; two test images each, no val."""
    folder = tmp_path_factory.mktemp("little")
    names = sorted(load_card(CARD).classnames[:6])  # as a folder lists them
    for part, most in (("train", 4), ("test", 2)):
        seen = dict.fromkeys(names, 0)
        for item, pixels in zip(card_source(CARD).split.part(part), load_images(CARD, part), strict=True):
            name = item.classname
            if name in seen and seen[name] < (1 if (part, name) == ("train", names[-1]) else most):
                seen[name] += 1
                (folder / "photos" / part / name).mkdir(parents=True, exist_ok=True)
                array = np.moveaxis(np.asarray(pixels), 0, -1) if pixels.shape[0] == 3 else np.asarray(pixels)
                Image.fromarray(array).save(folder / "photos" / part / name / f"{seen[name]}.png")
    photos = {"class_path": "ImageFolder", "init_args": {"root": "photos", "template": load_card(CARD).template}}
    text = yaml.safe_dump({"name": "mini", "backbone": "mini", "datasets": {"photos": photos}})
    (folder / "little.yaml").write_text(text)
    return folder / "little.yaml"


def records(suite: Path, results: Path, recipes: str, *words: str) -> dict[str, dict[str, Any]]:
    """By recipe the record of its cell."""
    call = ["bench", "-m", recipes, "--suite", str(suite), "--seeds", "1", "--jobs", "1", "--results", str(results)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*call, *words]) == 0
    found = [json.loads(path.read_text()) for path in results.rglob("records/*.json")]
    return {record["cell"]["recipe"]: record for record in found}


@pytest.mark.parametrize(
    ("protocol", "how"),
    [("base_to_novel", "cross-validation with 4 folds"), ("few_shot", "nothing: one image in a class")],
)
def test_without_val_images_a_setting_is_chosen_inside_the_shots_and_the_record_says_how(
    protocol: str, how: str, suite: Path, tmp_path: Path
) -> None:
    """The class of one image is a novel one."""
    found = records(suite, tmp_path, ",".join(CHOOSING), "--protocol", protocol, "--shots", "4")
    assert sorted(found) == sorted(CHOOSING)
    for record in found.values():
        assert record["diagnostics"]["chosen_by"].startswith(how)
        assert record["validation_free"] is True
        assert record["provenance"].get("val_images", 0) == 0


def test_a_cache_of_sixteen_entries_answers_as_one_of_the_images_there_are(suite: Path, tmp_path: Path) -> None:
    recipes, words = "tip_adapter,tip_adapter_f", ["--shots", "4", "--protocol", "few_shot"]
    small = records(suite, tmp_path / "small", recipes, *words)
    wide = records(suite, tmp_path / "wide", recipes, *words, "--set", "model.cache_size=16")
    for recipe, record in wide.items():
        assert record["diagnostics"] == {"cached_images": 21, "empty_entries": 6 * 16 - 21}
        assert record["splits"]["all"]["bitmap"] == small[recipe]["splits"]["all"]["bitmap"]


@pytest.mark.parametrize("half", ["base", "novel"])
def test_a_half_without_a_test_image_is_refused_before_anything_is_trained(
    half: str, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three base and three novel classes; under a protocol without halves the same folder is measured."""
    names = sorted(path.name for path in (suite.parent / "photos/test").iterdir())
    shutil.copytree(suite.parent, tmp_path / "data")
    for name in names[:3] if half == "base" else names[3:]:
        shutil.rmtree(tmp_path / "data/photos/test" / name)
    words = ["bench", "-m", "zero_shot,coop", "--suite", str(tmp_path / "data/little.yaml"), "--seeds", "1"]
    words += ["--results", str(tmp_path / "runs")]
    assert main(words) == 1
    assert f"'photos' has no test images of the classes of split '{half}'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("records/*.json"))
    found = records(tmp_path / "data/little.yaml", tmp_path / "runs", "zero_shot", "--protocol", "few_shot")
    assert found["zero_shot"]["splits"]["all"]["total"] == 6
