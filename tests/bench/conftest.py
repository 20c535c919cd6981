"""A user's own images and backbone, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipbench.testing.backbones import write_transformer
from clipbench.testing.folders import suite_of_folder


@pytest.fixture(scope="session")
def own_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shapes/`, six images in each part of each of four classes, and `small/`, a backbone."""
    folder = tmp_path_factory.mktemp("own")
    write_transformer(folder / "small")
    suite_of_folder(folder / "shapes", "", classes=4, per_class=6)
    return folder
