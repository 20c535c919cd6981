"""A bank of features: K augmented passes of the train images through a frozen image tower, computed once a fit.

Cache models and probes are built from it. Pass k holds the crops of epoch k (`data/augmentation.py`), so the bank is a
function of seed, dataset, images and policy alone. Test images are closed while it is filled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipbench.backbone.model import Backbone
from clipbench.data.base import DataModule
from clipbench.errors import ConfigError


class FeatureBank(NamedTuple):
    """Features of the train draw.

    Attributes:
        features: (K, N, D), float32, not normalised: pass by pass, in draw order.
        labels: (N,), int64.
    """

    features: Tensor
    labels: Tensor

    @classmethod
    def fill(cls, backbone: Backbone, data: Any, passes: int) -> FeatureBank:
        """Run the passes, in batches of the size of the tests; the bank lies where the backbone is.

        Args:
            backbone: its image tower is frozen.
            data: the trainer's data module.
            passes: K, 1 or more.

        Raises:
            ConfigError: fewer passes than one, or a data module of another make, which has no passes.
        """
        refuse_passes(passes)
        features, labels = encoded(backbone, ours(data).passes_dataloader(passes))
        return cls(features.unflatten(0, (passes, -1)), labels[: len(labels) // passes])

    def concatenated(self) -> tuple[Tensor, Tensor]:
        """All passes as so many images: features (K N, D) and labels (K N,)."""
        return self.features.flatten(0, 1), self.labels.repeat(len(self.features))


def refuse_passes(passes: int) -> None:
    """Raise ConfigError for a number of passes that gives no features."""
    if passes < 1:
        raise ConfigError(f"features come from at least one pass of the train images, but passes is {passes}")


def ours(data: Any) -> DataModule:
    """A trainer's data module; ConfigError where it is none of clipbench, so that it has no passes of the images."""
    if not isinstance(data, DataModule):
        raise ConfigError(
            f"features are computed from a data module of clipbench, not from {type(data).__name__}: fit with "
            "Trainer.fit(method, datamodule=...)"
        )
    return data


def encoded(backbone: Backbone, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Features (N, D) in float32 and labels (N,) of the images of a loader, in its order, without gradient.

    Mixed precision of the fit is off here: what is computed once is computed exactly.

    Args:
        backbone: its image tower encodes.
        batches: of uint8 images and their labels.
    """
    device = backbone.logit_scale.device
    features, labels = [torch.zeros(0, backbone.embed_dim, device=device)], [torch.zeros(0, dtype=torch.int64)]
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in batches:
            features.append(backbone.encode_image(backbone.normalise(batch.image.to(device))).float())
            labels.append(batch.label.cpu())
    return torch.cat(features), torch.cat(labels).to(device)
