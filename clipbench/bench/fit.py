"""One LightningCLI run of a merged config: `fit`, `validate` or `test`, with learned weights before and after."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from lightning.pytorch.trainer.states import TrainerStatus

from clipbench.bench.build import ClipbenchCLI, with_whole_path
from clipbench.bench.parser_messages import one_sentence
from clipbench.bench.stop import StopSignal, StopWhenAsked, behind
from clipbench.errors import ConfigError, DataError
from clipbench.methods.weights_file import read_learned
from clipbench.recipes.recipe import Config


class RunCLI(ClipbenchCLI):
    """The CLI that runs its subcommand; `--weights` are loaded before, what was learned is saved after a fit."""

    recipe = ""
    live: RunCLI | None = None
    stop = StopSignal()

    def _prepared(self) -> None:
        RunCLI.live = self
        self.trainer.callbacks.append(StopWhenAsked(self.stop))  # type: ignore[attr-defined]
        path = self._get(self.config_init, "weights")
        if path:
            self.model.setup(learned=read_learned(Path(path)))

    before_test = _prepared

    def before_validate(self) -> None:
        """Load what was learned before.

        Raises:
            DataError: there is nothing to validate on.
        """
        self._prepared()
        data = self.datamodule
        if not any(item.label in data.train_labels for item in data.draw.val):
            raise DataError(
                f"'{data.dataset}' has no val images of the classes trained on, so nothing can be validated; "
                "`clipbench test` takes the test images"
            )

    def before_fit(self) -> None:
        """Load what was learned before and say what the data holds; Lightning lays down the config."""
        self._prepared()
        for line in self.datamodule.source.about():
            print(f"clipbench: {line}", file=sys.stderr)

    def after_fit(self) -> None:
        """Save what was learned beside Lightning's own files."""
        if self.model.trainable:
            path = Path(self.trainer.log_dir or self.trainer.default_root_dir) / "weights.safetensors"
            size = self.model.save(path, self.recipe)
            print(f"learned {sum(p.numel() for p in self.model.trainable.values())} numbers: {path} ({size} bytes)")


def run_subcommand(subcommand: str, config: Config, recipe: str) -> None:
    """Run `fit`, `validate` or `test`.

    Args:
        subcommand: which of them.
        config: the merged config with the arguments of the trainer's method.
        recipe: name of the recipe, for the header of what is learned.

    Raises:
        ConfigError: a key or value that does not fit.
        KeyboardInterrupt: Ctrl-C.
    """
    RunCLI.recipe, RunCLI.live, RunCLI.stop = recipe, None, StopSignal()
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with RunCLI.stop:
            RunCLI({"subcommand": subcommand, subcommand: with_whole_path(config)}, run=True)
    except argparse.ArgumentError as error:
        raise ConfigError(one_sentence(str(error))) from error
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        trainer = getattr(RunCLI.live, "trainer", None)
        if trainer is not None and trainer.state.status == TrainerStatus.INTERRUPTED:
            signal.signal(signal.SIGINT, interrupt)
            raise behind(error) from error
        raise
