"""One LightningCLI run of a merged config: `fit`, `validate` or `test`; what it leaves behind and says at its end."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerStatus

from clipbench.atomic import named_by
from clipbench.bench.build import ClipbenchCLI, method_without_weights
from clipbench.bench.expected_time import length_line, time_lines
from clipbench.bench.fit_folder import CONFIG, PLACE, WEIGHTS, FitFolder
from clipbench.bench.keys import with_whole_path
from clipbench.bench.monitors import naming_monitors
from clipbench.bench.outcome_lines import lines_of, measured, refuse_empty_val
from clipbench.bench.outcomes import check_fitted
from clipbench.bench.parser_messages import one_sentence
from clipbench.bench.stop import StopSignal, StopWhenAsked, behind
from clipbench.errors import ConfigError, DataError, MethodError
from clipbench.methods import method_class
from clipbench.methods.checkpoint import read_checkpoint
from clipbench.methods.weights_file import read_learned
from clipbench.recipes.recipe import Config

RESUMED = ("state_dict", "optimizer_states", "lr_schedulers", "loops")  # what a fit goes on from


class RunCLI(ClipbenchCLI):
    """The CLI that runs its subcommand; `--weights` are loaded before, what was learned is saved after a fit."""

    recipe = ""
    recipe_file: str | None = None
    live: RunCLI | None = None
    kept: FitFolder | None = None
    stop = StopSignal()

    def instantiate_classes(self) -> None:
        """Build; the config is saved in the folder of this fit, which no other fit writes into."""
        self.save_config_callback = KeptConfig if self.save_config_callback else None
        self.save_config_kwargs = {"save_to_log_dir": False}
        super().instantiate_classes()

    def _prepared(self) -> None:
        RunCLI.live = self
        self.trainer.callbacks.append(StopWhenAsked(self.stop))  # type: ignore[attr-defined]
        path = self._get(self.config_init, "weights")
        if path:
            try:
                self.model.setup(learned=read_learned(Path(path)))
            except MethodError as error:
                raise MethodError(str(error) if str(path) in str(error) else f"'{path}': {error}") from error

    before_test = _prepared

    def before_validate(self) -> None:
        """DataError where there is nothing to validate on."""
        refuse_empty_val(self.datamodule)
        self._prepared()

    def before_fit(self) -> None:
        """Load what was learned before, say what the data holds, choose the folder."""
        self._prepared()
        for line in self.datamodule.source.about():
            print(f"clipbench: {line}", file=sys.stderr)
        if line := length_line(self.trainer, self._get(self.config, "trainer").max_epochs):
            print(f"clipbench: {line}", file=sys.stderr)
        self.trainer.callbacks += time_lines(self.trainer, self._get(self.config_init, "trainer"))  # type: ignore[attr-defined]
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.kept = FitFolder(self.trainer)

    def after_fit(self) -> None:
        """Save what was learned, say how good it is and what to type next."""
        for line in self._left():
            print(line)

    def after_test(self) -> None:
        """Say what was measured."""
        print(*lines_of(self.model, self.datamodule, testing=True), sep="\n")

    def after_validate(self) -> None:
        """Say what was measured."""
        print(*lines_of(self.model, self.datamodule, testing=False), sep="\n")

    def _left(self) -> Iterator[str]:
        """Saves what was learned; the lines to print.

        Raises:
            MethodError: nothing was learned, or what was learned gives no finite logits: no weights are left.
        """
        method, data, trainer = self.model, self.datamodule, self.trainer
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            yield "fast_dev_run tries the code on a batch: nothing is kept, nothing measured"
            return
        if not method.learns:
            yield f"{type(method).__name__} has nothing to learn: there are no weights to keep"
            yield from measured(method, data, trainer)
            return
        check_fitted(method, trainer)
        assert self.kept is not None
        path, here = self.kept.path / WEIGHTS, Path.cwd()
        with named_by(PLACE):
            size = method.save(path, self.recipe)
        path = path.relative_to(here) if path.is_relative_to(here) else path
        count = sum(parameter.numel() for parameter in method.trainable.values())
        learned = f"learned {count:,} numbers: {path} ({size:,} bytes)"
        try:
            accuracies = measured(method, data, trainer)
        except MethodError:
            path.unlink()  # what gives no accuracy is not left as if it did
            raise
        except DataError:
            yield learned
            raise
        yield from (learned, *accuracies)
        own = "" if method.header.is_ours or not self.recipe_file else f" --config {shlex.quote(self.recipe_file)}"
        yield f"next: clipbench test --weights {shlex.quote(str(path))}{own}"
        yield f"      clipbench predict IMAGES --weights {shlex.quote(str(path))}{own}"


class KeptConfig(SaveConfigCallback):
    """The config of a fit, saved in its own folder, with the augmentation that acts: a card's own wins."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lightning calls it when the fit is set up."""
        live = RunCLI.live
        assert live is not None
        assert live.kept is not None
        config = self.config.clone()
        for name, value in live.datamodule.augmentation.items():
            config.data.init_args[name] = value
        self.parser.save(config, live.kept.path / CONFIG, skip_none=False, overwrite=True)
        live.kept.files.append(CONFIG)

    def on_train_batch_end(self, *_: Any) -> None:
        """Nothing refused the fit: what lies in its folder stays."""
        assert RunCLI.live is not None
        assert RunCLI.live.kept is not None
        RunCLI.live.kept.begun = True


def run_subcommand(subcommand: str, config: Config, recipe: str, recipe_file: str | None = None) -> None:
    """Run `fit`, `validate` or `test`.

    Args:
        subcommand: which of them.
        config: the merged config with the arguments of the trainer's method.
        recipe: name of the recipe, for the header of what is learned.
        recipe_file: its file, where it is not a packaged one.

    Raises:
        ConfigError: a key or value that does not fit.
        MethodError: a checkpoint that cannot be resumed.
        KeyboardInterrupt: Ctrl-C.
    """
    if subcommand == "fit" and config.get("ckpt_path"):
        stored = read_checkpoint(Path(str(config["ckpt_path"])))
        if missing := [key for key in RESUMED if key not in stored]:
            raise MethodError(f"a fit cannot go on from '{config['ckpt_path']}': it holds no {missing[0]}")
    config = ({} if subcommand == "fit" else {"verbose": False}) | config | {"weights_only": True}
    RunCLI.recipe, RunCLI.recipe_file, RunCLI.live, RunCLI.stop = recipe, recipe_file, None, StopSignal()

    def trainer() -> Any:
        return getattr(RunCLI.live, "trainer", None)

    with stopped_by(RunCLI.stop, trainer), naming_monitors(trainer):
        try:
            RunCLI({"subcommand": subcommand, subcommand: with_whole_path(config)}, run=True)
        except argparse.ArgumentError as error:
            raise ConfigError(one_sentence(str(error))) from error
        except MisconfigurationException as error:  # Lightning's word for misuse, also of callbacks in a fit
            raise ConfigError(" ".join(str(error).split())) from error
        finally:
            if RunCLI.live is not None and RunCLI.live.kept is not None:
                RunCLI.live.kept.close()


@contextmanager
def stopped_by(stop: StopSignal, trainer: Callable[[], Any]) -> Iterator[None]:
    """Ctrl-C inside it comes out as KeyboardInterrupt, which Lightning turns into an exit."""
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with stop:
            yield
    except SystemExit as error:
        if trainer() is not None and trainer().state.status == TrainerStatus.INTERRUPTED:
            signal.signal(signal.SIGINT, interrupt)
            raise behind(error) from error
        raise


def refuse_untrained(config: Config, subcommand: str) -> None:
    """Raise MethodError where a method that learns would be measured without anything learned.

    Args:
        config: resolved.
        subcommand: for the message.
    """
    model = config["model"]
    kind = method_class(str(model["class_path"]))
    arguments = model.get("init_args") or {}
    try:
        learns = not kind.derived and method_without_weights(kind, arguments, classes=2).learns
    except NotImplementedError:  # it looks at values, of which there are none here
        learns = True
    if learns:
        raise MethodError(
            f"nothing learned is given, so this would {subcommand} {kind.__name__} untrained: add --weights FILE (or "
            "--ckpt_path FILE); for zero-shot's own numbers, --config zero_shot"
        )
