"""The folder that a fit leaves things in: one of its own that can be written, and gone again if nothing was fitted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import lightning as L

from clipbench.atomic import check_writable, named_by, remove_left_over

WEIGHTS, CONFIG = "weights.safetensors", "config.yaml"
PLACE = "--trainer.default_root_dir"
OF_LOGGER = "hparams.yaml"  # written when a fit is set up


class FitFolder:
    """The folder of the fit that a trainer is about to do; what killed fits beside it were writing goes.

    Args:
        trainer: not started.

    Attributes:
        path: of the folder.
        files: names of what was written into it for a fit to come.
        begun: whether the fit has done a step.

    Raises:
        RecordError: it cannot be written.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        logs, root = trainer.log_dir, Path(trainer.default_root_dir)
        wanted = Path(logs or root)
        self._new = [folder for folder in (wanted, *wanted.parents) if not os.path.exists(folder)]
        self.path, self.begun = own_folder(wanted), False
        self.files: list[str] = []
        if self.path != wanted:
            self._new = [self.path]
        with named_by(PLACE):
            check_writable(self.path)
        if logs is not None and wanted.parent != root:
            remove_left_over(wanted.parent)

    def close(self) -> None:
        """Remove what was written for a fit that never began, and the folders that were made for it and are empty."""
        if self.begun:
            return
        with contextlib.suppress(OSError):
            for name in (*self.files, *([OF_LOGGER] if self.path in self._new else [])):
                (self.path / name).unlink(missing_ok=True)
            for folder in self._new:
                folder.rmdir()


def own_folder(folder: Path) -> Path:
    """A folder for what a fit leaves: this one, or where something lies in it already the first free one inside."""
    taken = any(os.path.exists(folder / name) for name in (WEIGHTS, CONFIG))
    number = 2
    while taken:
        try:
            (folder / f"fit_{number}").mkdir()
            return folder / f"fit_{number}"
        except FileExistsError:
            number += 1
    return folder
