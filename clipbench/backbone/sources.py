"""The forms in which people name weights, each as a source: which architecture, where its config and its tensors are.

`mini` | `ARCH/TAG` | `ARCH/random` | `ARCH` | `ViT-B/16` (OpenAI's own names) | `ARCH@FILE` | `local-dir:FOLDER` |
`hf-hub:ORG/NAME` | the path of a folder or file. Nothing here imports torch or opens weights, but for their hash.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clipbench.backbone import catalogue, hub, memory
from clipbench.errors import BackboneError, ConfigError, UnknownName
from clipbench.schemas import first_fault

CONFIG_FILE = "open_clip_config.json"
LARGEST_CONFIG = 1 << 20  # bytes
FOLDER_PREFIX, HUB_PREFIX = "local-dir:", "hf-hub:"
RANDOM, UNTAGGED = "random", "untagged"


class Source(NamedTuple):
    """Where a backbone comes from.

    Attributes:
        architecture: open_clip's name, "mini", or the name of the folder or repository.
        where: "mini", "random", "untagged", "tag:TAG", "file:PATH", "folder:PATH" or "hub:ORG/NAME".
        config: open_clip's `model_cfg`.
        entry: what comes with the weights (mean, std, interpolation, quick_gelu ...).
        pretrained: `ARCH/TAG` where they are known to be these weights, else "".
        own_config: where the config is from, as open_clip names the place, else "": one of its own architectures.
    """

    architecture: str
    where: str
    config: dict[str, Any]
    entry: Mapping[str, Any]
    pretrained: str = ""
    own_config: str = ""


def find_source(bare: str) -> Source:
    """The source that a name without options means.

    Raises:
        UnknownName: no such architecture or tag; the nearest is suggested.
        BackboneError: a folder or file that is missing or holds no usable config, or a hub that cannot be reached.
    """
    if bare == "mini":
        from clipbench.mini import weights

        return Source("mini", "mini", weights.MODEL_CFG, weights.PREPROCESS_CFG)
    if bare.startswith(FOLDER_PREFIX):
        return _folder(bare.removeprefix(FOLDER_PREFIX), bare)
    if usual := usual_tag(bare):
        return _tagged(*usual.split("/"))
    if bare.startswith(HUB_PREFIX):
        return _repository(bare.removeprefix(HUB_PREFIX))
    head, at, file = bare.partition("@")
    if at and _spelled(head) in catalogue.architectures():
        return _file(_spelled(head), file, bare)
    if _spelled(bare) in catalogue.architectures():
        return Source(_spelled(bare), UNTAGGED, catalogue.model_config(_spelled(bare)), {})
    architecture, slash, tag = bare.rpartition("/")
    if slash and _spelled(architecture) in catalogue.architectures():
        return _tagged(_spelled(architecture), tag)
    path = _path(bare)
    if bare and os.path.isdir(path):
        return _folder(bare, bare)
    if bare and (os.path.exists(path) or bare.startswith(("~", ".", "/"))):
        return _plain_file(path, bare)
    raise _unknown(bare)


def _unknown(bare: str) -> ConfigError:
    """What is said of a name that is none of the forms."""
    architectures = catalogue.architectures()
    same = [name for name in (*catalogue.OPENAI_NAMES, *architectures) if name.lower() == bare.lower()]
    if same:
        return UnknownName("backbone", bare, same)
    head = bare.partition("@")[0] if "@" in bare else bare.rpartition("/")[0]
    if head and (error := UnknownName("architecture of a backbone", head, architectures)).nearest:
        return error
    if bare in catalogue.TRANSFORMERS_NAMES:
        return ConfigError(f"backbone '{bare}': open_clip's name of these weights is {_in_open_clip(bare)}")
    if "/" in bare or Path(bare).suffix in (".pt", ".pth", ".bin", ".safetensors"):
        more = f"; a repository of the hub is named '{HUB_PREFIX}{bare}'" if bare.count("/") == 1 else ""
        return ConfigError(
            f"backbone '{bare}': there is no file or folder '{bare}', and no architecture of that name{more} (clipbench"
            " list backbones)"
        )
    return UnknownName("backbone", bare, ["mini", *catalogue.OPENAI_NAMES, *architectures])


def _in_open_clip(repository: str) -> str:
    return f"'{catalogue.TRANSFORMERS_NAMES[repository]}'"


def usual_tag(bare: str) -> str:
    """The `ARCH/TAG` that a name is another spelling of, or is itself; "" for any other name.

    Example:
        >>> usual_tag("ViT-B/16"), usual_tag("ViT-B/32/laion2b-s34b-b79k")
        ('ViT-B-16/openai', 'ViT-B-32/laion2b_s34b_b79k')
    """
    if bare == "mini" or bare.startswith(FOLDER_PREFIX):
        return ""
    if bare in catalogue.OPENAI_NAMES:
        return f"{catalogue.OPENAI_NAMES[bare]}/openai"
    if bare.startswith(HUB_PREFIX):
        return catalogue.hub_repositories().get(bare.removeprefix(HUB_PREFIX), "")
    architecture, _, tag = bare.rpartition("/")
    architecture, tag = _spelled(architecture), catalogue.clean_tag(tag)
    return f"{architecture}/{tag}" if tag in catalogue.pretrained_tags().get(architecture, {}) else ""


def _path(text: str) -> Path:
    """A path as people write it; an unknown `~user` stays as it is."""
    return Path(os.path.expanduser(text))


def _spelled(name: str) -> str:
    """OpenAI's spelling `ViT-B/16` in open_clip's."""
    return name.replace("/", "-")


def known_tags(architecture: str) -> list[str]:
    """All names of weights of an architecture."""
    return [f"{architecture}/{tag}" for tag in [*catalogue.pretrained_tags().get(architecture, {}), RANDOM]]


def _tagged(architecture: str, tag: str) -> Source:
    """`ARCH/TAG` or `ARCH/random`."""
    config = catalogue.model_config(architecture)
    if tag == RANDOM:
        return Source(architecture, RANDOM, config, {})
    tags, clean = catalogue.pretrained_tags().get(architecture, {}), catalogue.clean_tag(tag)
    if clean not in tags:
        raise UnknownName(f"pretrained tag of {architecture}", tag, [*tags, RANDOM])
    return Source(architecture, f"tag:{clean}", config, tags[clean], f"{architecture}/{clean}")


def _file(architecture: str, file: str, name: str) -> Source:
    """`ARCH@FILE`."""
    if not file:
        raise ConfigError(f"backbone '{name}': no file is named after '@'")
    path = _path(file)
    refuse_no_file(path, name)
    config = catalogue.model_config(architecture)
    published = memory.openai_architecture(path)
    if published is None:
        return Source(architecture, f"file:{path}", config, {})
    usual = architecture.removesuffix("-quickgelu")
    if usual != published:
        raise BackboneError(
            f"backbone '{name}': '{path}' is OpenAI's {published}, not {architecture}; name it '{published}@{file}'"
        )
    entry = catalogue.pretrained_tags()[published]["openai"]
    return Source(architecture, f"file:{path}", config, entry, f"{published}/openai")


def _plain_file(path: Path, name: str) -> Source:
    """The path of a file: of OpenAI's own, or with its config beside it."""
    refuse_no_file(path, name)
    published = memory.openai_architecture(path)
    if published is not None:
        return _file(published, str(path), name)
    if os.path.isfile(path.parent / CONFIG_FILE):
        return _folder(str(path.parent), name)._replace(where=f"file:{path}")
    raise BackboneError(f"backbone '{name}': {_without_architecture(path, name)}")


def _without_architecture(path: Path, name: str) -> str:
    """What is said of weights that do not say their architecture: which one has their shapes, or what they are."""
    from clipbench.backbone.checkpoint import read_tensors  # needs torch
    from clipbench.backbone.recognise import fitting_architectures, what_it_is

    shapes = {tensor: tuple(value.shape) for tensor, value in read_tensors(path).items()}
    fitting, text = fitting_architectures(shapes), f"no {CONFIG_FILE} lies beside it that says its architecture"
    if fitting:
        return f"{text}; by its shapes it is {' or '.join(fitting[:3])}: name it '{fitting[0]}@{name}'"
    found = what_it_is(shapes)
    return f"{text}; name it 'ARCH@{name}' (clipbench list backbones){f'; {found}' if found else ''}"


def refuse_no_file(path: Path, name: str) -> None:
    """Raise BackboneError unless it is a plain file: a pipe would be waited for."""
    if os.path.isfile(path):
        return
    if not os.path.exists(path):
        raise BackboneError(f"backbone '{name}': there is no checkpoint file '{path}'")
    if os.path.isdir(path):
        raise BackboneError(
            f"backbone '{name}': '{path}' is a folder; name the checkpoint file in it, or '{FOLDER_PREFIX}{path}' where"
            f" it holds {CONFIG_FILE}"
        )
    raise BackboneError(f"backbone '{name}': '{path}' is a pipe, socket or device, not a file")


def _folder(folder: str, name: str) -> Source:
    """A folder with open_clip's config file."""
    if not folder:
        raise ConfigError(f"backbone '{name}': no folder is named after '{FOLDER_PREFIX}'")
    path = _path(folder)
    file = path / CONFIG_FILE
    if not os.path.isfile(file):
        raise BackboneError(_without_config(path, name))
    config, entry = read_config(file)
    return Source(path.resolve().name, f"folder:{path}", config, entry, own_config=f"{FOLDER_PREFIX}{path}")


def _without_config(path: Path, name: str) -> str:
    """What is said of a folder that has no config of open_clip."""
    if not os.path.isdir(path):
        what = "is a file, not a folder" if os.path.isfile(path) else "does not exist"
        return f"backbone '{name}': the folder '{path}' {what}; it would hold {CONFIG_FILE} and the weights beside it"
    what = "the folder has no"
    if os.path.isfile(path / "config.json"):
        what = "the folder has a config.json, as models of Hugging Face transformers have, but no"
    return (
        f"backbone '{name}': {what} {CONFIG_FILE} with the weights beside it; where the architecture is one of"
        f" open_clip's, name the file: 'ViT-B-16@{path}/FILE'"
    )


def _repository(repository: str) -> Source:
    """`hf-hub:ORG/NAME`, by the config in it."""
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ConfigError(f"backbone '{HUB_PREFIX}{repository}': a repository is named {HUB_PREFIX}ORGANISATION/NAME")
    if repository in catalogue.TRANSFORMERS_NAMES:
        raise ConfigError(
            f"backbone '{HUB_PREFIX}{repository}': that repository is for Hugging Face transformers; open_clip's name"
            f" of these weights is {_in_open_clip(repository)}"
        )
    config, entry = read_config(hub.fetched(repository, [CONFIG_FILE], f"{HUB_PREFIX}{repository}"))
    name = f"{HUB_PREFIX}{repository}"
    return Source(repository.partition("/")[2], f"hub:{repository}", config, entry, own_config=name)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_config(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of an open_clip config.

    Raises:
        BackboneError: it is damaged, or says what no CLIP is.
    """
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise BackboneError(f"{file} is not an open_clip config: it has {file.stat().st_size / 1e6:.0f} MB")
        whole = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise BackboneError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # ValueError: also what is not UTF-8
        raise BackboneError(f"{file} is not an open_clip config (no JSON: {str(error)[:120]})") from error
    if fault := first_fault(whole, Path(__file__).with_name("open_clip_config.schema.json")):
        raise BackboneError(f"{file} is not an open_clip config {fault}")
    return whole["model_cfg"], whole.get("preprocess_cfg") or {}
