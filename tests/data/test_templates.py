"""Template sets say what the papers' code says, and class names enter them with blanks for underscores."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from clipbench import resources
from clipbench.data import templates
from clipbench.data.cards import Card, list_cards, load_card
from clipbench.data.task import Task
from clipbench.data.templates import check_template, fill, list_template_sets, template_set, templates_for_task
from clipbench.errors import ConfigError, UnknownName

# the datasets that the published sets speak of; cards that somebody adds later are not among them
REAL = [name for name in list_cards() if load_card(name).suite in ("clip11", "imagenet_variants")]


def of_card(name: str, card: Card) -> tuple[str, ...]:
    return templates_for_task(name, Task(card.key, card.template, card.classnames, ()))


def test_the_sets_that_recipes_name_are_there():
    assert {"coop", "clipfit", "single", "imagenet7", "kgcoop"} <= set(list_template_sets())
    for name in list_template_sets():
        assert template_set(name).description
        assert template_set(name).source
        assert set(template_set(name).templates) <= set(REAL), "a key that is no dataset"


def test_coop_prompts_of_every_class(shared):
    """Name, template and blanks together: the 2,191 prompts as the reference writes them."""
    with (shared / "splits" / "classnames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2191
    for row in rows:
        card = load_card(row["dataset"])
        (template,) = of_card("coop", card)
        assert fill(template, card.classnames[int(row["label"])]) == row["coop_prompt"]


def test_only_dtd_differs_in_clipfit():
    differing = {name for name in REAL if of_card("coop", load_card(name)) != of_card("clipfit", load_card(name))}
    assert differing == {"dtd"}
    assert of_card("coop", load_card("dtd")) == ("{} texture.",)
    assert of_card("clipfit", load_card("dtd")) == ("a photo of a {}, a type of texture.",)
    assert all(of_card("kgcoop", load_card(name)) == of_card("clipfit", load_card(name)) for name in REAL)


def test_single_is_one_sentence_for_all():
    assert {of_card("single", load_card(name)) for name in REAL} == {("a photo of a {}.",)}


def test_the_ensemble_adds_the_datasets_own_sentence():
    seven = of_card("imagenet7", load_card("imagenet"))
    assert len(seven) == 7
    for name in REAL:
        card = load_card(name)
        if name != "imagenet":
            assert of_card("imagenet7", card) == (*seven, *of_card("coop", card))


def test_a_cards_own_template_wins_under_every_set():
    card = load_card("mini/dtd")
    assert card.template is not None
    assert {of_card(name, card) for name in list_template_sets()} == {(card.template,)}
    own = dataclasses.replace(load_card("dtd"), template="a drawing of a {}.")
    assert of_card("coop", own) == ("a drawing of a {}.",)
    other = dataclasses.replace(load_card("dtd"), key="pond")
    assert of_card("coop", other) == ("a photo of a {}.",)


def test_fill_changes_underscores_only():
    assert fill("a photo of a {}.", "F-16A/B") == "a photo of a F-16A/B."
    assert fill("{} texture.", "Polka_Dotted") == "Polka Dotted texture."
    assert fill("a {}.", "odd{}name") == "a odd{}name."


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown template set 'clipfitt'; did you mean 'clipfit'"):
        template_set("clipfitt")


@pytest.mark.parametrize("template", ["a photo.", "{} and {}", "a {name}", "a {} }"])
def test_a_template_needs_one_place_for_the_name(template):
    with pytest.raises(ConfigError, match="exactly once"):
        check_template(template, "here")


@pytest.mark.parametrize(
    "text", ["templates: [1]", "description: d", "description: d\nsource: s\ntemplates: {dtd: a {}.}", ": ["]
)
def test_a_broken_set_is_named(text, tmp_path, monkeypatch):
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "broken.yaml").write_text(text)
    monkeypatch.setattr(templates, "configs_dir", lambda: tmp_path)
    template_set.cache_clear()
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        template_set("broken")
    template_set.cache_clear()
    assert resources.configs_dir().is_dir()
