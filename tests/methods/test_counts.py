"""What every recipe trains on OpenAI's ViT-B/16, number by number, on the official layout; its file says the count."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from clipbench.backbone.clip import describe_backbone
from clipbench.bench.trained_parameters import trained_by
from clipbench.commands import main
from clipbench.commands.show import lines_for
from clipbench.errors import ConfigError
from clipbench.recipes.recipe import known_recipes, load_recipe

VIT = "ViT-B-16/random"
WHOLE = 149_620_737

OF_VARIANTS = {
    ("clipfit", "model.image_norms=false"): 6_144,
    ("clipfit", "model.text_biases=false"): 39_936,
    ("bitfit", "model.train=['both towers, biases, except LayerNorm']"): 138_240,
    (
        "bitfit",
        "model.train=['both towers, biases, except *.q_proj.bias and *.k_proj.bias and *.v_proj.bias']",
    ): 124_928,  # as the code of 2SFS selects them
    ("layer_norm", "model.train=['both towers, blocks all, LayerNorm']"): 61_440,  # as it trains them in effect
    ("mft", "model.train=['image tower, blocks all, Linears']"): 84_934_656,
    ("mft", "model.train=['text tower, blocks all, Linears']"): 37_748_736,
    ("clip_lora", "model.train=['both towers, blocks all, attn.*']"): 245_760,
    ("adapter", "model.reduction=4"): 10_262_016,
    ("adapter", "model.reduction=64"): 670_176,
}
STORED = {"mft": 28_311_552 // 8, "ramt": 28_901_376 // 8, "clipfit": 4 * 46_080, "wise_ft": 4 * 124_323_840}


def test_the_whole() -> None:
    backbone = describe_backbone(VIT)
    assert backbone.size() == WHOLE
    assert sum(p.numel() for p in backbone.image.parameters()) == 86_192_640
    assert sum(p.numel() for p in backbone.text.parameters()) + 1 == 63_428_097
    assert backbone.text.token_embedding.weight.numel() == 25_296_896
    whole = load_recipe("full").about["parameters"]
    assert whole == WHOLE - 25_296_896 - 1  # all but the token table and the logit scale


@pytest.mark.parametrize("recipe", known_recipes())
def test_every_recipe_says_what_it_trains(recipe: str) -> None:
    facts = trained_by(recipe, VIT)
    counted, per_class = facts["trained_parameters"], facts.get("per_class", 0)  # counted for two classes
    growing = {"per_class": per_class} | ({"fixed": counted - 2 * per_class} if counted > 2 * per_class else {})
    stands = f"configs/methods/{recipe}.yaml says"
    line = f"parameters: {yaml.safe_dump(growing, default_flow_style=True).strip() if per_class else counted}"
    stated = load_recipe(recipe).about.get("parameters")
    assert stated is not None, f"{stands} nothing of what is trained; if it should be that, write '{line}' there"
    assert stated == (growing if per_class else counted), f"{stands} {stated}, but '{line}' is what it trains"

    assert counted == sum(facts["towers"].values()) == sum(part["parameters"] for part in facts["parts"])
    assert facts["share"] == pytest.approx(100 * counted / WHOLE)
    if recipe in STORED:
        assert (facts["stored_bytes"], facts["stored_at_most"]) == (STORED[recipe], False)


@pytest.mark.parametrize(("recipe", "setting"), OF_VARIANTS)
def test_variants(recipe: str, setting: str) -> None:
    assert trained_by(recipe, VIT, [setting])["trained_parameters"] == OF_VARIANTS[recipe, setting]


def test_a_head_says_what_a_class_costs() -> None:
    facts = trained_by("linear_probe", VIT)
    assert facts["per_class"] == 513
    assert "513 more for each further one" in lines_for(facts)
    assert "per_class" not in trained_by("clipfit", VIT)


def test_what_a_start_adds() -> None:
    facts = trained_by("mft", VIT, ["model.start=clipfit"])
    assert (facts["starts_from"], facts["trained_parameters"]) == ("clipfit", 28_311_552)
    assert "and what 'clipfit' changes" in lines_for(facts)
    assert "those of 'clipfit'" in lines_for(trained_by("wise_ft", VIT, ["model.start=clipfit"]))


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show", "params", "--config", "bitfit", "--backbone", VIT]) == 0
    printed = capsys.readouterr().out
    assert "171,008 trained of 149,620,737 (0.1143 %)" in printed
    assert "image 102,912, text 68,096" in printed
    assert "stored: 684,032 bytes" in printed
    assert main(["show", "params", "--config", "bitfit", "--backbone", VIT, "--set", "model.trian=[]"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"attn\.q_proj\.bias"):
        trained_by("bitfit", VIT, ["model.train=['text tower, blocks all, attn.qproj.bias']"])
