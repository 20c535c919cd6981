"""Single settings as they are typed, and how layers of them come together."""

from __future__ import annotations

from typing import Any

import pytest

from clipbench.errors import ConfigError
from clipbench.recipes.settings import from_dotted, merge, plain, read_setting, settled, typed_value

LIKE_YAML = ["2024", "no", "true", "1e-3", "[old] photos", "[old]", "#1", "@home", "2024-01-02", "{} texture.", "a: {}"]


@pytest.mark.parametrize("text", [*LIKE_YAML, "", " ", "- a", "!!python/name:os.system", "%x", "`x`", "'", '"', "\t1"])
@pytest.mark.parametrize("key", ["data.root", "data.init_args.template", "model.lr", "trainer.max_epochs", "weights"])
def test_what_is_typed_stays_text(key: str, text: str) -> None:
    assert read_setting(f"{key}={text}") == (key, text)


@pytest.mark.parametrize("text", ["null", "None", "~"])
def test_nothing_is_nothing_except_as_a_name_of_data(text: str) -> None:
    assert typed_value("model.start", text, "--model.start") is None
    assert typed_value("data.root", text, "--data.root") == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("trainer.callbacks", "[Timer, {class_path: X}]", ["Timer", {"class_path": "X"}]),
        ("trainer.logger", "{class_path: CSVLogger}", {"class_path": "CSVLogger"}),
        ("data", "{class_path: ImageFolder}", {"class_path": "ImageFolder"}),
        ("model.config.r", "8", 8),
    ],
)
def test_classes_and_what_lies_inside_of_an_argument_are_yaml(key: str, text: str, value: Any) -> None:
    assert typed_value(key, text, f"--{key}") == value


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.lr", "looks like model.lr=0.01"),
        ("model..lr=1", "'model..lr' has an empty part"),
        (".model.lr=1", "has an empty part"),
        ("model.=1", "has an empty part"),
        ("=1", "has an empty part"),
        ("trainer.callbacks=[", "the value is not YAML"),
        ("model.config.r=[", "the value is not YAML"),
        ("model.lr=" + "[" * 3000, "more than 50 levels of nesting"),
        ("data.root=" + "{" * 3000, "more than 50 levels of nesting"),
        ("data.root=\udcff", r"--set 'data.root=.udcff': it is not UTF-8 text"),
        ("data.\udcff=1", "it is not UTF-8 text"),
    ],
)
def test_settings_that_cannot_be_read(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        read_setting(setting)
    assert len(str(error.value)) < 300
    str(error.value).encode()


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("0.5", 0.5), ("no", False), ("null", None), ("[", "["), (2, 2)])
def test_a_plain_value(text: Any, value: Any) -> None:
    assert plain(text) == value


def test_settings_beside_a_class_are_that_classs() -> None:
    for words in (
        [("trainer.logger", "CSVLogger"), ("trainer.logger.save_dir", "logs")],
        [("trainer.logger.save_dir", "logs"), ("trainer.logger", "CSVLogger")],
        [("trainer.logger", {"class_path": "CSVLogger"}), ("trainer.logger.init_args.save_dir", "logs")],
    ):
        wanted = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}
        assert from_dotted(words) == {"trainer": {"logger": wanted}}


def test_callbacks_are_added_with_their_own_settings() -> None:
    words = [
        ("trainer.callbacks+", "A"), ("trainer.callbacks.x", "1"), ("trainer.callbacks+", "B"),
        ("trainer.callbacks.y", "2"), ("trainer.callbacks.z", "3"),
    ]  # fmt: skip
    added = [{"class_path": "A", "init_args": {"x": "1"}}, {"class_path": "B", "init_args": {"y": "2", "z": "3"}}]
    layer = from_dotted(words)
    assert settled(merge({}, layer)) == {"trainer": {"callbacks": added}}
    assert settled(merge({"trainer": {"callbacks": ["C"]}}, layer)) == {"trainer": {"callbacks": ["C", *added]}}
    assert settled(merge(layer, {"trainer": {"callbacks": ["C"]}})) == {"trainer": {"callbacks": ["C"]}}
    assert merge({"logger": True}, {"logger+": "A"}) == {"logger": ["A"]}


def test_a_later_class_leaves_the_settings_of_the_former() -> None:
    words = [("trainer.logger", "CSVLogger"), ("trainer.logger.save_dir", "a"), ("trainer.logger", "TensorBoardLogger")]
    assert from_dotted(words) == {"trainer": {"logger": "TensorBoardLogger"}}


@pytest.mark.parametrize("as_list", [False, True])
def test_a_schedule_by_epoch_is_a_value(as_list: bool) -> None:
    one = {"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {0: 8, 4: 2}}}
    given = {"trainer": {"callbacks": [one] if as_list else one}}
    assert settled(merge(merge({"trainer": {"max_epochs": 5}}, given), given)) == {
        "trainer": {"max_epochs": 5, **given["trainer"]}
    }
