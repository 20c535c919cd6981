"""The version of the numeric path of this room: raised when a change moves features by more than rounding."""

VERSION = 1
