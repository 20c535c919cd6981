"""Every registered method, in each packaged recipe, holds what the conformance suite asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from clipbench.bench.acting import LATER
from clipbench.errors import ConfigError, UnreadSetting
from clipbench.methods import method_class, registered
from clipbench.methods.arguments import settings_of
from clipbench.methods.base import Method
from clipbench.recipes.recipe import known_recipes, load_recipe, resolve
from clipbench.testing import frozen, methods
from clipbench.testing.learned import check_goes_back_to_where_it_began
from clipbench.testing.methods import METHOD_CHECKS, Check, run_check


def test_no_check_is_forgotten() -> None:
    folder = Path(methods.__file__).parent
    defined = re.findall(
        r"^def (check_\w+)\(subject: Subject\)", "".join(p.read_text() for p in folder.glob("*.py")), re.M
    )
    assert sorted(check.__name__ for check in METHOD_CHECKS) == sorted(defined)
    assert len(defined) >= 20


def test_every_registered_method_has_a_recipe() -> None:
    assert {load_recipe(name).method for name in known_recipes()} >= set(registered())


# several fits each: what they look at is the class's code, so one recipe of each class is enough
EXPENSIVE = {
    frozen.check_backbone_stays_as_it_was, frozen.check_methods_live_side_by_side,
    frozen.check_batchnorm_and_dropout_stay_frozen, methods.check_training_is_blind_to_test,
    methods.check_same_cell_same_record,
}  # fmt: skip


def cases() -> list[Any]:
    """Every cheap check with every recipe; an expensive one with the first recipe of each class, trained or not."""
    first: dict[tuple[str, bool], str] = {}
    for name in known_recipes():
        recipe = load_recipe(name)
        first.setdefault((recipe.method, recipe.about.get("parameters") == 0), name)
    return [
        pytest.param(check, recipe, id=f"{check.__name__.removeprefix('check_')}-{recipe}")
        for check in METHOD_CHECKS
        for recipe in known_recipes()
        if check not in EXPENSIVE or recipe in first.values()
    ]


@pytest.mark.parametrize(("check", "recipe"), cases())
def test_method(check: Check, recipe: str, tmp_path: Path) -> None:
    run_check(check, recipe, tmp_path)


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_coop_with_contexts_of_each_class(check: Check, tmp_path: Path) -> None:
    """The option of the method that has another novel rule."""
    run_check(check, "coop", tmp_path, **{"model.class_specific": True})


def test_coop_from_noise_has_no_way_back(tmp_path: Path) -> None:
    noise = {"model.context_words": "", "model.n_context": 2}
    run_check(check_goes_back_to_where_it_began, "coop", tmp_path, **noise)


@pytest.mark.parametrize("recipe", known_recipes())
def test_the_recipe_says_what_the_method_needs(recipe: str) -> None:
    """`clipbench list methods` reads YAML only, so the YAML must say what the class says."""
    loaded = load_recipe(recipe)
    shown = {tower: set(what) for tower, what in loaded.about.get("needs", {}).items()}
    method = method_class(loaded.method)(**loaded.sections["model"]["init_args"])
    assert shown == {tower: set(what) for tower, what in method.requires().items()}


def acts(kind: type[Method], arguments: dict[str, Any], name: str) -> bool:
    """Whether a setting is read beside these arguments: one that is not is refused by its name."""
    try:
        kind(**arguments | {name: 1})
    except UnreadSetting as error:
        return error.name != name
    except ConfigError:
        return True  # it is read: 1 is no value for it
    return True


@pytest.mark.parametrize("recipe", known_recipes())
def test_the_recipe_lists_the_settings_that_act_and_no_other(recipe: str) -> None:
    """So that the YAML alone says what was done; None, the value of what does not act, need not be listed, nor that of
    a setting that methods gained later."""
    loaded = load_recipe(recipe)
    kind, listed = method_class(loaded.method), loaded.sections["model"]["init_args"]
    kind(**listed)  # refuses what it does not know or does not read
    left_out = set(settings_of(kind)) - set(listed) - {"backbone", "start", *LATER}
    assert [name for name in sorted(left_out) if acts(kind, listed, name)] == []


@pytest.mark.parametrize("recipe", known_recipes())
def test_what_the_recipe_overrides_is_read_where_it_is_overridden(recipe: str) -> None:
    loaded = load_recipe(recipe)
    free: dict[str, Any] = {"suite": "clip11", "protocol": "base_to_novel", "dataset": "dtd", "shots": 16}
    for override in loaded.overrides:
        context = {axis: override.get(axis, value) for axis, value in free.items()} | {"backbone": "mini"}
        context = {axis: value[0] if isinstance(value, list) else value for axis, value in context.items()}
        model = resolve(loaded, {"model": {}, "data": {}, "trainer": {}}, context)["model"]
        kind = method_class(str(model["class_path"]))
        kind(**model["init_args"])
        left_out = set(settings_of(kind)) - set(model["init_args"]) - {"backbone", "start", *LATER}
        assert [name for name in sorted(left_out) if acts(kind, model["init_args"], name)] == [], context


def test_exemptions_are_of_checks_that_exist_and_have_reasons() -> None:
    names = {check.__name__ for check in METHOD_CHECKS}
    for name in registered():
        exempt = method_class(name).exempt
        assert set(exempt) <= names
        assert all(len(reason) > 20 for reason in exempt.values())
