"""What is lent comes back: tensors bit-identical, Linears in their places, nothing trainable, always in eval mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.backbone import PromptPlan
from clipbench.backbone.clip import Backbone
from clipbench.errors import BackboneError, UnknownName

PLAN = PromptPlan([[62, 1, 2, 63], [62, 1, 3, 4, 63], [62, 1, 5, 63]])
NAMES = ["text.blocks.0.mlp.proj.bias", "image.ln_post.weight", "image.blocks.1.attn.q_proj.weight", "logit_scale"]


class Scaled(nn.Module):
    """A Linear with a trained factor and optional dropout."""

    def __init__(self, linear: nn.Linear, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear = linear
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.linear(self.dropout(x))


@pytest.fixture
def backbone(tiny: Any) -> Backbone:
    return tiny()


def pixels() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def train(backbone: Backbone, parameters: list[nn.Parameter]) -> None:
    """Three steps that move everything trained."""
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for _ in range(3):
        logits = backbone.logits(backbone.encode_image(pixels()), backbone.encode_text(PLAN))
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.tensor([0, 2])).backward()
        optimizer.step()


def test_restore_is_bit_identical(backbone: Backbone) -> None:
    loaded = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    lent = backbone.lend(NAMES)
    assert list(lent) == NAMES
    assert {name for name, p in backbone.named_parameters() if p.requires_grad} == set(NAMES)
    swapped = backbone.reparametrise("image.blocks.0.mlp.fc", Scaled)
    train(backbone, [*lent.values(), swapped.factor])
    assert all(not torch.equal(parameter, loaded[name]) for name, parameter in lent.items())
    assert backbone.compute_hash() != backbone.hash
    backbone.restore()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, loaded[name]), name
    assert backbone.compute_hash() == backbone.hash
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())
    assert type(backbone.image.blocks[0].mlp.fc) is nn.Linear


def test_the_frozen_twin_is_the_loaded_backbone_while_training_moves(backbone: Backbone) -> None:
    text, image = backbone.encode_text(PLAN), backbone.encode_image(pixels())
    lent = backbone.lend(NAMES)
    swapped = backbone.reparametrise("text.blocks.1.attn.v_proj", Scaled)
    train(backbone, [*lent.values(), swapped.factor])
    assert torch.equal(backbone.frozen_text_features(PLAN), text)
    assert torch.equal(backbone.frozen_image_features(pixels()), image)
    assert not backbone.frozen_text_features(PLAN).requires_grad
    assert not torch.allclose(backbone.encode_text(PLAN), text)
    assert torch.equal(backbone.pristine(NAMES[0]), backbone._pristine[NAMES[0]])


def test_the_frozen_twin_between_forward_and_backward_leaves_the_graph_valid(backbone: Backbone) -> None:
    lent = backbone.lend(NAMES[:3])
    expected = torch.autograd.grad(
        backbone.encode_text(PLAN).sum() + backbone.encode_image(pixels()).sum(), lent.values()
    )
    moving = backbone.encode_text(PLAN).sum() + backbone.encode_image(pixels()).sum()
    backbone.frozen_text_features(PLAN)
    backbone.frozen_image_features(pixels())
    got = torch.autograd.grad(moving, lent.values())
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert all(p is q for p, q in zip(lent.values(), backbone.lend(NAMES[:3]).values(), strict=True))


def test_pristine_tensors_come_back_after_an_error(backbone: Backbone) -> None:
    lent = backbone.lend(NAMES)
    with pytest.raises(RuntimeError, match="inside"), backbone.pristine_tensors():
        raise RuntimeError("inside")
    assert backbone.get_parameter(NAMES[0]) is lent[NAMES[0]]


def test_everything_stays_in_eval_mode(backbone: Backbone) -> None:
    assert not any(module.training for module in backbone.modules())
    swapped = backbone.reparametrise("text.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5))
    owner = nn.ModuleDict({"backbone": backbone})
    owner.train()
    inside = set(swapped.modules())
    assert all(module.training for module in inside)
    assert not any(module.training for module in backbone.modules() if module not in inside)
    owner.eval()
    assert not any(module.training for module in backbone.modules())


def test_noise_in_the_text_tower_is_not_shared_by_classes(backbone: Backbone) -> None:
    """With dropout two classes with the same prompt must differ: the prefix is not computed once for both."""
    twice = PromptPlan([[62, 1, 2, 3, 4, 5, 63]] * 2)
    assert twice.prefix == 6
    backbone.reparametrise("text.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5))
    backbone.eval()
    calm = backbone.encode_text(twice)
    assert torch.equal(calm[0], calm[1])
    backbone.train()
    seen = []
    backbone.encode_text(twice, None, {0: lambda tokens: seen.append(tokens.layout.prefix) or tokens})
    noisy = backbone.encode_text(twice)
    assert seen == [0]
    assert not torch.allclose(noisy[0], noisy[1])


def test_a_module_may_say_itself_whether_it_is_random(backbone: Backbone) -> None:
    quiet = backbone.reparametrise("text.blocks.0.mlp.fc", lambda linear: Scaled(linear, 0.5))
    quiet.stochastic = False
    backbone.train()
    seen = []
    backbone.encode_text(PLAN, None, {0: lambda tokens: seen.append(tokens.layout.prefix) or tokens})
    assert seen == [2]


def test_a_swapped_linear_can_be_lent_by_its_loaded_name(backbone: Backbone) -> None:
    name = "image.blocks.0.attn.q_proj"
    before = backbone.encode_image(pixels())
    backbone.reparametrise(name, Scaled)
    lent = backbone.lend([f"{name}.weight"])
    assert not torch.allclose(backbone.encode_image(pixels()), before)
    with torch.no_grad():
        lent[f"{name}.weight"].zero_()
    assert torch.equal(backbone.frozen_image_features(pixels()), before)
    backbone.restore()
    assert torch.equal(backbone.encode_image(pixels()), before)


def test_wrong_names_are_refused(backbone: Backbone) -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'text\.blocks\.0\.mlp\.proj\.bias'"):
        backbone.lend(["text.blocks.0.mlp.proj.bais"])
    with pytest.raises(UnknownName, match=r"did you mean 'image\.blocks\.1\.attn\.q_proj'"):
        backbone.reparametrise("image.blocks.1.attn.qproj", Scaled)
    with pytest.raises(BackboneError, match=r"'image.ln_post' of the backbone is a LayerNorm"):
        backbone.reparametrise("image.ln_post", Scaled)
    backbone.reparametrise("image.blocks.1.attn.q_proj", Scaled)
    with pytest.raises(BackboneError, match="already"):
        backbone.reparametrise("image.blocks.1.attn.q_proj", Scaled)
    with pytest.raises(UnknownName):
        backbone.pristine("nothing")
    assert not any(p.requires_grad for n, p in backbone.named_parameters() if "factor" not in n)


def test_a_copy_is_independent(backbone: Backbone) -> None:
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.lend(NAMES)[NAMES[0]].add_(1)
    assert backbone.compute_hash() == backbone.hash
    twin.restore()
    assert twin.compute_hash() == backbone.hash


def test_the_hash_ignores_the_order_of_modules_and_sees_one_bit(backbone: Backbone) -> None:
    reordered = copy.deepcopy(backbone)
    text = reordered._modules.pop("text")
    image = reordered._modules.pop("image")
    reordered._modules |= {"text": text, "image": image}
    assert reordered.compute_hash() == backbone.hash
    with torch.no_grad():
        bias = reordered.image.blocks[1].mlp.fc.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(10.0))
    assert reordered.compute_hash() != backbone.hash


class Doubled(nn.Module):
    """A Linear at twice its outputs, which can be written as a Linear."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.linear(x)

    def merged(self) -> nn.Linear:
        plain = copy.deepcopy(self.linear)
        with torch.no_grad():
            plain.weight.mul_(2)
            plain.bias.mul_(2)
        return plain


class Halved(nn.Module):
    """A tensor seen at half its size."""

    def forward(self, tensor: Tensor) -> Tensor:
        return tensor / 2


def test_merged_linears_stand_in_and_make_room_again(backbone: Backbone) -> None:
    backbone.reparametrise("image.blocks.0.mlp.fc", Doubled)
    backbone.reparametrise("image.blocks.1.mlp.fc", Scaled)
    apart = backbone.encode_image(pixels())
    backbone.merge()
    assert type(backbone.get_submodule("image.blocks.0.mlp.fc")) is nn.Linear
    assert isinstance(backbone.get_submodule("image.blocks.1.mlp.fc"), Scaled), "it cannot be merged"
    torch.testing.assert_close(backbone.encode_image(pixels()), apart)
    frozen = backbone.frozen_image_features(pixels())
    assert type(backbone.get_submodule("image.blocks.0.mlp.fc")) is nn.Linear, "the frozen twin undid the merge"
    assert not torch.allclose(frozen, apart)
    backbone.unmerge()
    assert isinstance(backbone.get_submodule("image.blocks.0.mlp.fc"), Doubled)
    assert torch.equal(backbone.encode_image(pixels()), apart)


def test_a_bare_tensor_is_seen_through_a_module(backbone: Backbone) -> None:
    loaded = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    before = backbone.encode_image(pixels())
    names = [name for name, _ in backbone.named_parameters()]
    backbone.reparametrise_tensor("image.proj", Halved())
    torch.testing.assert_close(backbone.encode_image(pixels()), before / 2)
    torch.testing.assert_close(backbone.frozen_image_features(pixels()), before)
    torch.testing.assert_close(backbone.changed_tensors()["image.proj"], loaded["image.proj"] / 2)
    with pytest.raises(BackboneError, match="re-parametrised already"):
        backbone.reparametrise_tensor("image.proj", Halved())
    backbone.restore()
    assert [name for name, _ in backbone.named_parameters()] == names
    assert torch.equal(backbone.encode_image(pixels()), before)


def test_overwritten_tensors_are_frozen_and_come_back(backbone: Backbone) -> None:
    loaded = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    before = backbone.encode_image(pixels())
    backbone.reparametrise("image.blocks.0.mlp.fc", Doubled)
    backbone.overwrite({"image.blocks.0.mlp.fc.bias": loaded["image.blocks.0.mlp.fc.bias"] + 1})
    assert not any(parameter.requires_grad for name, parameter in backbone.named_parameters() if "fc" in name)
    torch.testing.assert_close(backbone.frozen_image_features(pixels()), before)
    changed = backbone.changed_tensors()
    assert set(changed) == {"image.blocks.0.mlp.fc.weight", "image.blocks.0.mlp.fc.bias"}
    torch.testing.assert_close(changed["image.blocks.0.mlp.fc.bias"], 2 * (loaded["image.blocks.0.mlp.fc.bias"] + 1))
    backbone.restore()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in backbone.state_dict().items())
    with pytest.raises(UnknownName):
        backbone.overwrite({"image.nothing": torch.zeros(1)})
    with pytest.raises(BackboneError, match="has shape"):
        backbone.overwrite({"image.proj": torch.zeros(1)})


def test_the_size_is_that_of_what_was_loaded(backbone: Backbone) -> None:
    size = sum(parameter.numel() for parameter in backbone.parameters())
    backbone.reparametrise("image.blocks.1.mlp.fc", Scaled)
    assert backbone.size() == size
