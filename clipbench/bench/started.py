"""A file of learned weights that cells start from: what it is known by, and whether they may."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.bench.fingerprint import class_path, code_of
from clipbench.errors import ConfigError, MethodError
from clipbench.recipes.recipe import Config, Recipe, is_yaml

if TYPE_CHECKING:
    from clipbench.bench.planned import PlannedCell
    from clipbench.data.task import Task
    from clipbench.methods.base import Method


def start_identity(path: Path, child: type[Method], backbone: str, backbone_hash: str | None, task: Task) -> Any:
    """What a file to start from is known by, wherever it lies.

    Args:
        path: the file.
        child: class of the method that starts from it.
        backbone: name of the backbone of the cell.
        backbone_hash: its hash; None where that is not known yet.
        task: what the cell trains and measures.

    Raises:
        MethodError: no learned weights, or those of another backbone; classes that the cell counts as new were trained
            on; what was learned is not in the backbone's tensors.
    """
    from clipbench.bench.build import method_without_weights
    from clipbench.methods.arguments import arguments_of
    from clipbench.methods.evaluation import refuse_seen
    from clipbench.methods.header import content_digest
    from clipbench.methods.weights_file import class_of, read_header

    header = read_header(path)
    try:
        kind = class_of(header)
        header.refuse_other(kind, backbone, backbone_hash or header.backbone_hash)
        refuse_seen(task, header.seen)
        if not child.derived and not kind.derived:
            arguments = arguments_of(kind, header.init_args, start=None, backbone=backbone)
            with suppress(NotImplementedError):  # it looks at values, of which there are none here
                method_without_weights(kind, arguments, classes=2).weights.in_the_backbone()
    except MethodError as error:
        raise MethodError(f"'{path}': {error}") from error
    return {
        "sha256": content_digest(path), "version": kind.version, "class_path": class_path(kind), "code": code_of(kind),
    }  # fmt: skip


def vouch_for(recipes: Iterable[Recipe]) -> None:
    """Import the methods that recipes name: any of them may have learned what another one starts from."""
    from clipbench.methods import method_class

    for recipe in recipes:
        with suppress(ConfigError):  # which is told with that recipe
            method_class(str(recipe.sections["model"]["class_path"]))


def without_learner(user: Sequence[Config], recipe: Recipe) -> tuple[Config, ...]:
    """The user's layers without a config that only says whose weights a recipe starts from; that method is imported.

    Args:
        user: the user's configs and then the command line.
        recipe: which starts from a file that one of them names.

    Raises:
        ConfigError: the method of such a config is not there.
        MethodError: the file holds no learned weights.
    """
    from clipbench.methods import method_class
    from clipbench.methods.header import read_header

    starts = [((layer.get("model") or {}).get("init_args") or {}).get("start") for layer in user]
    start = next((one for one in reversed(starts) if isinstance(one, str)), None)
    kept = []
    for layer in user:
        named = str((layer.get("model") or {}).get("class_path") or recipe.method)
        name = named.rpartition(".")[2]
        other = name != recipe.method and start is not None and not is_yaml(start) and Path(start).is_file()
        if other and start is not None and read_header(Path(start)).method == name:
            method_class(named)
        else:
            kept.append(layer)
    return tuple(kept)


def row_of_start(start: PlannedCell) -> dict[str, Any]:
    """What tells apart the rows of cells that start from a cell of another recipe, whatever dataset and seed."""
    provenance = start.provenance
    return {
        "recipe_digest": provenance["recipe_digest"], "class_path": provenance["class_path"],
        "code": provenance["code"], "version": provenance["versions"]["method"],
    }  # fmt: skip
