"""The LightningCLI that runs a subcommand on a merged config, and saves what was learned after a fit."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from lightning.pytorch.trainer.states import TrainerStatus

from clipbench.bench.objects import ClipbenchCLI, one_sentence, with_whole_path
from clipbench.bench.recipe import Config
from clipbench.errors import ConfigError
from clipbench.methods.weights_file import read_learned


class RunCLI(ClipbenchCLI):
    """The CLI that runs its subcommand; `--weights` are loaded before, what was learned is saved after a fit."""

    recipe = ""
    live: RunCLI | None = None

    def _prepared(self) -> None:
        RunCLI.live = self
        path = self._get(self.config_init, "weights")
        if path:
            self.model.setup(learned=read_learned(Path(path)))

    before_validate = before_test = _prepared

    def before_fit(self) -> None:
        """Load what was learned before; the config and its files are laid down by Lightning."""
        self._prepared()

    def after_fit(self) -> None:
        """Save what was learned beside Lightning's own files."""
        if self.model.trainable:
            path = Path(self.trainer.log_dir or self.trainer.default_root_dir) / "weights.safetensors"
            size = self.model.save(path, self.recipe)
            print(f"learned {sum(p.numel() for p in self.model.trainable.values())} numbers: {path} ({size} bytes)")


def run_subcommand(subcommand: str, config: Config, name: str) -> None:
    """Run `fit`, `validate` or `test`.

    Args:
        subcommand: one of these.
        config: merged, with the arguments of the trainer's method.
        name: of the recipe.

    Raises:
        ConfigError: a wrong key or value.
        KeyboardInterrupt: Ctrl-C.
    """
    RunCLI.recipe, RunCLI.live = name, None
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        RunCLI({"subcommand": subcommand, subcommand: with_whole_path(config)}, run=True)
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(str(error))) from error
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        trainer = getattr(RunCLI.live, "trainer", None)
        if trainer is not None and trainer.state.status == TrainerStatus.INTERRUPTED:
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from error
        raise
