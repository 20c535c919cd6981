"""Every registered method, in each packaged recipe, holds what the conformance suite asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipbench.bench.recipe import known_recipes, load_recipe
from clipbench.methods import method_class, registered
from clipbench.testing.methods import METHOD_CHECKS, Check, run_check


def test_every_registered_method_has_a_recipe() -> None:
    assert {load_recipe(name).method for name in known_recipes()} >= set(registered())


@pytest.mark.parametrize("recipe", known_recipes())
@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_method(check: Check, recipe: str, tmp_path: Path) -> None:
    run_check(check, recipe, tmp_path)


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_coop_with_contexts_of_each_class(check: Check, tmp_path: Path) -> None:
    """The option of the method that has another novel rule."""
    run_check(
        check, "coop", tmp_path, **{"model.class_specific": True, "model.context_words": "", "model.n_context": 2}
    )


@pytest.mark.parametrize("recipe", known_recipes())
def test_the_recipe_says_what_the_method_needs(recipe: str) -> None:
    """`clipbench list methods` reads YAML only, so the YAML must say what the class says."""
    loaded = load_recipe(recipe)
    said = {tower: set(what) for tower, what in loaded.about.get("needs", {}).items()}
    assert said == {tower: set(what) for tower, what in method_class(loaded.method).needs.items()}


@pytest.mark.parametrize("recipe", known_recipes())
def test_the_recipe_lists_every_setting_of_its_method(recipe: str) -> None:
    from clipbench.bench.objects import settings_of

    loaded = load_recipe(recipe)
    given = set(loaded.sections["model"]["init_args"]) | {"backbone"}
    kind = method_class(loaded.method)
    of_its_own = loaded.sections["trainer"]["max_epochs"] != 0 or "__init__" in vars(kind)
    assert given == (set(settings_of(kind)) if of_its_own else {"backbone", "template_set"})


def test_exemptions_are_of_checks_that_exist_and_have_reasons() -> None:
    names = {check.__name__ for check in METHOD_CHECKS}
    for name in registered():
        exempt = method_class(name).exempt
        assert set(exempt) <= names
        assert all(len(reason) > 20 for reason in exempt.values())
