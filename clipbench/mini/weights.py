"""The weights of the mini backbone: a compact file, widened to what open_clip expects. Needs no torch.

The file holds float16 tensors under open_clip's names. Of the token table it holds only the rows that the closed list
of words can use; the other rows are zero in memory, and a text that needs one is an error, never a silent number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipbench.errors import BackboneError
from clipbench.mini.words import known_words, split_words

PATH = Path(__file__).with_name("weights.safetensors")
FORMAT = "clipbench-mini-1"
TABLE, ROWS, INDEX = "token_embedding.weight", "token_embedding.rows", "token_embedding.index"
# Padding, start and end of text of CLIP's tokenizer; padding is never read by a causal tower pooled at the end of text.
PADDING, START, END = 0, 49406, 49407

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
        path: a file written by :func:`save_weights`.

    Raises:
        BackboneError: the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise BackboneError(
            f"no mini weights at {path}; write them with: python -m clipbench.mini.pretrain --out {path}"
        )
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


def check_words(texts: str | Iterable[str]) -> None:
    """Refuse a text with a word outside the closed list.

    Args:
        texts: one text or several, templates filled in.

    Raises:
        BackboneError: names the first unknown word and its text.
    """
    known = known_words()
    for text in [texts] if isinstance(texts, str) else texts:
        for word in split_words(text):
            if word not in known:
                raise BackboneError(
                    f"word '{word}' not known to the mini backbone (in '{text}'); it reads a closed list"
                )


def check_tokens(tokens: npt.ArrayLike, known: frozenset[int]) -> None:
    """Refuse token ids whose rows are not stored.

    Args:
        tokens: token ids of any shape, padded with 0.
        known: ``Weights.known``.

    Raises:
        BackboneError: names the first unknown token.
    """
    for token in np.unique(np.asarray(tokens)).tolist():
        if token != PADDING and token not in known:
            raise BackboneError(f"word '{_spell(token)}' not known to the mini backbone; it reads a closed list")


def _spell(token: int) -> str:
    # Only here, on the way to an error, is the tokenizer (and with it torch) needed.
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer().decode([token]).strip()
