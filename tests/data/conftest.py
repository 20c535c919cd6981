"""Files of images, good and cut off."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.data.pictures import picture


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        picture(number, 20 + number, 30).save(path)
    return paths


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    buffer = io.BytesIO()
    picture(9, 64, 64).save(buffer, "JPEG", quality=95)
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    return path
