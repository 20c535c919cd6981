"""Trained modules in the places of selected Linears of the towers: low-rank factors, adapters, layers of peft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from clipbench.backbone.view import BackboneView
from clipbench.errors import ConfigError
from clipbench.tuning.selection import needs_of, select_linears

NO_BATCHNORM = {
    "check_batchnorm_and_dropout_stay_frozen": "what it trains stands in blocks of our transformer as the image tower, "
    "which has neither BatchNorm nor dropout"
}


class WrappedLinears:
    """The Linears that a selection means, each replaced by a module of a method.

    Args:
        selection: sentences over Linears (`selection.py`).

    Attributes:
        sizes: (in, out) of every selected Linear by its name, once they are replaced.

    Raises:
        ConfigError: a sentence cannot be read.
    """

    def __init__(self, selection: Sequence[str]) -> None:
        needs_of(selection)
        self.selection = tuple(selection)
        self.sizes: dict[str, tuple[int, int]] = {}

    def select(self, backbone: BackboneView) -> dict[str, nn.Linear]:
        """The Linears that are meant, by name; to be called before any is replaced.

        Raises:
            ConfigError: a sentence means nothing on this backbone.
        """
        linears = select_linears(backbone, self.selection)
        self.sizes = {name: (linear.in_features, linear.out_features) for name, linear in linears.items()}
        return linears

    def replace(
        self, backbone: BackboneView, factory: Callable[[str, nn.Linear], nn.Module]
    ) -> dict[str, nn.Parameter]:
        """Put a module in the place of every selected Linear.

        Args:
            backbone: a method's view.
            factory: from the Linear's name and the Linear to the module.

        Returns:
            What is trainable in the modules, by name; once where modules share it.

        Raises:
            ConfigError: a sentence means nothing, or a module cannot be put there.
        """
        trainable: dict[str, nn.Parameter] = {}
        known: set[int] = set()
        for name in self.select(backbone):
            try:
                module = backbone.replace_linear(name, partial(factory, name))
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
            for leaf, parameter in module.named_parameters():
                if parameter.requires_grad and id(parameter) not in known:
                    known.add(id(parameter))
                    trainable[f"{name}.{leaf}"] = parameter
        return trainable
