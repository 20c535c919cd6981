"""Writing weights: what is saved is loaded again, and no part of a file stays behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clipbench.mini.weights import load_weights
from tools.mini.save import save_weights


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    loaded = load_weights()
    index = np.array(sorted(loaded.known))
    state = {**loaded.state, "token_embedding.weight": loaded.state["token_embedding.weight"][index]}
    path = tmp_path / "again.safetensors"
    save_weights(state, index, path, {"seed": "0"})
    again = load_weights(path)
    assert again.known == loaded.known
    assert again.config == loaded.config
    assert all(np.array_equal(again.state[name], values) for name, values in loaded.state.items())
    assert [p.name for p in tmp_path.iterdir()] == ["again.safetensors"]
