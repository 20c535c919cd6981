"""What can go wrong, as one tree; a message is one sentence that names thing, place and the nearest right thing.

ClipbenchError
|- ConfigError        a wrong call or a wrong file of settings (exit status 2)
|  |- UnknownName     a name that is not known; suggests the nearest one
|  |- UnreadSetting   a setting that nothing would read
|  `- NotHere         a right word for what this machine does not have (exit status 1)
|- DataError          missing, damaged or surprising data
|- BackboneError      weights that cannot be loaded, or a backbone that cannot be what is asked for
|  `- LacksAbility    a method on a tower that it cannot use (exit status 2)
|- MethodError        a method that cannot go on (a loss that is not finite, weights of another backbone)
`- RecordError        a record or run folder that cannot be read or written
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class ClipbenchError(Exception):
    """Base of all errors that a user can mend; printed without a traceback."""

    exit_status = 1


class ConfigError(ClipbenchError):
    """A wrong call or a wrong file of settings."""

    exit_status = 2


class UnknownName(ConfigError):
    """A name that is not known; the message suggests the nearest known one.

    Args:
        kind: what is named, for example "dataset".
        name: the name as given.
        known: all names that would have been right.
        note: what else would be right, after the known ones.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], note: str = "") -> None:
        known = sorted(known)
        plain = {one.lower(): one for one in known}
        near = [plain[one] for one in difflib.get_close_matches(name.lower(), plain, n=1, cutoff=0.5)]
        hint = f"; did you mean '{near[0]}'?" if near else ""
        shown = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
        super().__init__(f"unknown {kind} '{name}'{hint} (known: {shown or 'none'}{note})")
        self.kind, self.name, self.nearest = kind, name, near[0] if near else None


def raise_together(wrong: Mapping[str, ClipbenchError], kind: str, most: int = 10) -> None:
    """Raise what is wrong with several things as one error, each by its name; the only one as it is.

    Args:
        wrong: name to error; nothing is raised where it is empty.
        kind: what is named, as "recipe".
        most: so many are told.
    """
    texts = {str(error) for error in wrong.values()}
    if len(texts) == 1:
        raise next(iter(wrong.values()))
    if texts:
        lines = [f"{kind} '{name}': {error}" for name, error in wrong.items()]
        more = [f"and {len(lines) - most} more"] if len(lines) > most else []
        raise ConfigError("\n".join([*lines[:most], *more]))


class UnreadSetting(ConfigError):
    """A setting that nothing would read under the other settings, so that no record may state it.

    Args:
        name: of the setting.
        value: as given.
        reason: why nothing reads it.
    """

    def __init__(self, name: str, value: object, reason: str) -> None:
        super().__init__(f"{name}={value!r} is read by nothing: {reason}; leave {name} out (null)")
        self.name = name


class NotHere(ConfigError):
    """A right word for something that this machine does not have."""

    exit_status = 1


class DataError(ClipbenchError):
    """Missing, damaged or surprising data."""


class BackboneError(ClipbenchError):
    """Weights that cannot be loaded, or a backbone that cannot be what is asked for."""


class LacksAbility(BackboneError):
    """A wrong call: a method on a tower without an ability that it needs."""

    exit_status = 2


class MethodError(ClipbenchError):
    """A method that cannot go on."""


class RecordError(ClipbenchError):
    """A record or run folder that cannot be read or written."""


class Terminated(KeyboardInterrupt):
    """A scheduler's SIGTERM: as Ctrl-C, with an exit status of its own."""


class ClipbenchWarning(UserWarning):
    """Something a user should know but that does not stop the work."""
