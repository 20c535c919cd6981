"""Suites: a named list of datasets with a backbone, one YAML in `configs/suites/` or anywhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbench.backbone.spec import name_in
from clipbench.errors import ConfigError, UnknownName
from clipbench.recipes.settings import Config
from clipbench.resources import configs_dir
from clipbench.yaml_files import check_schema, read_yaml

SCHEMA_FILE = Path(__file__).with_name("suite.schema.json")
# of the settings of a data module, those that say which images these are
IMAGES = {
    "FewShotDataModule": ("dataset", "root"), "ImageFolder": ("root", "split", "split_seed", "template"),
    "Manifest": ("path", "root", "template"),
}  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """A named list of datasets with a backbone.

    Attributes:
        name: as in records and tables.
        backbone: the backbone unless told otherwise.
        datasets: key -> `data` section of a config (`class_path`, `init_args`).
        title: one line for people.
        note: what a table of this suite must say about itself.
        source: the dataset that cross_dataset trains on; "" where the suite names none.
    """

    name: str
    backbone: str
    datasets: dict[str, Config] = field(hash=False)
    title: str = ""
    note: str = ""
    source: str = ""

    def choose(self, names: list[str] | None) -> dict[str, Config]:
        """The datasets of these names, or all, in the suite's order.

        Raises:
            UnknownName: the suite has no such dataset.
        """
        if not names:
            return self.datasets
        for name in names:
            if name not in self.datasets:
                raise UnknownName(f"dataset of suite {self.name}", name, self.datasets)
        return {key: value for key, value in self.datasets.items() if key in names}

    def transfer(self, names: list[str] | None) -> tuple[str, dict[str, Config]]:
        """The source of a transfer, and the targets of these names, or all other datasets, in the suite's order.

        Raises:
            ConfigError: the suite names no source; a target that is the source; no target.
            UnknownName: the suite has no such dataset.
        """
        if not self.source:
            raise ConfigError(f"suite {self.name} names no source: cross_dataset trains on it, as `source: imagenet`")
        targets = self.choose(names)
        if self.source in (names or ()):
            raise ConfigError(f"'{self.source}' is the source of suite {self.name}: --datasets names targets")
        targets = {name: section for name, section in targets.items() if name != self.source}
        if not targets:
            raise ConfigError(f"suite {self.name} has no dataset beside its source, '{self.source}'")
        return self.source, targets


def target_of(section: Config, source: Config, root: str | None) -> str | Config:
    """What `data.targets` says of a dataset of a suite: which images these are, not how one would train on them.

    Args:
        section: its `data` section.
        source: that of the source.
        root: the data root of cards in place of what the sections name; None: as they say.
    """
    kind, that = (one["class_path"].rpartition(".")[2] for one in (section, source))
    said = {name: value for name, value in section["init_args"].items() if name in IMAGES[kind]}
    if kind != "FewShotDataModule":
        return {"class_path": kind, "init_args": said}
    if root is not None:  # where the source has a card too, that is its root
        said = {"dataset": said["dataset"]} | ({} if that == kind else {"root": root})
    return said["dataset"] if said.keys() == {"dataset"} else {"class_path": kind, "init_args": said}


def known_suites() -> dict[str, Path]:
    """The packaged suites: name to file."""
    return {path.stem: path for path in sorted((configs_dir() / "suites").glob("*.yaml"))}


def load_suite(name: str) -> Suite:
    """The packaged suite of that name, or the suite in a YAML file.

    A dataset is a card (`dtd: dtd`), a folder or a manifest (`mine: {class_path: Manifest, init_args: {path: ...}}`);
    relative paths are relative to the file.

    Raises:
        UnknownName: no such suite.
        ConfigError: the file is not a suite.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else known_suites().get(name)
    if path is None or not path.is_file():
        raise UnknownName("suite", name, known_suites())
    content = read_yaml(path)
    check_schema(content, SCHEMA_FILE, "suite", path.name)
    datasets = {key: _data_section(value, path.parent) for key, value in content["datasets"].items()}
    source = content.get("source", "")
    if source and source not in datasets:
        raise UnknownName(f"dataset of suite {content['name']}", source, datasets)
    return Suite(
        content["name"], name_in(path.parent, content["backbone"]), datasets,
        content.get("title", ""), " ".join(str(content.get("note", "")).split()), source,
    )  # fmt: skip


def _data_section(value: Any, folder: Path) -> Config:
    if isinstance(value, str):
        return {"class_path": "FewShotDataModule", "init_args": {"dataset": value}}
    arguments = dict(value.get("init_args", {}))
    for key in ("path", "root"):
        if key in arguments:
            arguments[key] = str(folder / os.path.expanduser(arguments[key]))
    return {"class_path": value["class_path"], "init_args": arguments}
