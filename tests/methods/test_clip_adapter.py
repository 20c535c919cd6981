"""CLIP-Adapter: the mixed feature in float64, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clipbench.errors import ConfigError
from clipbench.methods.base import Method
from clipbench.methods.clip_adapter import CLIPAdapter


def test_the_feature_is_the_formula(make: Callable[..., Method]) -> None:
    method = make(CLIPAdapter).double()
    images = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = method.backbone.encode_image(images)
    first, second = (parameter.detach() for parameter in method.trainable.values())
    assert (first.shape, second.shape) == ((8, 32), (32, 8))
    expected = torch.zeros_like(v)
    for row, feature in enumerate(v):
        hidden = [max(0.0, float(w @ feature)) for w in first]
        out = [max(0.0, sum(float(w) * h for w, h in zip(ws, hidden, strict=True))) for ws in second]
        expected[row] = 0.2 * torch.tensor(out, dtype=torch.float64) + 0.8 * feature
    torch.testing.assert_close(method.image_features(images).detach(), expected, rtol=1e-10, atol=1e-10)


def test_its_start_follows_the_train_seed(make: Callable[..., Method]) -> None:
    one, two = make(CLIPAdapter), make(CLIPAdapter)
    assert all(torch.equal(one.trainable[name], two.trainable[name]) for name in one.trainable)
    before = {name: tensor.detach().clone() for name, tensor in two.trainable.items()}
    two.setup(task=two.task, train_seed=2)
    assert not any(torch.equal(before[name], two.trainable[name]) for name in before)


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": 1.5}, {"reduction": 0}])
def test_what_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="CLIPAdapter needs ratio"):
        CLIPAdapter(**wrong)  # type: ignore[arg-type]


def test_a_bottleneck_of_nothing_is_refused(make: Callable[..., Method]) -> None:
    with pytest.raises(ConfigError, match="reduction 64 leaves nothing of 32 features"):
        make(CLIPAdapter, reduction=64)
