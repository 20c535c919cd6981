"""Studies: what a file may say, which recipes it becomes, and one that is run from the command line."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipbench.commands import main
from clipbench.errors import ClipbenchError, UnknownName
from clipbench.recipes.recipe import load_recipe, resolve
from clipbench.recipes.studies import Study, known_studies, load_study, study_from

NOISE_4 = {"model.context_words": "", "model.n_context": 4}  # words give the number of vectors themselves
STUDY: dict[str, Any] = {
    "name": "parts",
    "title": "Which parts",
    "question": "Do  they\nmatter?",
    "suite": "mini",
    "datasets": ["eurosat", "dtd"],
    "seeds": [1],
    "shots": 2,
    "minutes": 1,
    "default": {"label": "plain", "recipe": "clipfit", "set": {"trainer.max_epochs": 1}},
    "references": ["zero_shot"],
    "axes": {"weight": {"at": 8}, "family": {"at": "clipfit"}, "words": {"at": 16, "around": "context"}},
    "variants": [
        {"axis": "weight", "value": 10, "label": "weight_10", "set": {"model.distillation_weight": 10.0}},
        {"axis": "weight", "value": 0.5, "label": "weight_half", "set": {"model.distillation_weight": 0.5}},
        {"axis": "family", "value": "coop", "label": "context", "recipe": "coop", "set": {"trainer.max_epochs": 2}},
        {"axis": "words", "value": 4, "label": "context_4", "set": NOISE_4},
    ],
    "figures": [{"kind": "cost", "x": "share"}, {"kind": "axes"}],
}


def changed(**changes: Any) -> dict[str, Any]:
    content = copy.deepcopy(STUDY) | changes
    return {key: value for key, value in content.items() if value is not None}


def variants(*extra: dict[str, Any]) -> list[dict[str, Any]]:
    return [*copy.deepcopy(STUDY["variants"]), *extra]


def test_variants_become_recipes_above_the_overrides_of_their_suite() -> None:
    study = study_from(STUDY, "parts.yaml")
    recipe = {variant.label: variant for variant in study.variants}["weight_10"].as_recipe()
    assert (recipe.name, recipe.method) == ("weight_10", "CLIPFit")
    context = {"suite": "mini", "protocol": "base_to_novel", "dataset": "dtd", "shots": 2, "backbone": "mini"}
    base = {"model": {"init_args": {"backbone": "mini"}}, "data": {"class_path": "FewShotDataModule"}}
    config = resolve(recipe, base, context)
    packaged = resolve(load_recipe("clipfit"), base, context)
    assert config["model"]["init_args"] == packaged["model"]["init_args"] | {"distillation_weight": 10.0}
    assert config["trainer"]["max_epochs"] == 1, "set by the default, above the 20 of the suite"
    assert packaged["trainer"]["max_epochs"] == 20


def test_an_axis_may_stand_around_another_variant() -> None:
    study = study_from(STUDY, "parts.yaml")
    settings = {variant.label: (variant.recipe, variant.settings) for variant in study.variants}
    assert settings["context"] == ("coop", {"trainer.max_epochs": 2}), "nothing of the default reaches another recipe"
    assert settings["context_4"] == ("coop", {"trainer.max_epochs": 2} | NOISE_4)
    assert settings["zero_shot"] == ("zero_shot", {})
    assert study.references == ["zero_shot"]
    assert study.default.label == "plain"
    assert study.question == "Do they matter?"


def test_an_axis_may_stand_around_a_packaged_recipe() -> None:
    axes = STUDY["axes"] | {"rate": {"at": 0.005, "around": "clipfit"}}
    faster = {"axis": "rate", "value": 0.01, "label": "faster", "set": {"model.lr": 0.01}}
    study = study_from(changed(axes=axes, variants=variants(faster)), "parts.yaml")
    settings = {variant.label: (variant.recipe, variant.settings) for variant in study.variants}
    assert settings["clipfit"] == ("clipfit", {})
    assert settings["faster"] == ("clipfit", {"model.lr": 0.01}), "nothing of the default, though it is a clipfit"
    assert study.axes[-1].points == {"0.005": "clipfit", "0.01": "faster"}


def test_a_variant_may_begin_like_another_one() -> None:
    more = {"axis": "weight", "value": 2, "label": "more", "like": "context_4", "set": {"model.lr": 0.5}}
    study = study_from(changed(variants=variants(more)), "parts.yaml")
    (variant,) = [variant for variant in study.variants if variant.label == "more"]
    assert variant.recipe == "coop"
    assert variant.settings == {"trainer.max_epochs": 2, "model.lr": 0.5} | NOISE_4
    assert variant.axis == "weight"


def test_points_are_in_order_with_the_default_among_them() -> None:
    axes = {axis.name: axis for axis in study_from(STUDY, "parts.yaml").axes}
    assert axes["weight"].points == {"0.5": "weight_half", "8": "plain", "10": "weight_10"}
    assert list(axes["weight"].points) == ["0.5", "8", "10"], "numbers as numbers"
    assert list(axes["family"].points.items()) == [("clipfit", "plain"), ("coop", "context")]
    assert axes["words"].centre == "context"


def test_the_request_is_the_grid_of_its_variants_or_of_some() -> None:
    study = study_from(STUDY, "parts.yaml")
    request = study.request()
    assert [recipe.name for recipe in request.recipes] == [variant.label for variant in study.variants]
    assert (request.datasets, request.seeds, request.shots) == (("eurosat", "dtd"), (1,), 2)
    assert [recipe.name for recipe in study.request(["plain"]).recipes] == ["plain"]
    with pytest.raises(UnknownName, match="did you mean 'weight_half'"):
        study.request(["weight_hlaf"])


WRONG: list[tuple[dict[str, Any], str]] = [
    (changed(titel="x"), "did you mean 'title'"),
    (changed(suite="mnii"), "did you mean 'mini'"),
    (changed(datasets=["eurosatt"]), "did you mean 'eurosat'"),
    (changed(protocol="base2novel"), "did you mean 'base_to_novel'"),
    (changed(seeds=[]), "is not a study at seeds"),
    (changed(seeds=[-1]), r"is not a study at seeds\.0"),
    (changed(seeds=[2**32]), r"is not a study at seeds\.0"),
    (changed(seeds=[True]), r"is not a study at seeds\.0"),
    (changed(shots=10**9), "is not a study at shots"),
    (changed(name="../x"), "is not a study at name"),
    (changed(name="x\n"), "is not a study at name"),
    (changed(name="x" * 101), "is not a study at name"),
    (changed(suite=5), "is not a study at suite"),
    (changed(backbone=[]), "is not a study at backbone"),
    (changed(default=[]), "is not a study at default"),
    (changed(default={"label": "plain", "recipe": "no.yaml"}), r"unknown recipe or config file 'no\.yaml'"),
    (changed(axes=[]), "is not a study at axes"),
    (changed(variants={}), "is not a study at variants"),
    (changed(references="zero_shot"), "is not a study at references"),
    (changed(shots=0), "is not a study at shots"),
    (changed(shots=[2, 0]), "is not a study at shots"),
    (changed(shots=[2, 2]), "is not a study at shots"),
    (changed(minutes=31), "is not a study at minutes"),
    (changed(question=None), "'question' is a required property"),
    (changed(figures=[{"kind": "pie"}]), "is not a study at figures.0.kind"),
    (changed(default={"label": "plain", "recipe": "clipfti"}), "did you mean 'clipfit'"),
    (changed(default={"label": "a/b", "recipe": "clipfit"}), "is not a study at default.label"),
    (changed(default={"label": "coop", "recipe": "clipfit"}), "'coop' is a packaged recipe"),
    (changed(references=["zero_shto"]), "did you mean 'zero_shot'"),
    (changed(variants=variants({"axis": "wieght", "value": 1, "label": "x"})), "did you mean 'weight'"),
    (changed(variants=variants({"axis": "weight", "value": 1, "label": "plain"})), "two variants are called 'plain'"),
    (changed(variants=variants({"axis": "weight", "value": 1, "label": "x"})), "'x' and 'plain' are the same run"),
    (changed(variants=variants({"axis": "weight", "value": 10, "label": "x", "set": {"model.lr": 1.0}})), "of its own"),
    (changed(variants=variants({"axis": "weight", "value": 9, "label": "x", "set": {"lr": 1.0}})), "variants.4.set"),
    (changed(variants=variants({"axis": "weight", "value": 9, "label": "x", "set": {5: 1.0}})), "variants.4.set"),
    (changed(variants=STUDY["variants"][:3]), "axis 'words' needs variants"),
    (changed(axes=STUDY["axes"] | {"words": {"at": 16, "around": "contxet"}}), "did you mean 'context'"),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=[says for _, says in WRONG])
def test_wrong_studies(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ClipbenchError, match=says) as caught:
        study_from(content, "parts.yaml")
    assert "\n" not in str(caught.value)


def test_recipes_of_ones_own_lie_beside_the_study_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = "model: {class_path: ZeroShot, init_args: {template_set: %s}}\ntrainer: {max_epochs: 0}\n"
    for place, name, templates in (("studies", "mine", "single"), ("here", "mine", "coop"), ("here", "other", "coop")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / f"{name}.yaml").write_text(recipe % templates)
    (tmp_path / "studies/s.yaml").write_text(yaml.safe_dump(changed(references=["mine.yaml", "other.yaml"])))
    monkeypatch.chdir(tmp_path / "here")
    found = {recipe.name: recipe for recipe in load_study("../studies/s.yaml").request().recipes}
    assert found["mine"].sections["model"]["init_args"] == {"template_set": "single"}, "beside the study first"
    assert found["other"].sections["model"]["init_args"] == {"template_set": "coop"}
    twice = changed(references=["mine.yaml", str(tmp_path / "here/mine.yaml")])
    (tmp_path / "studies/s.yaml").write_text(yaml.safe_dump(twice))
    with pytest.raises(ClipbenchError, match="two of its recipes are called 'mine'"):
        load_study("../studies/s.yaml")


def test_an_unknown_study_and_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'clipfit_parts'"):
        load_study("clipfit_part")
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(ClipbenchError, match="is not YAML"):
        load_study(str(path))


def write(tmp_path: Path, **changes: Any) -> list[str]:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed(**changes)))
    return ["study", str(path), "--results", str(tmp_path / "runs"), "--jobs", "1"]


def test_a_study_is_run_resumed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write(tmp_path, datasets=["eurosat"], axes={"weight": {"at": 8}}, variants=STUDY["variants"][:1])
    folder = tmp_path / "runs/studies/parts"
    assert main([*words, "--dry-run"]) == 0
    assert "3 of 3 cells to run" in capsys.readouterr().out
    assert not folder.exists()
    assert main([*words, "--variants", "plain,zero_shot"]) == 0
    printed = capsys.readouterr().out
    assert "Which parts" in printed
    assert "one seed (1)" in " ".join(printed.split())
    records = folder / "mini/base_to_novel/records"
    assert len(list(records.glob("*.json"))) == 2
    times = {path: path.stat().st_mtime_ns for path in records.glob("*.json")}
    assert main(words) == 0
    assert "2 done already" in capsys.readouterr().out
    assert len(list(records.glob("*.json"))) == 3
    assert {path: path.stat().st_mtime_ns for path in times} == times
    rows = list(csv.DictReader((folder / "study.csv").open()))
    assert {row["recipe"] for row in rows} == {"plain", "weight_10", "zero_shot"}
    assert all(row["cells"] == row["cells_expected"] == "1" for row in rows)
    for name in ("study.md", "study.tex", "accuracy_vs_share.png", "accuracy_vs_share.pdf", "axes.png", "axes.pdf"):
        assert (folder / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"model.distilation_weight": 1.0}, "did you mean 'distillation_weight'"),
        ({"model.warmup_steps": 5}, "warmup_steps=5 is read by nothing: schedule cosine has none"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: dict[str, Any], says: str
) -> None:
    wrong = {"axis": "weight", "value": 9, "label": "x", "set": setting}
    assert main(write(tmp_path, variants=variants(wrong))) == 2
    assert says in capsys.readouterr().err


def test_list_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "studies"]) == 0
    assert set(known_studies()) <= set(capsys.readouterr().out.split())


# The packaged studies


@pytest.fixture(params=sorted(known_studies()))
def packaged(request: pytest.FixtureRequest) -> Study:
    return load_study(request.param)


def test_a_packaged_study_fits_its_name_and_half_an_hour(packaged: Study) -> None:
    assert packaged.name in known_studies()
    assert known_studies()[packaged.name].stem == packaged.name
    assert packaged.minutes <= 30
    assert "zero_shot" in [variant.recipe for variant in packaged.variants], "what has to be beaten"


def test_a_packaged_study_asks_for_nothing_that_its_methods_do_not_know(packaged: Study) -> None:
    """Every variant as the bench would build it, up to the method; no data, no weights."""
    from clipbench.bench.keys import check_keys
    from clipbench.methods import method_class

    context = {"suite": "mini", "protocol": packaged.protocol, "dataset": "dtd", "shots": 16, "backbone": "mini"}
    base = {"model": {"init_args": {"backbone": "mini"}}, "data": {"class_path": "FewShotDataModule"}}
    for variant in packaged.variants:
        config = resolve(variant.as_recipe(), base, context)
        check_keys(config)
        method_class(config["model"]["class_path"])(**config["model"]["init_args"])


@pytest.mark.parametrize(
    ("name", "one", "other", "own"),
    [
        ("clipfit_parts", "clipfit", "other_towers", {"train", "text_biases", "image_norms"}),
        ("fisher_freezing", "fisher_adaptune", "no_freezing", {"mode", "freezing"}),
    ],
)
def test_variants_of_another_recipe_differ_in_what_is_asked_alone(name: str, one: str, other: str, own: set) -> None:
    """Their settings are written out, so they must follow when those of the default's recipe change."""
    context = {"suite": "mini", "protocol": "base_to_novel", "dataset": "dtd", "shots": 16, "backbone": "mini"}
    base = {"model": {"init_args": {"backbone": "mini"}}, "data": {"class_path": "FewShotDataModule"}}
    by_label = {v.label: resolve(v.as_recipe(), base, context) for v in load_study(name).variants}
    trainers = [{k: v for k, v in by_label[label]["trainer"].items() if v is not None} for label in (one, other)]
    assert (by_label[one]["data"], trainers[0]) == (by_label[other]["data"], trainers[1])
    settings = [
        {k: v for k, v in by_label[label]["model"]["init_args"].items() if k not in own and v is not None}
        for label in (one, other)
    ]
    assert settings[0] == settings[1]


def test_the_study_of_the_docs_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs/studies.md").read_text()
    block = page.partition("    name: depth")[2].partition("\n\nA variant")[0]
    text = "name: depth" + block.replace("\n    ", "\n")
    study = study_from(yaml.safe_load(text), "docs/studies.md")
    assert [variant.label for variant in study.variants] == ["all_blocks", "last_2", "zero_shot"]
