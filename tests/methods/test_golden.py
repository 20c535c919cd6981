"""Numbers that must not move unless a version is raised: the content key of every record rests on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipbench.recipes.recipe import known_recipes
from clipbench.testing.golden import golden_numbers
from tests.methods import make_golden
from tests.methods.make_golden import FOLDER, KEPT, RELATIVE, main, names


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_file_belongs_to_a_recipe(path: Path) -> None:
    recipe = json.loads(path.read_text())["recipe"]
    assert recipe in known_recipes(), f"golden/{path.name} is of '{recipe}', which is no recipe: remove the file"
    assert path.stem == recipe or path.stem not in known_recipes()


@pytest.mark.parametrize("name", names())
def test_numbers_move_only_with_a_version(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.json"
    assert path.exists(), f"recipe '{name}' has no golden values: `make golden RECIPE={name}` writes {path.name}"
    stored = json.loads(path.read_text())
    now = golden_numbers(stored["recipe"], tmp_path, stored["settings"])
    assert now["versions"] == stored["versions"], (
        f"a version was raised: run `make golden RECIPE={name}` and look at the diff"
    )
    relative = RELATIVE | stored.get("relative", {})  # more where rounding decides what is frozen (make_golden.py)
    assert now["losses"] == pytest.approx(stored["losses"], rel=relative["losses"], abs=1e-5)
    assert now["moved"] == pytest.approx(stored["moved"], rel=relative["moved"])
    for split, rows in stored["logits"].items():
        for ours, theirs in zip(now["logits"][split], rows, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=stored["tolerance"])


def test_a_recipe_is_written_alone_and_made_again_as_its_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_golden, "FOLDER", tmp_path / "golden")
    main(["coop"])
    (path,) = (tmp_path / "golden").iterdir()
    assert path.name == "coop.json"
    first = json.loads(path.read_text())
    assert {key: first[key] for key in KEPT if key in first} == {"recipe": "coop", "settings": {}, "tolerance": 0.002}

    case = path.with_name("coop_at_a_large_rate.json")
    settings = {"recipe": "coop", "settings": {"model.lr": 0.05}, "tolerance": 0.05, "relative": {"losses": 0.01}}
    case.write_text(json.dumps(settings))
    main([case.stem])
    second = json.loads(case.read_text())
    assert {key: second[key] for key in KEPT} == settings
    assert second["versions"] == first["versions"]
    assert second["logits"] != first["logits"]


def test_another_name_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_golden, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="did you mean 'clipfit'"):
        main(["clipfti"])
    assert not list(tmp_path.iterdir())
