"""Writes weights: the compact file that `clipbench/mini/weights.py` reads, and a folder that open_clip loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from clipbench.mini.weights import FORMAT, INDEX, MODEL_CFG, PREPROCESS_CFG, ROWS, TABLE, Weights, load_weights


def save_weights(
    state: dict[str, npt.NDArray[np.float32]], index: npt.NDArray[np.integer], path: Path, notes: dict[str, str]
) -> None:
    """Round to float16 and write the compact file.

    Args:
        state: open_clip's names to arrays; the token table holds only the rows of ``index``.
        index: (rows,) token ids, ascending.
        path: where to write.
        notes: how the weights were made, for the file's header.
    """
    tensors = {name: np.array(values, np.float16, order="C") for name, values in state.items() if name != TABLE}
    tensors[ROWS] = np.array(state[TABLE], np.float16, order="C")
    stored: dict[str, npt.NDArray[Any]] = {**tensors, INDEX: index.astype(np.int32)}
    config = json.dumps({"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG})
    written = path.with_name(path.name + ".part")
    written.write_bytes(save(stored, {"format": FORMAT, "config": config, **notes}))
    written.replace(path)


def export(folder: Path, weights: Weights | None = None) -> None:
    """Write a folder that ``open_clip.create_model_and_transforms("local-dir:FOLDER")`` loads.

    Args:
        folder: made if absent.
        weights: the shipped ones unless given.
    """
    weights = weights or load_weights()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(weights.config, indent=1), encoding="utf-8")
    (folder / "open_clip_model.safetensors").write_bytes(save(weights.state))
