"""What identifies the data, the backbone and the code behind a cell; it stands in the record and in its key."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, cast

from clipbench.errors import ConfigError, DataError
from clipbench.recipes.recipe import Config

if TYPE_CHECKING:
    from clipbench.data.task import Task


def numeric_versions() -> dict[str, int]:
    """Integer versions of the packages that numbers come from; raised when their numbers move."""
    import clipbench.backbone.version as backbone
    import clipbench.data.version as data

    return {"data": data.VERSION, "backbone": backbone.VERSION}


def spec_identity(backbone: str) -> dict[str, Any]:
    """What the hash of the tensors does not say about a backbone: activation and preprocessing."""
    from clipbench.backbone.spec import resolve_spec

    spec = resolve_spec(backbone)
    return {"activation": spec.activation, "preprocessing": dataclasses.asdict(spec.preprocessing)}


def published_weights(full: Config) -> dict[str, str]:
    """Which published weights a file of the user's holds, where its name does not say it; part of no key."""
    from clipbench.backbone.load import known_weights
    from clipbench.backbone.spec import resolve_spec, usual_name

    name = full["model"]["init_args"]["backbone"]
    known = known_weights(resolve_spec(name))
    return {"pretrained": known} if known and known != usual_name(name) else {}


def hash_at_hand(backbone: str) -> str | None:
    """The hash of a backbone's tensors; None where its weights would have to be fetched.

    Raises:
        BackboneError: the weights are damaged, or not where the name says.
    """
    from clipbench.backbone.clip import backbone_hash
    from clipbench.backbone.load import weights_file
    from clipbench.backbone.spec import resolve_spec

    spec = resolve_spec(backbone)
    remote = spec.source.partition(":")[0] in ("tag", "hub", "untagged")
    return None if remote and weights_file(spec) is None else backbone_hash(backbone)


class DataFingerprints:
    """Fingerprints and templates of data sections, each read once.

    Args:
        opens: whether published images are opened to look at their headers; else they only have to be there.
    """

    def __init__(self, opens: bool = True) -> None:
        self._opens = opens
        self._modules: dict[str, Any] = {}
        self._said: set[str] = set()

    def _module(self, section: Config) -> Any:
        from clipbench.data import module

        key = repr(sorted(section["init_args"].items(), key=str)) + section["class_path"]
        if key not in self._modules:
            kind = getattr(module, section["class_path"].rpartition(".")[2], None)
            if kind is None:
                raise ConfigError(f"unknown data module '{section['class_path']}'")
            self._modules[key] = kind(**section["init_args"])
            self._modules[key].opens_images = self._opens
        return self._modules[key]

    def of(self, section: Config) -> dict[str, Any]:
        """What identifies the data: hashes of split, draw and files; seeds; the augmentation in effect."""
        data = self._module(section)
        data.prepare()
        for name, count in data.count_tests().items():
            if not data.split.test or not count:
                empty = name if name in data.targets else data.dataset
                half = f" of the classes of split '{name}'" if data.split.test and name not in data.targets else ""
                raise DataError(f"'{empty}' has no test images{half}: a bench has nothing to measure on it")
        sources = (data.source, *data.targets.values())
        for line in (line for one in sources for line in one.about()[1:]):  # what was passed over, once for all cells
            if line not in self._said:
                print(f"clipbench: {line}", file=sys.stderr)
            self._said.add(line)
        return {
            "dataset": data.dataset,  # part of the keys of augmentation and order
            **data.fingerprint(),
            "split_seed": data.split_seed,
            "train_seed": data.train_seed,
            "augmentation": dict(data.augmentation),
        }

    def problems(self, section: Config) -> dict[str, str]:
        """What is missing or damaged: by target, and of the dataset itself by ""."""
        data, found = self._module(section), {}
        for name in ("", *(data.hparams.get("targets") or ())):
            try:
                (data.open_target(name) if name else data.source).fingerprint()
            except DataError as error:
                found[name] = str(error)
        return found

    def measured(self, section: Config) -> dict[str, str]:
        """What is drawn from and measured on, whatever the seed: images that changed share no row; part of no key."""
        source = self._module(section).source
        digests = {"test_digest": source.test_digest, "train_digest": source.train_digest}
        return {name: digest for name, digest in digests.items() if digest}

    def task(self, section: Config) -> Task:
        """What is trained and measured on the data."""
        return cast("Task", self._module(section).task)

    def of_card(self, section: Config) -> list[str]:
        """The settings of the augmentation that the card has, so that nobody else's act."""
        return list(self._module(section).card.augmentation)

    def templates(self, section: Config, name: str) -> dict[str, Any]:
        """The templates of the dataset in a named set, and those of each target beside what identifies its images."""
        from clipbench.data.templates import templates_for_task

        data = self._module(section)
        found: dict[str, Any] = {"template_set": name, "templates": list(data.templates(name))}
        if data.targets:
            sentences = {split.name: list(templates_for_task(name, split)) for split in data.task.tests}
            images = data.target_fingerprints()
            found["targets"] = {target: images[target] | {"templates": sentences[target]} for target in images}
        return found
