"""Towers of other shapes: open_clip's modules behind the same interface, in eval mode, with fewer abilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clipbench.backbone import PromptPlan, build_backbone, describe_backbone
from clipbench.backbone.clip import Backbone
from clipbench.errors import BackboneError
from tests.backbone.tiny_backbones import TEXT, VISION

RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None}
TIMM = {
    **{"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear"},
    **{"timm_drop": 0.5, "timm_drop_path": 0.3, "image_size": 32},
}
CUSTOM_BLOCKS = VISION | {"image_size": 32, "qk_norm": True}
ATTENTION_POOL = VISION | {"image_size": 32, "attentional_pool": True, "attn_pooler_queries": 4, "output_tokens": True}
CLASS_TOKEN = TEXT | {"embed_cls": True, "output_tokens": True}
TOWERS = [
    (RESNET, TEXT, False),
    (TIMM, TEXT, False),
    (CUSTOM_BLOCKS, TEXT | {"scale_fc": True}, False),
    (ATTENTION_POOL, CLASS_TOKEN, True),
]
TOWER_NAMES = ["resnet", "timm", "custom blocks", "coca"]
PLAN = PromptPlan([[62, 1, 2, 63], [62, 1, 3, 4, 63]])


def pair(folder: Path, vision: dict[str, Any], text: dict[str, Any], custom: bool = False) -> tuple[Backbone, Any]:
    """Our backbone and open_clip's model with the same weights and running statistics."""
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(**config)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.add_(0.3)
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config | {"custom_text": custom}}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return build_backbone(f"local-dir:{folder}"), model.eval()


def first(features: Any) -> torch.Tensor:
    return features[0] if isinstance(features, tuple) else features


@pytest.mark.parametrize(("vision", "text", "custom"), TOWERS, ids=TOWER_NAMES)
def test_features_equal_open_clip_and_tensors_come_back(
    vision: dict[str, Any], text: dict[str, Any], custom: bool, tmp_path: Path
) -> None:
    ours, theirs = pair(tmp_path / "x", vision, text, custom)
    assert "transformer" not in ours.spec.abilities["image"]
    pixels = torch.randn(3, 3, 32, 32)
    ids = torch.zeros(2, 20, dtype=torch.long)
    for row, sequence in zip(ids, PLAN.sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    ours.train()  # a trainer would
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(pixels), first(theirs.encode_image(pixels)))
        text_features = theirs.text(ids) if custom else theirs.encode_text(ids)
        torch.testing.assert_close(ours.encode_text(PLAN), first(text_features), rtol=1e-5, atol=1e-5)
    back = ours.to_open_clip_state_dict()
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())


def test_running_statistics_survive_training_and_count_in_the_hash(tmp_path: Path) -> None:
    backbone, _ = pair(tmp_path / "x", TIMM, TEXT)
    view = backbone.view()
    trained = view.unfreeze(["text.blocks.0.mlp.proj.bias", "image.module.head.proj.weight"])
    view.train()
    assert not any(module.training for module in view.modules())
    statistics = {name: buffer.clone() for name, buffer in view.named_buffers()}
    pixels = torch.randn(4, 3, 32, 32)
    assert torch.equal(view.encode_image(pixels), view.encode_image(pixels))
    for _ in range(2):
        view.logits(view.encode_image(pixels), view.encode_text(PLAN)).sum().backward()
        with torch.no_grad():
            for parameter in trained.values():
                parameter.sub_(parameter.grad)
    assert view.compute_hash() != view.hash
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in view.named_buffers())
    assert backbone.compute_hash() == backbone.hash
    mean = next(buffer for name, buffer in backbone.named_buffers() if "running_mean" in name)
    mean[0] += 1
    assert backbone.compute_hash() != backbone.hash


def test_hooks_and_learned_context_are_refused_with_the_reason(tmp_path: Path) -> None:
    backbone, _ = pair(tmp_path / "x", RESNET, CLASS_TOKEN, custom=True)
    with pytest.raises(BackboneError, match="image tower takes no hooks: it is a ResNet"):
        backbone.encode_image(torch.zeros(1, 3, 32, 32), {0: lambda t: t})
    with pytest.raises(BackboneError, match="text tower takes no hooks: it appends a class token"):
        backbone.encode_text(PLAN, None, None, {0: lambda t: t})
    with pytest.raises(BackboneError, match="takes no learned context: it appends a class token"):
        backbone.encode_text(PLAN, torch.zeros(1, 16))


def test_a_tower_that_cannot_be_built_names_backbone_and_tower(tmp_path: Path) -> None:
    vision = TIMM | {"timm_model_name": "no_such_net"}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=r"the image tower of backbone 'local-dir:.*cannot be built .*no_such_net"):
        build_backbone(f"local-dir:{tmp_path}")


def test_a_fault_of_ours_in_building_a_tower_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("open_clip.model._build_vision_tower", fault)
    with pytest.raises(ZeroDivisionError):
        describe_backbone("RN50/openai")


@pytest.mark.parametrize(("vision", "text", "custom"), TOWERS, ids=TOWER_NAMES)
def test_a_view_computes_with_tensors_and_buffers_of_its_own(
    vision: dict[str, Any], text: dict[str, Any], custom: bool, tmp_path: Path
) -> None:
    """Against the same values in a backbone of its own: a closure in open_clip that meant the original would show."""
    backbone, _ = pair(tmp_path / "x", vision, text, custom)
    other = build_backbone(backbone.spec.name)
    view, pixels = backbone.view(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = view.encode_image(pixels), view.encode_text(PLAN)
        assert torch.equal(before[0], backbone.encode_image(pixels))
        assert torch.equal(before[1], backbone.encode_text(PLAN))
        view.unfreeze([name for name, _ in view.named_parameters()])
        for own, model in ((view.state_dict(), view), (other.state_dict(), other)):
            assert own.keys() == backbone.state_dict().keys(), type(model)
            for tensor in own.values():
                if tensor.is_floating_point():
                    tensor.mul_(1.1).add_(0.01)
        assert torch.equal(view.encode_image(pixels), other.encode_image(pixels))
        assert torch.equal(view.encode_text(PLAN), other.encode_text(PLAN))
        assert not torch.allclose(view.encode_image(pixels), before[0])
        assert not torch.allclose(view.encode_text(PLAN), before[1])
        assert torch.equal(backbone.encode_image(pixels), before[0])
        assert torch.equal(backbone.encode_text(PLAN), before[1])
    assert backbone.compute_hash() == backbone.hash
    backbone.view().to("meta")
    assert backbone.compute_hash() == backbone.hash
