"""The weights of the mini backbone: a compact file, widened to what open_clip expects. Needs no torch.

The file holds float16 tensors under open_clip's names. Of the token table it holds only the rows that the closed list
of words can use; the other rows are zero in memory, and a text that needs one is an error, never a silent number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from clipbench.errors import BackboneError

PATH = Path(__file__).with_name("weights.safetensors")
FORMAT = "clipbench-mini-1"
TABLE, ROWS, INDEX = "token_embedding.weight", "token_embedding.rows", "token_embedding.index"
# Start and end of text of CLIP's tokenizer.
START, END = 49406, 49407

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
PREPROCESS_CFG: dict[str, Any] = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


class Weights(NamedTuple):
    """What :func:`load_weights` gives.

    Attributes:
        state: open_clip's names to float32 arrays, with all 49,408 token rows.
        config: ``model_cfg`` and ``preprocess_cfg`` as in an ``open_clip_config.json``.
        known: token ids whose rows are stored, with start and end of text.
    """

    state: dict[str, npt.NDArray[np.float32]]
    config: dict[str, Any]
    known: frozenset[int]


def load_weights(path: Path = PATH) -> Weights:
    """Read the shipped weights.

    Args:
        path: a file written by `tools/mini/save.py`.

    Raises:
        BackboneError: the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise BackboneError(f"no mini weights at {path}; in a checkout: python -m tools.mini.pretrain --out {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BackboneError(f"the mini weights at {path} cannot be read: {error}") from error
    if meta.get("format") != FORMAT:
        raise BackboneError(f"{path} is not a file of mini weights: format {meta.get('format')!r}, not {FORMAT!r}")
    config = json.loads(meta["config"])
    index, rows = stored.pop(INDEX), stored.pop(ROWS)
    state = {name: values.astype(np.float32) for name, values in stored.items()}
    table = np.zeros((config["model_cfg"]["text_cfg"]["vocab_size"], rows.shape[1]), np.float32)
    table[index] = rows
    state[TABLE] = table
    return Weights(state, config, frozenset(int(i) for i in index))
