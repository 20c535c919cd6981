"""The version of the numeric path of this room: raised when a change moves draws, augmentation or order of images."""

VERSION = 1
