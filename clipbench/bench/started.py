"""A file of learned weights that cells start from: what it is known by, and whether they may."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.bench.fingerprint import class_path, code_of
from clipbench.errors import MethodError

if TYPE_CHECKING:
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
