"""`clipbench predict`: class names as typed, and what is shown of names that others chose."""

from __future__ import annotations

from typing import Any

import pytest

from clipbench.commands import main, predict


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("cat,dog", ["cat", "dog"]),
        (" cat , dog,", ["cat", "dog"]),
        ('"big, cat", dog', ["big, cat", "dog"]),
        ('cat,5" disk', ["cat", '5" disk']),
        ("no,2024", ["no", "2024"]),
        ("", []),
    ],
)
def test_class_names_as_in_a_line_of_csv(given: str, names: list[str]) -> None:
    assert predict.listed_names(given) == names


@pytest.mark.parametrize("given", ["cat\ndog,bird", "cat\r,dog", '"cat,dog', '"cat"s,dog', "x" * 200_000 + ",dog"])
def test_class_names_that_are_no_line_of_csv(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "a.png", "--weights", "w.safetensors", "--classes", given]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("clipbench: --classes is no line of names")
    assert shown.count("\n") == 1
    assert len(shown) < 200


def test_names_of_files_and_classes_do_nothing_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def foreign(*_: Any) -> list[dict[str, Any]]:
        return [{"image": "a\x1b[2J\nb.png", "classes": [("cat\u202e", 0.75), ("\ud800", 0.25)]}]

    monkeypatch.setattr(predict, "predict", foreign)
    assert main(["predict", "a.png", "--weights", "w.safetensors"]) == 0
    assert capsys.readouterr().out == "a\\x1b[2J\\nb.png  cat\\u202e 75.0 %  \\ud800 25.0 %\n"
