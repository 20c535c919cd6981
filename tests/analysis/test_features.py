"""Feature cosines: 1 where nothing was learned, and the plain computation on two backbones otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipbench.analysis.features import cosine, feature_rows, of_weights
from clipbench.backbone.clip import build_backbone
from clipbench.backbone.prompts import PromptPlan
from clipbench.errors import ConfigError
from clipbench.recipes.suites import load_suite
from clipbench.testing.subject import Subject

Make = Callable[..., Subject]
MINI = load_suite("mini")


@pytest.mark.parametrize("recipe", ["zero_shot", "clipfit"])
def test_what_has_not_learned_has_not_turned(subject: Make, recipe: str) -> None:
    with subject(recipe).cli() as cli:
        rows = feature_rows(cli.model, cli.datamodule)
    assert [row["split"] for row in rows] == ["base"] * 5 + ["novel"] * 5
    assert [row["trained"] for row in rows] == [True] * 5 + [False] * 5
    assert sum(row["images"] for row in rows) == len(cli.datamodule.split.test)
    for row in rows:
        assert row["text_cosine"] == pytest.approx(1, abs=1e-9)
        assert row["image_cosine"] == pytest.approx(1, abs=1e-9)
        assert row["image_cosine_min"] == pytest.approx(1, abs=1e-9)


def test_cosines_equal_those_of_a_second_backbone(subject: Make) -> None:
    """The pretrained features come from a backbone of its own, class by class and image by image."""
    untouched = build_backbone("mini")
    one = subject(**{"model.lr": 0.05, "model.warmup_epochs": 0, "model.distillation_weight": 0.0})
    with one.cli() as cli:
        one.fit(cli)
        method, data = cli.model, cli.datamodule
        rows = feature_rows(method, data)
        for split, views in zip(method.task.tests, data.test_dataloader(), strict=True):
            batches = list(views)
            images = torch.cat([batch.image for batch in batches])
            labels = torch.cat([batch.label for batch in batches])
            for label, name in enumerate(split.classnames):
                texts = [template.format(name) for template in method.templates]
                with torch.no_grad():
                    ids = PromptPlan(untouched.tokenize(texts))
                    text = cosine(
                        method.backbone.encode_text(ids).mean(0)[None], untouched.encode_text(ids).mean(0)[None]
                    )
                    pixels = untouched.normalise(images[labels == label])
                    image = cosine(method.backbone.encode_image(pixels), untouched.encode_image(pixels))
                assert text is not None
                assert image is not None
                row = next(row for row in rows if (row["split"], row["label"]) == (split.name, label))
                assert row["class"] == name
                assert row["images"] == len(image)
                assert row["text_cosine"] == pytest.approx(float(text), abs=1e-8)
                assert row["image_cosine"] == pytest.approx(float(image.mean()), abs=1e-6)
                assert row["image_cosine_min"] == pytest.approx(float(image.min()), abs=1e-6)
                assert row["text_cosine"] < 1 - 1e-6
                assert row["image_cosine"] < 1 - 1e-3


def test_classes_that_zero_shot_answers_for_have_not_turned(subject: Make) -> None:
    """The linear probe has no weights for novel classes (`novel_rule=frozen`)."""
    one = subject("linear_probe")
    with one.cli() as cli:
        one.fit(cli)
        rows = feature_rows(cli.model, cli.datamodule)
    novel = [row for row in rows if not row["trained"]]
    assert len(novel) == 5
    assert all(row["text_cosine"] == pytest.approx(1, abs=1e-9) for row in novel)
    assert {row["text_cosine"] for row in rows if row["trained"]} == {None}, "weights and a bias are no text features"


def test_features_of_another_space_have_no_cosine() -> None:
    assert cosine(torch.ones(2, 3), torch.ones(2, 4)) is None
    found = cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    assert found is not None
    assert float(found) == pytest.approx(0.5**0.5)


def test_weights_give_the_rows_of_its_fit(subject: Make) -> None:
    one = subject()
    path = one.folder / "learned.safetensors"
    with one.cli() as cli:
        one.fit(cli)
        expected = feature_rows(cli.model, cli.datamodule)
        cli.model.save(path, "clipfit")
    rows = of_weights(path, MINI, "base_to_novel", None)
    assert [row["class"] for row in rows] == [row["class"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["text_cosine"] == pytest.approx(other["text_cosine"], abs=1e-12)
        assert row["image_cosine"] == pytest.approx(other["image_cosine"], abs=1e-12)


def test_a_protocol_of_other_classes_is_refused(subject: Make, tmp_path: Path) -> None:
    one = replace(subject(), folder=tmp_path)
    with one.cli() as cli:
        cli.model.save(tmp_path / "learned.safetensors")
    with pytest.raises(ConfigError, match="few_shot"):
        of_weights(tmp_path / "learned.safetensors", MINI, "few_shot", None)


def test_a_target_is_compared_under_its_own_sentences(subject: Make) -> None:
    one = subject("kgcoop")
    targets = {"dtd": "mini/dtd"}
    with one.cli(**{"data.protocol": "cross_dataset", "data.targets": targets}) as cli:
        one.fit(cli)
        method, split = cli.model, cli.datamodule.task.tests[-1]
        found = [row["text_cosine"] for row in feature_rows(method, cli.datamodule) if row["split"] == "dtd"]
        with torch.no_grad(), method.prompts.using([str(split.template)]):
            pretrained = method.prompts.pretrained_features(split.classnames)
            expected = cosine(method.class_features(split.classnames), pretrained)
    assert expected is not None
    assert found == pytest.approx(expected.tolist(), abs=1e-9)
