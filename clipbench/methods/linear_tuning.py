"""The base of the strategies that put trained modules around frozen Linears of the towers (LoRA, adapters, peft)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import nn

from clipbench.errors import ConfigError
from clipbench.methods.tower_tuning import TowerTuning
from clipbench.tuning.selection import read_sentence, select_linears

BATCHNORM = "the modules stand in blocks of our transformer as the image tower, which has neither BatchNorm nor dropout"


def needs_of(sentences: Sequence[str]) -> dict[str, set[str]]:
    """What a selection needs of the towers: blocks are those of our transformers, other Linears are in any tower.

    Raises:
        ConfigError: a sentence cannot be read.
    """
    if isinstance(sentences, str):
        raise ConfigError(f"a selection is a list of sentences, not '{sentences}'; write ['{sentences}']")
    read = [read_sentence(text) for text in sentences]
    towers = {tower for sentence in read if sentence.blocks is not None for tower in sentence.towers}
    return {tower: {"transformer"} for tower in sorted(towers)}


class LinearTuning(TowerTuning):
    """A strategy that puts modules around selected Linears.

    Args:
        shared: the arguments of `TowerTuning`.

    Attributes:
        selection: sentences over Linears; a subclass sets it before it calls this constructor.
        sizes: (in, out) of every selected Linear by its name, once built.
    """

    needs: ClassVar = {"image": {"transformer"}, "text": {"transformer"}}  # of the default; an object has its own
    selection: tuple[str, ...]

    def __init__(self, **shared: Any) -> None:
        self.needs = needs_of(self.selection)  # type: ignore[misc]
        super().__init__(**shared)
        self.sizes: dict[str, tuple[int, int]] = {}
        if "image" in self.needs:
            self.exempt = {"check_batchnorm_and_dropout_stay_frozen": BATCHNORM}

    def selected(self) -> dict[str, nn.Linear]:
        """The Linears of the backbone that are meant, by name; to be called before anything is put around them.

        Raises:
            ConfigError: a sentence means nothing.
        """
        linears = select_linears(self.backbone, self.selection)
        self.sizes = {name: (linear.in_features, linear.out_features) for name, linear in linears.items()}
        return linears

    def surround(self, factory: Callable[[str, nn.Linear], nn.Module]) -> dict[str, nn.Parameter]:
        """Put a module in the place of every selected Linear.

        Args:
            factory: from the Linear's name and the Linear to the module.

        Returns:
            What is trainable in the modules, by name; once where modules share it.

        Raises:
            ConfigError: a sentence means nothing, or a module cannot be put there.
        """
        trained: dict[str, nn.Parameter] = {}
        for name in self.selected():
            try:
                module = self.backbone.reparametrise(name, partial(factory, name))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
            known = {id(parameter) for parameter in trained.values()}
            trained |= {
                f"{name}.{leaf}": parameter
                for leaf, parameter in module.named_parameters()
                if parameter.requires_grad and id(parameter) not in known
            }
        return trained
