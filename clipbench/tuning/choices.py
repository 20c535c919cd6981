"""Settings that belong to a choice: read under one value of another setting, refused under the others."""

from __future__ import annotations

from typing import Any

from clipbench.errors import UnreadSetting


def refuse_unread(reason: str, **settings: Any) -> None:
    """Refuse settings that nothing would read, so that no record states what did not act.

    Args:
        reason: why they are not read, for example "optimizer adam has none".
        settings: name to value; None is what a setting is that was not given.

    Raises:
        UnreadSetting: one of them was given.
    """
    for name, value in settings.items():
        if value is not None:
            raise UnreadSetting(name, value, reason)
