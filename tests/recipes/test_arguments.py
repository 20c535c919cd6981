"""The words of a LightningCLI command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clipbench.errors import ConfigError, UnknownName
from clipbench.recipes.arguments import choose_recipe, read_words
from clipbench.recipes.recipe import resolve


def test_options_with_and_without_an_equals_sign() -> None:
    line = read_words(["-c", "clipfit", "--config=a.yaml", "--model.lr=0.01", "--data", "Manifest", "--ckpt_path", "x"])
    assert line.configs == ["clipfit", "a.yaml"]
    assert line.settings == [("model.lr", "0.01"), ("data", "Manifest"), ("ckpt_path", "x")]
    assert (line.help, line.print_config) == (None, None)


def test_short_words() -> None:
    assert read_words(["--protocol", "few_shot", "--backbone=x"]).settings == [
        ("data.protocol", "few_shot"), ("model.backbone", "x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--model.help", "CLIPFit"], ("model", "CLIPFit")),
        (["--model.help=CLIPFit"], ("model", "CLIPFit")),
        (["--data.help", "--config", "clipfit"], ("data", "")),
        (["--trainer.logger.help", "CSVLogger"], ("trainer.logger", "CSVLogger")),
    ],
)
def test_help_of_a_class(words: list[str], asked: tuple[str, str]) -> None:
    assert read_words(words).help == asked


def test_flags_of_print_config() -> None:
    assert read_words(["--print_config"]).print_config == []
    assert read_words(["--print_config=skip_null,comments"]).print_config == ["skip_null", "comments"]
    with pytest.raises(UnknownName, match="did you mean 'skip_null'"):
        read_words(["--print_config=skip_nul"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit"], "'fit' belongs to no option; options look like"),
        (["clipfit"], "'clipfit' belongs to no option; did you mean --config clipfit"),
        (["mine.yaml"], "did you mean --config mine.yaml"),
        (["-x", "1"], "'-x' belongs to no option"),
        (["--model.lr"], "option --model.lr needs a value"),
        (["--model.lr", "--config"], "option --model.lr needs a value"),
        (["-c"], "option -c needs a value"),
    ],
)
def test_words_that_make_no_sense(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_words(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{}", "is empty"),
        ("# nothing", "is empty"),
        ("[1]", "is not a config"),
        ("model: 5", "at model"),
        ("trainer: [1]", "at trainer"),
        ("trainr: {}", "did you mean 'trainer'"),
        ("model: {class_path: CoOp}\noverrides: 5", "at overrides"),
        ("model: {init_args: [1]}", r"at model\.init_args"),
        ("seed_everything: 3", "data.seed drives"),
        ("optimizer: {class_path: Adam}", r"model\.optimizer"),
    ],
)
def test_a_config_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        choose_recipe(["clipfit", str(tmp_path / "x.yaml")], {})


def test_what_a_run_saved_is_a_recipe_with_what_stands_beside_it(tmp_path: Path) -> None:
    saved = {"seed_everything": False, "optimizer": None, "weights": "w", "ckpt_path": None, "protocol": "few_shot"}
    model = {"class_path": "CLIPFit", "init_args": {"lr": 0.5}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(saved | {"model": model, "trainer": {"max_epochs": 3}}))
    recipe, layers = choose_recipe([str(tmp_path / "x.yaml")], {})
    assert recipe.sections["model"] == model
    assert recipe.sections["data"] == {"init_args": {"protocol": "few_shot"}}
    assert layers == [{"weights": "w"}, {}]


@pytest.mark.parametrize(
    "text", ["trainer:", "model:\ntrainer:", "model: {init_args: }", "data:\nmodel: {init_args: null}"]
)
def test_a_section_with_nothing_below_it_takes_nothing_away(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"{text}\ntitle: mine\n")
    recipe, layers = choose_recipe(["clipfit", str(tmp_path / "x.yaml")], {})
    context = {"suite": "mini", "dataset": "dtd", "protocol": "base_to_novel"}
    assert resolve(recipe, {}, context, layers) == resolve(recipe, {}, context)
