"""The weights file: compact on disk, full in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipbench.errors import BackboneError
from clipbench.mini import weights
from clipbench.mini.weights import INDEX, ROWS, load_weights


def test_the_state_is_open_clips(tmp_path: Path) -> None:
    import open_clip

    loaded = load_weights()
    cfg = loaded.config["model_cfg"]
    model = open_clip.model.CLIP(cfg["embed_dim"], cfg["vision_cfg"], cfg["text_cfg"])
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: values.shape for name, values in loaded.state.items()} == expected
    assert {values.dtype for values in loaded.state.values()} == {np.dtype(np.float32)}
    assert cfg["text_cfg"]["layers"] == cfg["vision_cfg"]["layers"] == 4
    assert cfg["text_cfg"]["context_length"] == 40
    assert loaded.config["preprocess_cfg"] == {"mean": [0.5] * 3, "std": [0.25] * 3}


def test_rows_are_zero_unless_known() -> None:
    loaded = load_weights()
    table = loaded.state["token_embedding.weight"]
    assert table.shape == (49408, 128)
    assert set(np.flatnonzero(table.any(1)).tolist()) == loaded.known
    assert {49406, 49407} <= loaded.known


def test_every_number_is_a_half_precision_one() -> None:
    for values in load_weights().state.values():
        assert np.array_equal(values, values.astype(np.float16).astype(np.float32))
        assert np.isfinite(values).all()


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"tools\.mini\.pretrain"):
        load_weights(tmp_path / "none.safetensors")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(weights.PATH.read_bytes()[:100000])
    with pytest.raises(BackboneError, match="cannot be read"):
        load_weights(path)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({ROWS: np.zeros((1, 1), np.float16), INDEX: np.zeros(1, np.int32)}, path)
    with pytest.raises(BackboneError, match="not a file of mini weights"):
        load_weights(path)
