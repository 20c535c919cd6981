"""Deep prompts: where the tokens stand, block by block by hand in float64, also where patches are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench.backbone.clip import Backbone, build_backbone
from clipbench.backbone.text_tokens import TextTokens
from clipbench.backbone.transformer import Block
from clipbench.backbone.view import BackboneView
from clipbench.errors import ConfigError
from clipbench.testing import plain
from clipbench.tuning.class_prompts import ClassPrompts
from clipbench.tuning.context import Context
from clipbench.tuning.deep_prompts import TextPrompts, encode_image, from_noise, refuse_senseless, refuse_too_deep
from tests.backbone.tiny_backbones import TEXT, VISION, write_folder

NAMES = ("cat", "red_fox", "annual crop land")


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Three blocks in either tower, in float64."""
    text = TEXT | {"vocab_size": 49408, "layers": 3}
    return build_backbone(write_folder(tmp_path_factory.mktemp("towers"), VISION, text)).double()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def wide(depth: int, length: int, width: int) -> list[Tensor]:
    """Prompts large enough to be seen."""
    return [50 * p.double().requires_grad_() for p in from_noise(depth, length, width, generator())]


def pixels(count: int = 3) -> Tensor:
    return torch.randn((count, 3, 16, 16), generator=generator(), dtype=torch.float64)


def block(of: Block, x: Tensor, causal: bool) -> Tensor:
    """One block of (B, L, W), by torch's attention."""
    h = of.ln_1(x)
    q, k, v = (f(h).unflatten(-1, (of.attn.heads, -1)).transpose(1, 2) for f in
               (of.attn.q_proj, of.attn.k_proj, of.attn.v_proj))  # fmt: skip
    h = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    x = x + of.attn.out_proj(h)
    return x + of.mlp(of.ln_2(x))


def image_by_hand(backbone: Backbone, images: Tensor, prompts: Sequence[Tensor], averaged: bool = False) -> Tensor:
    tower = backbone.image
    patches = tower.patch_embed(tower.patches(images))
    x = torch.cat([tower.class_embedding.expand(len(images), 1, -1), patches], dim=1) + tower.positional_embedding
    length = x.shape[1]
    x = torch.cat([x, prompts[0].expand(len(images), -1, -1)], dim=1)
    x = x if tower.ln_pre is None else tower.ln_pre(x)
    for number, of in enumerate(tower.blocks):
        if 0 < number < len(prompts):
            x = torch.cat([x[:, :length], prompts[number].expand(len(images), -1, -1)], dim=1)
        x = block(of, x, causal=False)
    if averaged:
        return tower.ln_post(x[:, 1:length]).mean(dim=1) @ tower.proj
    return tower.ln_post(x[:, 0]) @ tower.proj


def text_by_hand(backbone: Backbone, names: Sequence[str], words: str, prompts: Sequence[Tensor]) -> Tensor:
    tower, rows = backbone.text, []
    for name in names:
        (ids,) = backbone.tokenize([f"{words} {name.replace('_', ' ')}."])
        x = tower.token_embedding.weight[torch.tensor(ids)]
        length = len(prompts[0])
        x = torch.cat([x[:1], prompts[0], x[1 + length :]]) + tower.positional_embedding[: len(ids)]
        for number, of in enumerate(tower.blocks):
            if 0 < number < len(prompts):
                x = torch.cat([x[:1], prompts[number], x[1 + length :]])
            x = block(of, x[None], causal=True)[0]
        rows.append(tower.ln_final(x[-1]) @ tower.proj)
    return torch.stack(rows)


def equal(found: Tensor, expected: Tensor, trained: Sequence[Tensor]) -> None:
    """Values and gradients, to 1e-10."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for ours, theirs in zip(*(torch.autograd.grad(f.square().sum(), trained) for f in (found, expected)), strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_image_prompts_block_by_block(towers: Backbone, depth: int) -> None:
    prompts = wide(depth, 4, 24)
    found = encode_image(towers, pixels(), prompts)
    equal(found, image_by_hand(towers, pixels(), prompts), prompts)
    with plain.plain_image(towers):
        torch.testing.assert_close(found, encode_image(towers, pixels(), prompts), rtol=0, atol=1e-10)
    assert (found - towers.encode_image(pixels())).abs().max() > 1e-3


@pytest.mark.parametrize("vision", [{"pool_type": "avg"}, {"no_ln_pre": True}, {"pool_type": "avg", "no_ln_pre": True}])
def test_other_image_towers(vision: dict[str, object], tmp_path: Path) -> None:
    """Prompts of a tower that averages its patches are seen by them, and not averaged."""
    backbone = build_backbone(write_folder(tmp_path, VISION | vision, TEXT)).double()
    prompts = wide(2, 4, 24)
    found = encode_image(backbone, pixels(), prompts)
    equal(found, image_by_hand(backbone, pixels(), prompts, averaged="pool_type" in vision), prompts)
    with plain.plain_image(backbone):
        torch.testing.assert_close(found, encode_image(backbone, pixels(), prompts), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("words", "length"), [("a photo of a", 2), ("a photo of a", 4), ("", 3)])
@pytest.mark.parametrize("depth", [1, 3])
def test_text_prompts_block_by_block(
    towers: Backbone, words: str, length: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words beyond the first prompt stay, and the shared prefix is computed once."""
    view = towers.view()
    ours = TextPrompts.begin(view, words, length, depth, generator()).double()
    with torch.no_grad():
        for parameter in ours.deeper:
            parameter.mul_(50)
    prefixes: list[int] = []
    replace = TextTokens.replace
    monkeypatch.setattr(
        TextTokens, "replace", lambda self, *a: (prefixes.append(self.layout.prefix), replace(self, *a))[1]
    )
    found = ours.features(ClassPrompts(view, ["{}."]), NAMES)
    expected = text_by_hand(towers, NAMES, words or " ".join(["x"] * length), ours.all())
    equal(found, expected, list(ours.parameters()))
    shared = 1 + max(length, len(words.split()))
    assert prefixes == [shared] * (depth - 1)
    with plain.plain_text(view):
        again = ours.features(ClassPrompts(view, ["{}."]), NAMES)
    torch.testing.assert_close(found, again, rtol=0, atol=1e-10)


def test_shallow_prompts_from_words_begin_as_these_words(towers: Backbone) -> None:
    view = towers.view()
    ours = TextPrompts.begin(view, "a photo of a", 2, 1, generator()).double()
    plainly = ClassPrompts(view, ["a photo of a {}."]).features(NAMES)
    torch.testing.assert_close(ours.features(ClassPrompts(view, ["{}."]), NAMES), plainly, rtol=0, atol=1e-6)


def test_noise_is_drawn_in_order_and_small() -> None:
    prompts = from_noise(3, 500, 16, generator())
    assert [tuple(p.shape) for p in prompts] == [(500, 16)] * 3
    assert all(float(p.std()) == pytest.approx(0.02, rel=0.05) for p in prompts)
    assert torch.equal(torch.stack(prompts[:2]), torch.stack(from_noise(2, 500, 16, generator())))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 5))
def test_the_order_of_prompts_inside_a_block_does_not_matter_to_images(
    towers: Backbone, seed: int, depth: int, length: int
) -> None:
    """They have no position; and images do not see each other's prompts."""
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    prompts = [p.detach() for p in wide(depth, length, 24)]
    found = encode_image(towers, pixels(), prompts)
    shuffled = encode_image(towers, pixels(), [p[order] for p in prompts])
    torch.testing.assert_close(found, shuffled, rtol=0, atol=1e-10)
    torch.testing.assert_close(found[1:2], encode_image(towers, pixels()[1:2], prompts), rtol=0, atol=1e-10)


def test_what_is_senseless_is_refused_by_name(view: BackboneView) -> None:
    refuse_too_deep("VPT", view, "image", depth=3)
    with pytest.raises(ConfigError, match=r"text_depth of IVLP is 3, but the text tower of '.*' has 2 blocks"):
        refuse_too_deep("IVLP", view, "text", text_depth=3)
    with pytest.raises(ConfigError, match="n_prompts of VPT must be 1 or more, it is 0"):
        refuse_senseless("VPT", depth=1, n_prompts=0)
    with pytest.raises(ConfigError, match="5 context vectors cannot start from 'a photo of a', which has 4 tokens"):
        TextPrompts.begin(view, "a photo of a", 5, 1, generator())


def test_words_after_the_vectors_stand_before_the_name(view: BackboneView) -> None:
    (start, *words, end) = view.tokenize(["of a red fox."])[0]
    context = Context(torch.zeros(2, 16), followed_by=words[:2])
    assert context.plan(view, ["red_fox"]).sequences == ((start, 49408, 49409, *words, end),)
