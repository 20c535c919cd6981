"""Pictures as the image tower of mini takes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from clipbench.mini.weights import PREPROCESS_CFG


def pixels(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """(B, 3, 48, 48) float32, normalised as the shipped config says."""
    mean, std = (torch.tensor(PREPROCESS_CFG[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255 - mean) / std
