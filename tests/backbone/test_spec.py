"""Names of backbones, resolved without torch and without weights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clipbench.backbone import build_backbone, catalogue, known_architectures, require, resolve_spec
from clipbench.backbone.spec import name_in, usual_name
from clipbench.errors import BackboneError, ConfigError, UnknownName
from tests.backbone.tiny_backbones import TEXT, VISION, WEIGHTS, write_folder


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


@pytest.mark.parametrize(("name", "architecture"), catalogue.OPENAI_NAMES.items())
def test_openais_own_names_mean_openais_weights(name: str, architecture: str) -> None:
    assert resolve_spec(name).pretrained == f"{architecture}/openai"
    assert resolve_spec(name).source == "tag:openai"
    assert usual_name(name) == f"{architecture}/openai"


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("ViT-B/16?image_size=112", "ViT-B-16/openai?image_size=112"),
        ("ViT-B/32/laion2b-s34b-b79k", "ViT-B-32/laion2b_s34b_b79k"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32/laion2b_s34b_b79k"),
        ("hf-hub:timm/vit_base_patch16_clip_224.openai", "ViT-B-16/openai"),
        *((name, name) for name in (
            "mini", "mini?image_size=64", "ViT-B-16", "ViT-B-16/random", "local-dir:a/b", "ViT-B-16@~/x.pt", "x", "",
            "hf-hub:a/b", "./x?y",
        )),
    ],
)  # fmt: skip
def test_one_spelling_of_a_name_stands_in_rows(name: str, usual: str) -> None:
    assert usual_name(name) == usual
    assert usual_name(usual) == usual


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("mini", "mini"),
        ("ViT-B/16", "ViT-B-16/openai"),
        ("ViT-B-16", "ViT-B-16"),
        ("local-dir:clip", "local-dir:{}/clip"),
        ("local-dir:/abs/clip", "local-dir:/abs/clip"),
        ("ViT-B/16@w.pt?activation=gelu", "ViT-B/16@{}/w.pt?activation=gelu"),
        ("clip", "{}/clip"),
        ("./other", "{}/other"),
        ("hf-hub:a/b", "hf-hub:a/b"),
        ("nothing", "nothing"),
    ],
)
def test_paths_in_a_file_begin_beside_it(name: str, there: str, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    assert name_in(tmp_path, name) == there.format(tmp_path)


def test_an_architecture_alone_is_enough_where_no_weights_are_needed() -> None:
    from clipbench.backbone import backbone_hash, describe_backbone, load_backbone

    assert describe_backbone("ViT-B-16").size() == 149_620_737
    for ask in (load_backbone, backbone_hash):
        with pytest.raises(ConfigError, match=r"without its weights: name one of ViT-B-16/openai, .* ViT-B-16@FILE"):
            ask("ViT-B-16")


def test_home_and_plain_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_folder(tmp_path / "home" / "clip", VISION, TEXT)
    weights = tmp_path / "home" / "clip" / WEIGHTS
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home")
    forms = ("local-dir:~/clip", "~/clip", "clip", "./clip", str(tmp_path / "home/clip"), "local-dir:clip")
    files = (f"~/clip/{WEIGHTS}", f"clip/{WEIGHTS}", str(weights), f"../home/clip/{WEIGHTS}")
    hashes = {build_backbone(form).hash for form in (name, *forms, *files)}
    assert len(hashes) == 1
    assert resolve_spec(f"ViT-B-16@~/clip/{WEIGHTS}").source == f"file:{weights}"
    (tmp_path / "home" / "clip" / "open_clip_config.json").unlink()
    for form, message in (
        (f"clip/{WEIGHTS}", "that says its architecture; name it 'ARCH@clip/"),
        ("clip", "'ViT-B-16@clip/FILE'"),
    ):
        with pytest.raises(BackboneError, match=message):
            resolve_spec(form)
    (tmp_path / "home" / "clip" / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="as models of Hugging Face transformers have"):
        resolve_spec("clip")


def test_the_only_checkpoint_of_a_folder_is_taken_and_of_several_one_is_named(tmp_path: Path) -> None:
    name, folder = write_folder(tmp_path, VISION, TEXT), tmp_path
    right = build_backbone(name).hash
    torch.save(load_file(folder / WEIGHTS), folder / "epoch_32.pt")
    (folder / WEIGHTS).unlink()
    assert build_backbone(name).hash == right
    (folder / "epoch_33.pt").write_bytes((folder / "epoch_32.pt").read_bytes())
    with pytest.raises(BackboneError, match=r"several checkpoints \(epoch_32.pt, epoch_33.pt\): name .*epoch_33"):
        build_backbone(name)
    assert build_backbone(f"{folder}/epoch_32.pt").hash == right


def test_spellings() -> None:
    assert resolve_spec("ViT-B/16/openai").architecture == "ViT-B-16"
    assert resolve_spec("ViT-B-32/laion2b-s34b-b79k").source == "tag:laion2b_s34b_b79k"
    small = resolve_spec("ViT-B-16/openai?image_size=112")
    assert (small.image_size, small.preprocessing.size, small.image_shape.grid) == (112, 112, (7, 7))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("vit-b/16", UnknownName, "unknown backbone 'vit-b/16'; did you mean 'ViT-B/16'"),
        ("rn50", UnknownName, "did you mean 'RN50'"),
        ("vit-b-16/openai", UnknownName, "did you mean 'ViT-B-16'"),
        ("openai/clip-vit-base-patch16", ConfigError, "open_clip's name of these weights is 'ViT-B-16/openai'"),
        ("hf-hub:openai/clip-vit-large-patch14", ConfigError, "for Hugging Face transformers; .* 'ViT-L-14/openai'"),
        ("hf-hub:clip", ConfigError, "named hf-hub:ORGANISATION/NAME"),
        ("laion/some-clip", ConfigError, "no file or folder 'laion/some-clip'.*'hf-hub:laion/some-clip'"),
        ("results/clip/epoch_3.pt", ConfigError, "no file or folder 'results/clip/epoch_3.pt'"),
        ("", UnknownName, "unknown backbone ''"),
        ("ViT-B-16@", ConfigError, "no file is named after '@'"),
        ("local-dir:", ConfigError, "no folder is named after 'local-dir:'"),
        ("ViT-B-16@/dev/null", BackboneError, "'/dev/null' is a pipe, socket or device"),
        ("./nowhere", BackboneError, "there is no checkpoint file"),
        ("~nobody-at-all/clip", BackboneError, "there is no checkpoint file '~nobody"),
        ("x" * 5000, UnknownName, "unknown backbone 'xxx"),
        ("local-dir:" + "x" * 5000, BackboneError, "does not exist"),
        ("ViT-B-16@" + "x" * 5000, BackboneError, "there is no checkpoint file"),
        ("ViT-B-16@a\0b", BackboneError, "there is no checkpoint file"),
        ("local-dir:\udcff", BackboneError, "does not exist"),
        ("ViT-B-61/openai", UnknownName, "architecture of a backbone 'ViT-B-61'; did you mean 'ViT-B-16'"),
        ("ViT-B-16/openia", UnknownName, "pretrained tag of ViT-B-16 'openia'; did you mean 'openai'"),
        ("minni", UnknownName, "unknown backbone 'minni'; did you mean 'mini'"),
        ("ViT-B-16/openai?imagesize=112", UnknownName, "option of a backbone 'imagesize'; did you mean 'image_size'"),
        *(
            (
                f"mini?image_size={size}",
                ConfigError,
                f"image_size is '{re.escape(size)}', but must be .* from 8 to 2048, a multiple",
            )
            for size in ("big", "1000000", "0", "-5", "224.5", "7", "50", "", "1e2", "+48", "4_8", "²", "9" * 400)
        ),
        ("mini?image_size=48&image_size=48", ConfigError, "image_size stands twice"),
        ("mini?", UnknownName, "unknown option of a backbone ''"),
        ("mini?size", UnknownName, "unknown option of a backbone 'size'; did you mean 'image_size'"),
        ("ViT-B-16-SigLIP/webli?image_size=99999", ConfigError, "from 1 to 2048"),
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
    good = {"embed_dim": 12, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)}
    towers = [
        {"vision_cfg": []}, {"text_cfg": 5}, {"embed_dim": "x"}, {"embed_dim": True}, {"embed_dim": 1e30},
        {"vision_cfg": VISION | {"layers": 0}}, {"vision_cfg": VISION | {"layers": [1, 2]}},
        {"vision_cfg": VISION | {"image_size": 1_000_000}}, {"vision_cfg": VISION | {"width": "768"}},
        {"text_cfg": TEXT | {"vocab_size": 10**12}}, {"text_cfg": TEXT | {"heads": 0}}, {"quick_gelu": "yes"},
    ]  # fmt: skip
    pixels = [{"mean": [0.5]}, {"std": [0, 1, 1]}, {"interpolation": "cubic"}, {"resize_mode": 3}, [], "x"]
    contents = ["", "{", "[" * 100_000, "\x00", json.dumps({"model_cfg": {}}), json.dumps([1]), '"' + "x" * 2_000_000]
    contents += [json.dumps({"model_cfg": good | tower}) for tower in towers]
    pixels += [{"mean": [float("nan"), 0, 0]}, {"std": [1, 1, 1e300]}, {"std": [float("inf"), 1, 1]}]
    contents += [json.dumps({"model_cfg": good, "preprocess_cfg": some}) for some in pixels]
    for content in contents:
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(BackboneError, match=r"open_clip_config.json is not an open_clip config") as error:
            resolve_spec(f"local-dir:{tmp_path}")
        assert len(str(error.value)) < 500
    for odd, message in (({"width": 25}, "25 is not divided by 3 heads"), ({"image_size": 4}, "less than one patch")):
        config = {"model_cfg": good | {"vision_cfg": VISION | odd}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        with pytest.raises(BackboneError, match=message):
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
