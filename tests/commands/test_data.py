"""`clipbench data`: what is asked for, its exit status, and one sentence for a wrong call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipbench.commands import main
from clipbench.data import cards
from clipbench.data.cards import load_card
from clipbench.testing.cards import fake_tree


def test_suites_and_cards_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "status", "imagenet_variants", "dtd", "--root", str(tmp_path)]) == 1
    lines = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("absent")]
    assert lines == ["imagenet_a", "imagenet_r", "imagenet_sketch", "imagenetv2", "dtd"]
    assert main(["data", "status", "Clip1"]) == 2
    assert "unknown dataset or suite 'Clip1'; did you mean 'clip11'?" in capsys.readouterr().err
    assert main(["data", "status", "mini", "mini"]) == 0
    assert capsys.readouterr().out.count("rendered ") == 11


def test_verify_with_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = fake_tree(load_card("dtd"), tmp_path)
    monkeypatch.setattr(cards, "_load", lambda *_: card)
    path = next((tmp_path / "dtd" / "images").rglob("*.jpg"))
    path.write_bytes(b"\xff\xd8 no more")
    assert main(["data", "verify", "dtd", "--root", str(tmp_path)]) == 0
    assert main(["data", "verify", "dtd", "--images", "--root", str(tmp_path)]) == 1
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dtt"], "unknown dataset 'dtt'; did you mean 'dtd'?"),
        (["dtd", "--shots", "0"], "shots is 0; at least one image per class is needed"),
        (["dtd", "--shots", "-3"], "shots is -3"),
        (["dtd", "--seed", "-1"], "seed is -1; it must be at least 0, since the generator would draw as for 1"),
        (["dtd", "--splits", "/nowhere"], "--splits /nowhere: there is no such folder"),
        (["dtd", "--splits", "x" * 300], "there is no such folder"),
        (["imagenet"], "'imagenet' has no split file"),
        (["x.yaml"], "there is no card file x.yaml"),
        (["\x1b[2Jdtd"], "unknown dataset '\\x1b[2Jdtd'"),
    ],
)
def test_a_draw_that_cannot_be_is_one_sentence(
    words: list[str], says: str, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = [] if "--splits" in words else ["--splits", str(shared / "splits")]
    assert main(["data", "draw", *words, *splits]) in (1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert says in said.err


def test_a_draw_from_another_split_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "split_zhou_DescribableTextures.json").write_text(json.dumps({"train": []}))
    assert main(["data", "draw", "dtd", "--splits", str(tmp_path)]) == 1
    assert "is not the published file: its SHA-256 is" in capsys.readouterr().err
