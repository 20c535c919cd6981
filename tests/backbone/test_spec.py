"""Names of backbones, resolved without torch and without weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipbench.backbone import catalogue, known_architectures, require, resolve_spec
from clipbench.errors import BackboneError, ConfigError, UnknownName


def test_openai_means_quick_gelu_and_openai_preprocessing() -> None:
    spec = resolve_spec("ViT-B-16/openai")
    assert spec.activation == "quickgelu"
    assert spec.image_shape.blocks.activation == spec.text_shape.blocks.activation == "quickgelu"
    pixels = spec.preprocessing
    assert (pixels.size, pixels.interpolation, pixels.resize_mode) == (224, "bicubic", "shortest")
    assert pixels.mean == (0.48145466, 0.4578275, 0.40821073)
    assert pixels.std == (0.26862954, 0.26130258, 0.27577711)
    assert spec.abilities == {
        "image": {"transformer", "layer_norm"},
        "text": {"transformer", "layer_norm", "packed"},
    }


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("ViT-B-16/laion2b_s34b_b88k", "gelu"),
        ("ViT-B-16/random", "gelu"),
        ("ViT-B-16-quickgelu/random", "quickgelu"),
        ("ViT-B-16-quickgelu/openai", "quickgelu"),
        ("ViT-L-14/openai", "quickgelu"),
        ("RN50/openai", "quickgelu"),
        ("ViT-B-32/metaclip_400m", "quickgelu"),
        ("ViT-B-16/random?activation=quickgelu", "quickgelu"),
    ],
)
def test_the_activation_is_that_of_the_weights(name: str, activation: str) -> None:
    assert resolve_spec(name).activation == activation


def test_the_table_of_tags_is_open_clips_own() -> None:
    from open_clip.pretrained import _PRETRAINED

    assert catalogue.pretrained_tags() == _PRETRAINED


def test_every_tag_of_open_clip_resolves_with_its_own_preprocessing() -> None:
    import open_clip

    count = 0
    for architecture, tag in open_clip.list_pretrained():
        if architecture not in known_architectures():
            continue
        spec, entry = resolve_spec(f"{architecture}/{tag}"), open_clip.get_pretrained_cfg(architecture, tag)
        assert spec.preprocessing.mean == tuple(entry["mean"])
        assert (spec.activation == "quickgelu") == bool(entry.get("quick_gelu"))
        count += 1
    assert count > 100


def test_spellings() -> None:
    assert resolve_spec("ViT-B/16/openai").architecture == "ViT-B-16"
    assert resolve_spec("ViT-B-32/laion2b-s34b-b79k").source == "tag:laion2b_s34b_b79k"
    small = resolve_spec("ViT-B-16/openai?image_size=112")
    assert (small.image_size, small.preprocessing.size, small.image_shape.grid) == (112, 112, (7, 7))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("ViT-B-61/openai", UnknownName, "architecture of a backbone 'ViT-B-61'; did you mean 'ViT-B-16'"),
        ("ViT-B-16/openia", UnknownName, "pretrained tag of ViT-B-16 'openia'; did you mean 'openai'"),
        ("minni", UnknownName, "unknown backbone 'minni'; did you mean 'mini'"),
        ("ViT-B-16/openai?imagesize=112", UnknownName, "option of a backbone 'imagesize'; did you mean 'image_size'"),
        ("ViT-B-16/openai?image_size=big", ConfigError, "image_size is 'big'.*number of pixels"),
        ("ViT-B-16/openai?image_size=8", ConfigError, "image_size is '8'.*from 16 to 2048, a multiple of .* 16 pixels"),
        ("ViT-B-16/openai?activation=gelu", ConfigError, "trained with quickgelu"),
        ("ViT-B-16/random?activation=relu", UnknownName, "activation 'relu'"),
        ("RN50/openai?image_size=112", BackboneError, "ResNet fixes the input at 224 pixels"),
        ("ViT-B-16@nowhere.safetensors", BackboneError, "there is no checkpoint file 'nowhere.safetensors'"),
        ("local-dir:nowhere", BackboneError, "does not exist.*open_clip_config.json"),
    ],
)
def test_wrong_names_are_one_sentence_with_the_nearest_right_thing(name: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        resolve_spec(name)


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    for content in ("{", json.dumps({"model_cfg": {}}), json.dumps([1])):
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(BackboneError, match=r"open_clip_config.json is not an open_clip config"):
            resolve_spec(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "image", "text"),
    [
        ("RN50/openai", set(), {"transformer", "layer_norm", "packed"}),
        ("ViT-B-16-SigLIP/webli", {"layer_norm"}, {"transformer", "layer_norm"}),
        ("coca_ViT-B-32/laion2b_s13b_b90k", {"layer_norm"}, {"layer_norm"}),
        ("roberta-ViT-B-32/laion2b_s12b_b32k", {"transformer", "layer_norm"}, {"layer_norm"}),
        ("MobileCLIP-S2/datacompdr", set(), {"transformer", "layer_norm"}),
    ],
)
def test_abilities_of_towers_of_other_shapes(name: str, image: set[str], text: set[str]) -> None:
    assert resolve_spec(name).abilities == {"image": image, "text": text}


def test_require_names_method_tower_and_reason() -> None:
    with pytest.raises(
        BackboneError, match=r"LoRA needs explicit transformer blocks in the image tower.*'RN50/openai'.*ResNet"
    ):
        require(resolve_spec("RN50/openai"), {"image": {"transformer"}}, "LoRA")
    with pytest.raises(BackboneError, match=r"CoOp needs .* in the text tower.*CoCa"):
        require(resolve_spec("coca_ViT-B-32/random"), {"text": {"transformer", "packed"}}, "CoOp")
    require(resolve_spec("ViT-B-16/openai"), {"image": {"transformer"}, "text": {"packed"}}, "LoRA")


def test_resolving_needs_no_torch() -> None:
    code = (
        "import sys\nfrom clipbench.backbone import PromptPlan, known_architectures, require, resolve_spec\n"
        "resolve_spec('ViT-B-16/openai'); known_architectures(); PromptPlan([[1, 2]])\n"
        "assert not {'torch', 'open_clip', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "total"),
    [("ViT-B-16/openai", 149_620_737), ("ViT-B-32/openai", 151_277_313), ("ViT-L-14/openai", 427_616_513)],
)
def test_described_without_weights(name: str, total: int) -> None:
    from clipbench.backbone import describe_backbone

    backbone: Any = describe_backbone(name)
    assert sum(p.numel() for p in backbone.parameters()) == total
    assert all(p.is_meta for p in backbone.parameters())
    norms = [p for n, p in backbone.image.named_parameters() if "ln_" in n]
    biases = [p for n, p in backbone.text.named_parameters() if n.endswith("mlp.proj.bias")]
    clipfit = {"ViT-B-16/openai": 46_080, "ViT-B-32/openai": 46_080, "ViT-L-14/openai": 111_616}[name]
    assert sum(p.numel() for p in norms + biases) == clipfit


def test_a_resnet_is_described_too() -> None:
    from clipbench.backbone import describe_backbone

    backbone = describe_backbone("RN50/openai")
    assert sum(p.numel() for p in backbone.parameters()) == 102_007_137
