"""What open_clip knows: architectures (its JSON files) and pretrained tags (its table), read without importing it.

Importing open_clip costs seconds (torch, timm), and `list`, `show` and `bench --dry-run` only need the facts.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from clipbench.errors import BackboneError

DEFAULT_MEAN = (0.48145466, 0.4578275, 0.40821073)  # open_clip/constants.py, OpenAI's statistics
DEFAULT_STD = (0.26862954, 0.26130258, 0.27577711)
# The names under which OpenAI published its weights, and open_clip's name of the architecture
OPENAI_NAMES = {
    "RN50": "RN50", "RN101": "RN101", "RN50x4": "RN50x4", "RN50x16": "RN50x16", "RN50x64": "RN50x64",
    "ViT-B/32": "ViT-B-32", "ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14", "ViT-L/14@336px": "ViT-L-14-336",
}  # fmt: skip
# The same weights in the form of Hugging Face transformers, which is not read
TRANSFORMERS_NAMES = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai", "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai", "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
}  # fmt: skip


@lru_cache(maxsize=1)
def open_clip_folder() -> Path:
    """The folder of the installed open_clip package.

    Raises:
        BackboneError: open_clip is not installed.
    """
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise BackboneError("open_clip is not installed, and only 'mini' works without it: pip install open_clip_torch")
    return Path(found.origin).parent


@lru_cache(maxsize=1)
def architectures() -> dict[str, Path]:
    """Name of every open_clip architecture and its JSON file."""
    files = sorted((open_clip_folder() / "model_configs").glob("*.json"))
    return {file.stem: file for file in files}


def model_config(architecture: str) -> dict[str, Any]:
    """The `model_cfg` of one open_clip architecture, a fresh copy."""
    config: dict[str, Any] = json.loads(architectures()[architecture].read_text())
    return config


@lru_cache(maxsize=1)
def pretrained_tags() -> dict[str, dict[str, dict[str, Any]]]:
    """Architecture -> tag -> what open_clip says of these weights (url, hub, mean, std, quick_gelu ...)."""
    try:
        table = _table_by_parsing(open_clip_folder())
    except (SyntaxError, NameError, KeyError, TypeError, OSError):  # another layout of open_clip: the slow way
        table = importlib.import_module("open_clip.pretrained")._PRETRAINED
    with_activation = {
        f"{name}-quickgelu": {tag: entry for tag, entry in tags.items() if entry.get("quick_gelu")}
        for name, tags in table.items()
    }
    return table | {name: tags for name, tags in with_activation.items() if tags and name not in table}


def _table_by_parsing(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Evaluate only the table of `pretrained.py`: its constants, helper functions and dictionaries, no imports."""
    names: dict[str, Any] = {}
    exec(compile((folder / "constants.py").read_text(), "open_clip/constants.py", "exec"), names)  # noqa: S102
    tree = ast.parse((folder / "pretrained.py").read_text())
    tree.body = [node for node in tree.body if _is_helper(node) or _is_table(node)]
    exec(compile(tree, "open_clip/pretrained.py", "exec"), names)  # noqa: S102
    table: dict[str, dict[str, dict[str, Any]]] = names["_PRETRAINED"]
    return table


def _is_helper(node: ast.stmt) -> bool:
    """Whether a statement defines one of the functions that make an entry of the table (`_pcfg` ...)."""
    return isinstance(node, ast.FunctionDef) and node.name.startswith("_") and node.name.endswith("cfg")


def _is_table(node: ast.stmt) -> bool:
    """Whether a statement assigns one of the dictionaries of weights."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return False
    value = node.value
    is_dictionary = isinstance(value, ast.Dict) or (
        isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict"
    )
    return is_dictionary and node.targets[0].id != "_PRETRAINED_quickgelu"


def openai_digests() -> dict[str, str]:
    """SHA-256 of each file of weights that OpenAI published, as its address states it, to the architecture."""
    digests = {}
    for architecture in OPENAI_NAMES.values():
        address = pretrained_tags().get(architecture, {}).get("openai", {}).get("url", "")
        if "openaipublic" in address:
            digests[address.split("/")[-2]] = architecture
    return digests


def hub_repositories() -> dict[str, str]:
    """Repository on the hub to the `ARCH/TAG` that open_clip has in it, where that is one."""
    found: dict[str, str] = {}
    for architecture, tags in pretrained_tags().items():
        for tag, entry in tags.items():
            repository, _, file = entry.get("hf_hub", "").rpartition("/")
            if repository and not file:
                usual = found.setdefault(repository, f"{architecture}/{tag}")
                if usual.replace("-quickgelu/", "/") != f"{architecture}/{tag}".replace("-quickgelu/", "/"):
                    found[repository] = ""
    return {repository: name for repository, name in found.items() if name}


def clean_tag(tag: str) -> str:
    """A tag in open_clip's spelling."""
    return tag.lower().replace("-", "_")
