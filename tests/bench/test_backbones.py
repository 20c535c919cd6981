"""A record states the weights that computed it; published weights count as such wherever their file lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipbench.backbone import clip, load, memory
from clipbench.bench.plan import make_plan
from clipbench.bench.run import run_cell
from clipbench.commands import main
from clipbench.recipes.recipe import load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite


def asked() -> Request:
    recipes = (load_recipe("zero_shot"),)
    return Request(recipes, load_suite("mini"), datasets=("eurosat",), seeds=(1,), shots=2)


def test_a_hash_that_was_remembered_wrongly_fails_the_cell_and_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_entry", lambda key: tmp_path / "entry.json")
    monkeypatch.setattr(clip, "_SHARED", {})
    right = clip.build_backbone("mini").hash
    file = load.weights_file(clip.resolve_spec("mini"))
    assert file is not None
    memory.remember(memory.file_key(file, "mini", "native"), "0" * 64)
    plan = make_plan(asked(), tmp_path)
    failed = run_cell(plan.cells[0], plan.folder).record
    assert failed is not None
    assert f"backbone 'mini' have the hash {right[:12]}, not 000000000000" in failed.data["error"]["message"]
    again = make_plan(asked(), tmp_path)
    done = run_cell(again.cells[0], again.folder).record
    assert done is not None
    assert done.ok
    assert done.provenance["backbone_hash"] == right


def test_published_weights_are_named_in_the_record_and_move_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plain,) = make_plan(asked(), tmp_path).cells
    assert "pretrained" not in plain.provenance
    monkeypatch.setattr(load, "known_weights", lambda spec: "ViT-B-16/openai")
    (planned,) = make_plan(asked(), tmp_path).cells
    assert planned.provenance["pretrained"] == "ViT-B-16/openai"
    assert planned.key == plain.key


def test_an_architecture_alone_is_refused_by_the_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["bench", "-m", "zero_shot", "--datasets", "dtd", "--results", str(tmp_path)]
    assert main([*words, "--backbone", "ViT-S-32"]) == 2
    assert "backbone 'ViT-S-32' names an architecture without its weights" in capsys.readouterr().err


def test_a_dry_run_needs_no_weights_to_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["bench", "-m", "zero_shot", "--datasets", "dtd", "--seeds", "1", "--results", str(tmp_path), "--dry-run"]
    main([*words, "--backbone", "ViT-S-32"])
    said = capsys.readouterr()
    assert "backbone 'ViT-S-32' names an architecture without its weights" in " ".join((said.out + said.err).split())


def test_other_spellings_of_a_backbone_give_the_same_cells() -> None:
    import argparse

    from clipbench.commands.bench import add_parser
    from clipbench.recipes.request import request_from

    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    names = ("ViT-B-16/openai", "ViT-B/16", "ViT-B/16/openai", "hf-hub:timm/vit_base_patch16_clip_224.openai")
    requests = [
        request_from(parser.parse_args(["bench", "-m", "coop", "--seeds", "1", "--backbone", name])) for name in names
    ]
    assert {request.backbone for request in requests} == {"ViT-B-16/openai"}
