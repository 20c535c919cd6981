"""The towers against open_clip's own forward pass with the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from clipbench.backbone import PromptPlan, build_backbone
from clipbench.backbone.clip import Backbone

TEXTS = ["a photo of a cat.", "a photo of a very long legged spider crab, a type of animal.", "a photo of a dog."]


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest entry."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def twin(backbone: Backbone) -> Any:
    """open_clip's model with the tensors of a backbone, strictly loaded."""
    import open_clip

    config = {k: v for k, v in backbone.spec.config.items() if k != "custom_text"}
    kind = open_clip.CustomTextCLIP if backbone.spec.config.get("custom_text") else open_clip.CLIP
    with torch.device("meta"):
        model = kind(**config)
    mask = {"attn_mask": model.attn_mask} if getattr(model, "attn_mask", None) is not None else {}
    model.load_state_dict(backbone.to_open_clip_state_dict(), assign=True)
    if mask:
        length = backbone.text.context_length
        model.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
    if hasattr(model, "text") and getattr(model.text, "attn_mask", None) is not None:
        model.text.attn_mask = model.text.build_causal_mask()
    return model.eval()


def padded(backbone: Backbone, sequences: list[list[int]]) -> Tensor:
    """Token ids as open_clip wants them."""
    ids = torch.full((len(sequences), backbone.text.context_length), backbone.text.pad)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return ids


def images(backbone: Backbone, count: int) -> Tensor:
    size = backbone.spec.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("name", "count"), [("ViT-B-32/random", 2), ("ViT-B-16-quickgelu/random", 2), ("ViT-L-14/random", 1)]
)
def test_features_equal_open_clip_and_tensors_come_back(name: str, count: int) -> None:
    backbone = build_backbone(name)
    model = twin(backbone)
    pixels = images(backbone, count)
    sequences = backbone.tokenize(TEXTS[: count + 1])
    with torch.no_grad():
        assert relative(backbone.encode_image(pixels), model.encode_image(pixels)) < 1e-5
        assert (
            relative(backbone.encode_text(PromptPlan(sequences)), model.encode_text(padded(backbone, sequences))) < 1e-5
        )


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}),
    "quick gelu": ({}, {}, {"quick_gelu": True}),
    "no ln_pre, layer scale, other eps": (
        {"no_ln_pre": True, "ls_init_value": 0.1, "norm_kwargs": {"eps": 1e-3}},
        {},
        {},
    ),
    "average, norm before": ({"pool_type": "avg"}, {"ls_init_value": 0.1}, {}),
    "average, norm after": ({"pool_type": "avg", "final_ln_after_pool": True}, {}, {}),
    "class token, norm after": ({"final_ln_after_pool": True}, {}, {}),
    "positions fixed": ({"pos_embed_type": "sin_cos_2d"}, {"act_kwargs": {"approximate": "tanh"}}, {}),
    "not causal, last": ({}, {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}, {"custom_text": True}),
    "not causal, first": (
        {},
        {"no_causal_mask": True, "pool_type": "first"},
        {"custom_text": True, "init_logit_bias": -3},
    ),
    "end of text by id": ({}, {"pool_type": "eos", "eos_id": 63, "pad_id": 1}, {"custom_text": True}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_known_shape_equals_open_clip(shape: str, tiny: Any) -> None:
    vision, text, model = SHAPES[shape]
    backbone = tiny(vision, text, **model)
    assert "transformer" in backbone.spec.abilities["image"] & backbone.spec.abilities["text"]
    theirs = twin(backbone)
    pixels = images(backbone, 3)
    sequences = [[62, 5, 6, 7, 63], [62, 5, 8, 63], [62, 5, 6, 9, 10, 11, 63]]
    with torch.no_grad():
        f, t = theirs.encode_image(pixels), theirs.encode_text(padded(backbone, sequences))
        ours = backbone.encode_image(pixels), backbone.encode_text(PromptPlan(sequences))
        assert relative(ours[0], f) < 1e-5
        assert relative(ours[1], t) < 1e-5
        logits = theirs.get_logits(pixels, padded(backbone, sequences))[0]
        torch.testing.assert_close(backbone.logits(*ours), logits, rtol=1e-5, atol=1e-5)


def test_round_trip_is_bit_identical(tiny: Any) -> None:
    for vision, text, model in SHAPES.values():
        backbone = tiny(vision, text, **model)
        stored = load_file(next(Path(backbone.spec.source.partition(":")[2]).glob("*.safetensors")))
        back = backbone.to_open_clip_state_dict()
        assert back.keys() == stored.keys()
        for name, tensor in stored.items():
            assert torch.equal(back[name], tensor), name


def test_image_size_resamples_positions_as_open_clip(tiny: Any) -> None:
    import open_clip

    native = tiny()
    resized = build_backbone(native.spec.name + "?image_size=40")
    theirs, _, _ = open_clip.create_model_and_transforms(native.spec.name, force_image_size=40)
    assert torch.equal(resized.image.positional_embedding, theirs.visual.positional_embedding)
    assert resized.hash != native.hash
    assert resized.spec.preprocessing.size == 40
    pixels = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        assert relative(resized.encode_image(pixels), theirs.eval().encode_image(pixels)) < 1e-5


def restored(shared: Path, encoder: str, folder: Path) -> str:
    """A real encoder of the shared material as a `local-dir:` backbone."""
    command = [sys.executable, str(shared / "real" / "restore.py"), encoder, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return f"local-dir:{folder}"


@pytest.mark.parametrize(("encoder", "ours"), [("vits14", True), ("efflite0", False)])
def test_real_encoders_equal_open_clip(encoder: str, ours: bool, shared: Path, tmp_path: Path) -> None:
    import open_clip

    name = restored(shared, encoder, tmp_path)
    size = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]["image_size"]
    backbone = build_backbone(name)
    assert ("transformer" in backbone.spec.abilities["image"]) is ours
    theirs, _, _ = open_clip.create_model_and_transforms(name)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    sequences = backbone.tokenize(["a photo of a river.", "a photo of a sea or lake."])
    with torch.no_grad():
        assert relative(backbone.encode_image(pixels), theirs.eval().encode_image(pixels)) < 1e-5
        tokens = open_clip.get_tokenizer(name)(["a photo of a river.", "a photo of a sea or lake."])
        assert torch.equal(tokens, padded(backbone, sequences))
        assert relative(backbone.encode_text(PromptPlan(sequences)), theirs.encode_text(tokens)) < 1e-5
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(backbone.to_open_clip_state_dict()[key], tensor), key
