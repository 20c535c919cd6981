"""The datasets that a transfer is tested on: cards, folders and manifests, of which only the test images count."""

from __future__ import annotations

import dataclasses
from typing import Any

from clipbench import protocols
from clipbench.argument_types import refuse_wrong_types
from clipbench.data.sources import SHOTS, ImageSource, card_source, folder_source, manifest_source
from clipbench.data.templates import GENERIC
from clipbench.errors import ConfigError, UnknownName

# name of the split -> key or path of a card, or what a suite says: {class_path: ImageFolder, init_args: {root: photos}}
Targets = dict[str, str | dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class CardTarget:
    """A dataset with a card."""

    dataset: str
    root: str | None = None

    def open(self, shots: int) -> ImageSource:
        """Its source; `shots` decides which few-shot images are looked at beside the test images."""
        return card_source(self.dataset, self.root, shots)


@dataclasses.dataclass(frozen=True)
class FolderTarget:
    """A folder of images by class."""

    root: str
    split: str | list[float] | None = None
    split_seed: int = 1
    template: str = GENERIC

    def open(self, shots: int) -> ImageSource:
        """As that of a card."""
        return folder_source(self.root, self.split, self.split_seed, self.template, shots)


@dataclasses.dataclass(frozen=True)
class ManifestTarget:
    """A CSV manifest."""

    path: str
    root: str | None = None
    template: str = GENERIC

    def open(self, shots: int) -> ImageSource:
        """As that of a card."""
        return manifest_source(self.path, self.root, self.template, shots)


KINDS = {"FewShotDataModule": CardTarget, "ImageFolder": FolderTarget, "Manifest": ManifestTarget}


def refuse_targets(protocol: str, targets: Targets | None) -> None:
    """Raise ConfigError for targets under a protocol that has none, or none where it needs some.

    Raises:
        UnknownName: there is no such protocol.
    """
    if bool(targets) != (has := protocols.protocol(protocol).has_targets):
        raise ConfigError(
            f"protocol {protocol} needs data.targets, as {{dtd: dtd}}: the datasets that are tested on" if has
            else f"protocol {protocol} has no targets: data.targets is for cross_dataset (null leaves it out)"
        )  # fmt: skip


def open_target(name: str, said: str | dict[str, Any], root: str | None = None, shots: int = SHOTS) -> ImageSource:
    """The source of one target; opens no image.

    Args:
        name: of its split.
        said: see `Targets`.
        root: the data root of a card that names none.
        shots: images per class of the draw that is looked at beside the test images.

    Raises:
        UnknownName: no such card, kind of data or setting.
        ConfigError: a setting is missing or of another type.
        DataError: the folder or manifest is not right.
    """
    section = {"class_path": "FewShotDataModule", "init_args": {"dataset": said}} if isinstance(said, str) else said
    unknown = sorted(section.keys() - {"class_path", "init_args"})
    if unknown:
        raise UnknownName(f"key of target '{name}'", unknown[0], ("class_path", "init_args"))
    kind = str(section.get("class_path", "")).removeprefix("clipbench.data.module.")
    if kind not in KINDS:
        raise UnknownName(f"data module of target '{name}'", kind, KINDS)
    arguments = section.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"init_args of target '{name}' is {arguments!r:.60}: settings, as {{root: photos}}")
    fields = dataclasses.fields(KINDS[kind])
    for key in arguments:
        if key not in {field.name for field in fields}:
            raise UnknownName(f"setting of target '{name}'", str(key), [field.name for field in fields])
    if fields[0].name not in arguments:
        raise ConfigError(f"target '{name}' of {kind} names no init_args.{fields[0].name}")
    refuse_wrong_types(KINDS[kind], arguments, f"target '{name}'")
    target = KINDS[kind](**arguments)
    if isinstance(target, CardTarget) and target.root is None:
        target = dataclasses.replace(target, root=root)
    return target.open(shots)
