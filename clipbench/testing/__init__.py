"""The conformance suite: properties that every method and every card must have, importable by plug-ins.

A method outside the repository is tested in three lines (docs/own_methods.md):

    from clipbench.testing import METHOD_CHECKS, run_check

    @pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check, tmp_path):
        run_check(check, "my_recipe.yaml", tmp_path)

and its card with `check_card(load_card("my_card"), tmp_path)`, or one by one with `CARD_CHECKS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.testing.cards import CARD_CHECKS, check_card
    from clipbench.testing.methods import METHOD_CHECKS, run_check

__all__ = ["CARD_CHECKS", "METHOD_CHECKS", "check_card", "run_check"]
_MODULES = {"CARD_CHECKS": "cards", "check_card": "cards", "METHOD_CHECKS": "methods", "run_check": "methods"}


def __getattr__(name: str) -> Any:
    """Import what is asked for alone: the checks of cards need no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
