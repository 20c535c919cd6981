"""Mistakes in files of settings: one sentence each, with the place and the nearest right word."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipbench.errors import ConfigError
from clipbench.recipes.recipe import load_recipe
from clipbench.recipes.settings import read_setting
from clipbench.recipes.studies import load_study
from clipbench.recipes.suites import load_suite
from clipbench.yaml_files import parse_yaml, read_yaml

OUTSIDE = ("../../x", "/abs", "..", ".", ".x", '""', '"x\\n"', '"a b"', "é", "x/y", '"x\\0"', "x" * 101)
LAUGHS = "[&a0 x, " + ", ".join(f"&a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)) + "]"
SUITE = "name: mine\nbackbone: mini\ndatasets:\n  dtd: mini/dtd\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "while parsing"),
        ("a:\tb:\n\t- c", "found character"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 1\nb: 2\na: 3", "key 'a' stands twice, again in line 3"),
        ("a: {b: 1, b: 2}", "key 'b' stands twice, again in line 1"),
        ("[" * 3000, "nesting"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: &x [*x]", "Circular reference"),
        (LAUGHS, "aliases stand for more than 1,000,000 values"),
    ],
)
def test_what_is_no_yaml_is_said_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        read_yaml(path)
    assert str(error.value).startswith(f"'{path}' is not YAML: ")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"the value is not YAML|nesting"):
        read_setting(f"trainer.callbacks=[{text}")


def test_what_is_no_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml' is not YAML: it is not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("pipe.yaml", "."):
        with pytest.raises(ConfigError, match="is not a file"):
            read_yaml(tmp_path / name)
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(ConfigError, match="has 20 MB"):
        read_yaml(tmp_path / "large.yaml")


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1e999", "-1.5e400", "1" * 400])
@pytest.mark.parametrize(
    ("load", "text", "place"),
    [
        (load_recipe, "model: {class_path: CLIPFit, init_args: {lr: NUMBER}}", "model.init_args.lr"),
        (
            load_recipe,
            "model: {class_path: CLIPFit}\noverrides: [{set: {model.lr: NUMBER}}]",
            "overrides.0.set.model.lr",
        ),
        (load_suite, SUITE + "  x: {class_path: ImageFolder, init_args: {split: [1, NUMBER]}}", "init_args.split.1"),
        (load_study, "minutes: NUMBER", "minutes"),
    ],
)
def test_a_number_that_is_not_finite_is_named_with_its_file(
    load: Callable[[str], Any], text: str, place: str, number: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("NUMBER", number))
    with pytest.raises(ConfigError, match=rf"^'{path}': \S*{place} is .*, where only finite numbers") as error:
        load(str(path))
    assert len(str(error.value)) < len(str(path)) + 120


def test_merge_keys_and_anchors_are_yaml() -> None:
    text = "base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n"
    assert parse_yaml(text, "x")["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {class_path: CoOp, init_args: [1]}", r"not a recipe at model\.init_args"),
        ("model: [class_path]", "not a recipe at model"),
        ("model: {class_path: 5}", r"not a recipe at model\.class_path"),
        ("model: {class_path: CoOp}\noverrides: 5", "not a recipe at overrides"),
        ("model: {class_path: CoOp}\noverrides: [null]", r"not a recipe at overrides\.0"),
        ("model: {class_path: CoOp}\noverrides: [{suit: mini}]", r"unknown key .* at overrides\.0 'suit'; .* 'suite'"),
        ("model: {class_path: CoOp}\noverrides: [{set: 1}]", r"not a recipe at overrides\.0\.set"),
        ("model: {class_path: CoOp}\ntrainers: {}", "unknown key of recipe .* 'trainers'; did you mean 'trainer'"),
        ("model: {class_path: CoOp}\nneeds: {text: transformer}", r"not a recipe at needs\.text"),
        ("model: {class_path: CoOp}\nparameters: many", "parameters is a whole number"),
        (
            "model: {class_path: CoOp, init_args: {1.5: 2}}",
            r"not a recipe at model\.init_args: each setting is named by",
        ),
        ("model: {class_path: CoOp, 2020-01-01: 2}", "not a recipe at model: each setting is named by a word"),
        ("model: {class_path: CoOp}\ntrainer: {yes: 2}", "not a recipe at trainer: each setting is named by a word"),
        ("model: {class_path: CoOp}\noverrides: [{set: {5: 1}}]", r"at overrides\.0\.set: each setting is named by"),
        ("trainer: {max_epochs: 1}", "names no method"),
        ("[]", "is not a config"),
    ],
)
def test_what_is_no_recipe(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    if text == "[]":
        (tmp_path / "x.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match=said):
        load_recipe(str(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "name: 5"}, "not a suite at name"),
        ({"name": "name: [a]"}, "not a suite at name"),
        ({"backbone": "backbone: {x: 1}"}, "not a suite at backbone"),
        ({"  dtd": "  dtd: [1]"}, r"not a suite at datasets\.dtd: a dataset is a card"),
        ({"  dtd": "  dtd: {class_pat: X}"}, r"not a suite at datasets\.dtd: a dataset is a card"),
        ({"  dtd": "  5: mini/dtd"}, "not a suite at datasets"),
        ({"datasets": "dataset:"}, "unknown key of suite .* 'dataset'; did you mean 'datasets'"),
        ({"  dtd": "  {}"}, "not a suite at datasets"),
        *[({"name": f"name: {name}"}, "not a suite at name") for name in OUTSIDE],
        *[({"  dtd": f"  {name}: mini/dtd"}, "not a suite at datasets") for name in OUTSIDE],
        *[
            ({"  dtd": f"  dtd: {{class_path: {path}, init_args: {{root: x}}}}"}, r"not a suite at datasets\.dtd")
            for path in ("os.path", "subprocess.Popen", "ImageFolders", '"Manifest\\n"', "5", "[ImageFolder]")
        ],
        *[
            ({"  dtd": f"  dtd: {{class_path: ImageFolder, init_args: {{{key}: {value}}}}}"}, r"datasets\.dtd")
            for key in ("root", "path", "dataset", "template")
            for value in ("5", "null", "[x]", "{x: 1}", "true", '""', ".nan", "2026-11-27")
        ],
    ],
)
def test_what_is_no_suite_is_said_with_the_place(change: dict[str, str], said: str, tmp_path: Path) -> None:
    lines = SUITE.splitlines()
    ((start, line),) = change.items()
    text = "\n".join(line if one.startswith(start) else one for one in lines)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_suite(str(tmp_path / "s.yaml"))


@pytest.mark.parametrize("root", ["photos", "~nobody-of-that-name/x", "x" * 300])
def test_a_place_in_a_suite_is_beside_its_file(root: str, tmp_path: Path) -> None:
    dataset = f"{{class_path: ImageFolder, init_args: {{root: {root}}}}}"
    (tmp_path / "s.yaml").write_text(SUITE.replace("mini/dtd", dataset))
    assert load_suite(str(tmp_path / "s.yaml")).datasets["dtd"]["init_args"]["root"] == str(tmp_path / root)
