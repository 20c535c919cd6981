"""Template sets say what the papers' code says, and class names enter them with blanks for underscores."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from clipbench.data import templates
from clipbench.data.card import Card
from clipbench.data.cards import list_cards, load_card, read_yaml, schema_errors
from clipbench.data.task import Task
from clipbench.data.templates import check_template, fill, list_template_sets, template_set, templates_for_task
from clipbench.errors import ConfigError, UnknownName
from clipbench.schemas import misfits

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


WRONG = ["a photo.", "", "{} and {}", "a {name}", "a {0}", "a {:d}", "a {!r}", "a {} }", "{{}}", "a { }", "}{", None, 5]


@pytest.mark.parametrize("template", WRONG)
def test_a_template_needs_one_place_for_the_name(template):
    with pytest.raises(ConfigError, match="exactly once"):
        check_template(template, "here")


@pytest.mark.parametrize("template", ["a {}\n", "{}\x1b[2J", "a\x00{}", "{}\u2028", "{}\ud800", "\t{}"])
def test_a_template_is_one_line_of_text(template):
    with pytest.raises(ConfigError, match="here: a template is one line of text"):
        check_template(template, "here")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A folder of template sets; a function that writes one and reads it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "outside.yaml").write_text("description: d\nsource: s\ntemplates: {}")
    monkeypatch.setattr(templates, "configs_dir", lambda: tmp_path)

    def read(text):
        template_set.cache_clear()
        (tmp_path / "templates" / "broken.yaml").write_text(text)
        return template_set("broken")

    yield read
    template_set.cache_clear()


HEAD = "description: d\nsource: s\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (": [", "is not YAML"),
        ("[" * 3000, "more than 50 levels of nesting"),
        (HEAD + "templates: {dtd: a {}.}", "is not YAML"),
        (HEAD + "templates:\n\tdtd: x", "is not YAML"),
        (HEAD + "templates: {}\ntemplates: {}", "key 'templates' stands twice"),
        ("", "at top level: None is not of type 'object'"),
        ("description: d", "'source' is a required property|'templates' is a required property"),
        (HEAD + "template: {}", "unknown key of template set .* 'template'; did you mean 'templates'"),
        (HEAD + "templates: [1]", "at templates: datasets, each with a list of sentences"),
        (HEAD + "templates: {dtd: '{} texture.'}", r"at templates\.dtd: a list of sentences"),
        (HEAD + "templates: {dtd: []}", r"at templates\.dtd: a list of sentences"),
        (HEAD + "templates: {dtd: ['{}.', 5]}", r"at templates\.dtd\.1: a sentence with '\{\}' exactly once"),
        (HEAD + "templates: {dtd: ['a {0}.']}", r"at templates\.dtd\.0: a sentence with"),
        (HEAD + "templates: {dtd: ['a {:d}.']}", r"at templates\.dtd\.0: a sentence with"),
        (HEAD + "templates: {dtd: ['{} {}']}", r"at templates\.dtd\.0: a sentence with"),
        (HEAD + 'templates: {dtd: ["a {}.\\n"]}', r"at templates\.dtd\.0: a sentence with"),
        (HEAD + "default: []\ntemplates: {}", "at default: a list of sentences"),
        ("description: 5\nsource: s\ntemplates: {}", "at description: 5 is not of type 'string'"),
    ],
)
def test_a_broken_set_is_one_sentence_with_its_place(broken, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        broken(text)
    assert "broken.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "", ".", "/etc/passwd", "x" * 5000, "broken\n", None])
def test_a_name_of_a_set_is_no_path(broken, name):
    broken(HEAD + "templates: {}")
    template_set.cache_clear()
    with pytest.raises(UnknownName, match="unknown template set"):
        template_set(name)


@pytest.mark.parametrize("template", [text for text in WRONG if isinstance(text, str)])
def test_the_schemas_know_a_template_as_the_check_does(template):
    card = read_yaml(load_card("dtd").path) | {"template": template}
    assert [fault for fault in schema_errors(card) if fault.startswith("template")]
    content = {"description": "d", "source": "s", "templates": {"dtd": [template]}}
    assert list(misfits(content, templates.SCHEMA_FILE))
