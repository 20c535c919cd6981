"""Studies: a named set of recipes on a suite that answers one question by varying one axis at a time.

A study is a YAML in `configs/studies/` or anywhere else, as `study.schema.json` says. Each variant becomes a recipe
under a name of its own: a packaged recipe with settings above its overrides. So keys, records, reruns, workers and
start chains are those of the bench, and so is what a suite overrides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipbench.backbone.spec import usual_name
from clipbench.errors import ConfigError, UnknownName
from clipbench.protocols.base import protocol
from clipbench.recipes.recipe import Config, Recipe, is_yaml, known_recipes, load_recipe
from clipbench.recipes.request import Request
from clipbench.recipes.suites import load_suite
from clipbench.resources import configs_dir
from clipbench.yaml_files import check_schema, read_yaml

SCHEMA_FILE = Path(__file__).with_name("study.schema.json")
FOLDER = "studies"


@dataclass(frozen=True)
class Variant:
    """One recipe of a study.

    Attributes:
        label: the name of this recipe in records and tables.
        recipe: the recipe that it is made from, a packaged one or the path of a YAML file.
        settings: what is set in it, dotted.
        axis: the axis that it stands on; empty for the default and the references.
        value: how it is called on that axis.
    """

    label: str
    recipe: str
    settings: Config = field(hash=False)
    axis: str = ""
    value: str = ""

    def as_recipe(self) -> Recipe:
        """The recipe to run: settings stand above every override of the packaged one."""
        base = load_recipe(self.recipe)
        own = ({"set": dict(self.settings)},) if self.settings else ()
        return Recipe(self.label, base.sections, (*base.overrides, *own), base.about)


@dataclass(frozen=True)
class Axis:
    """What is varied while all else stays.

    Attributes:
        name: for people.
        centre: label of the variant that it is varied around.
        points: value to label, in the order to show them; the centre is one of them.
    """

    name: str
    centre: str
    points: dict[str, str] = field(hash=False)

    @property
    def numeric(self) -> bool:
        """Whether it is varied in steps of one quantity."""
        return all(_number(value) is not None for value in self.points)


@dataclass(frozen=True)
class Study:
    """A study as its file says it; attributes are those of the schema.

    Attributes:
        datasets: what it is measured on; of a transfer the targets.
        shots: numbers of images per class, rising.
        variants: the default first, then recipes that axes stand around, those of the axes, the references; each once.
    """

    name: str
    title: str
    question: str
    suite: str
    protocol: str
    backbone: str | None
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    shots: tuple[int, ...]
    minutes: float
    variants: tuple[Variant, ...]
    axes: tuple[Axis, ...]
    figures: tuple[Config, ...] = field(hash=False)
    caption: str

    @property
    def default(self) -> Variant:
        """The variant that the axes are varied around."""
        return self.variants[0]

    @property
    def trained(self) -> tuple[str, ...]:
        """The datasets that its cells train on: of a transfer the source, else those that it is measured on."""
        return (load_suite(self.suite).source,) if protocol(self.protocol).has_targets else self.datasets

    @property
    def references(self) -> list[str]:
        """Labels of what stands beside, on no axis."""
        return [variant.label for variant in self.variants[1:] if not variant.axis]

    def folder(self, results: Path) -> Path:
        """Where its table and figures go; records lie below, by suite and protocol."""
        return results / FOLDER / self.name

    def request(self, only: Sequence[str] = (), data_root: str | None = None) -> Request:
        """The grid of its variants, or of some of them.

        Raises:
            UnknownName: there is no variant of such a label.
        """
        labels = [variant.label for variant in self.variants]
        for label in only:
            if label not in labels:
                raise UnknownName(f"variant of study {self.name}", label, labels)
        return Request(
            recipes=tuple(v.as_recipe() for v in self.variants if not only or v.label in only),
            suite=load_suite(self.suite), datasets=self.datasets, seeds=self.seeds, shots=self.shots[0],
            protocol=self.protocol, backbone=self.backbone and usual_name(self.backbone), data_root=data_root,
            more_shots=self.shots[1:],
        )  # fmt: skip


def known_studies() -> dict[str, Path]:
    """The packaged studies: name to file."""
    return {path.stem: path for path in sorted((configs_dir() / "studies").glob("*.yaml"))}


def load_study(name: str) -> Study:
    """The packaged study of that name, or the one in a YAML file, where recipes may be YAML files beside it.

    Raises:
        UnknownName: no such study, or it names a suite, dataset, protocol, recipe, axis or key that is not there.
        ConfigError: it is not a study, or two of its variants are the same.
    """
    path = Path(name) if is_yaml(name) else known_studies().get(name)
    if path is None or not path.is_file():
        raise UnknownName("study", name, known_studies())
    return study_from(read_yaml(path), path.name, path.parent)


def study_from(content: Any, origin: str, folder: Path | None = None) -> Study:
    """A study from the content of its file, which lies in `folder`; raises as `load_study`, naming it `origin`."""
    check_schema(content, SCHEMA_FILE, "study", origin)
    suite, asked = load_suite(content["suite"]), list(content.get("datasets") or ())
    transfers = protocol(content.get("protocol", "base_to_novel")).has_targets
    known = suite.transfer(asked)[1] if transfers else suite.choose(asked)
    datasets = tuple(asked or known)
    default = content["default"]
    axes = content["axes"]
    shots = content["shots"] if isinstance(content["shots"], list) else [content["shots"]]
    labels = [default["label"], *(entry["label"] for entry in content["variants"])]
    centres = dict.fromkeys(entry["around"] for entry in axes.values() if entry.get("around", labels[0]) not in labels)
    variants = [Variant(default["label"], _recipe(default["recipe"], folder), default.get("set", {}))]
    variants += [Variant(name, name, {}) for name in centres]
    by_label = {variant.label: variant for variant in variants}
    for name in centres:
        if name not in known_recipes():
            raise UnknownName(f"variant or recipe in {origin}", name, [*labels, *known_recipes()])
    for entry in content["variants"]:
        if entry["axis"] not in axes:
            raise UnknownName(f"axis in {origin}", entry["axis"], axes)
        like = entry.get("like", axes[entry["axis"]].get("around", default["label"]))
        if like not in by_label:
            raise UnknownName(f"variant in {origin} (one that stands above '{entry['label']}')", like, by_label)
        former = by_label[like]
        recipe = _recipe(entry["recipe"], folder) if "recipe" in entry else former.recipe
        settings = (former.settings if recipe == former.recipe else {}) | entry.get("set", {})
        variant = Variant(entry["label"], recipe, settings, entry["axis"], str(entry["value"]))
        if variant.label in by_label:
            raise ConfigError(f"{origin}: two variants are called '{variant.label}'")
        variants.append(variant)
        by_label[variant.label] = variant
    for name in content.get("references", ()):
        if name not in by_label:
            variants.append(Variant(Path(name).stem if is_yaml(name) else name, _recipe(name, folder), {}))
    _check_variants(variants, origin)
    return Study(
        name=content["name"], title=content["title"], question=_line(content["question"]), suite=content["suite"],
        protocol=content.get("protocol", "base_to_novel"), backbone=content.get("backbone"), datasets=datasets,
        seeds=tuple(content["seeds"]), shots=tuple(sorted(shots)), minutes=content["minutes"], variants=tuple(variants),
        axes=tuple(_axis(name, entry, variants, origin) for name, entry in axes.items()),
        figures=tuple(content["figures"]), caption=_line(content.get("caption", "")),
    )  # fmt: skip


def _recipe(name: str, folder: Path | None) -> str:
    """A recipe's name as it is; a file that is relative lies beside the study, or else in the working directory."""
    beside = (folder or Path()) / name
    return str(beside) if is_yaml(name) and (beside.is_file() or not Path(name).is_file()) else name


def _axis(name: str, entry: Mapping[str, Any], variants: Sequence[Variant], origin: str) -> Axis:
    """Numbers in their order; words as they stand in the file, after the centre."""
    centre = entry.get("around", variants[0].label)
    own = [(variant.value, variant.label) for variant in variants if variant.axis == name]
    points = [(str(entry["at"]), centre), *own]
    if not own or len(dict(points)) < len(points):
        raise ConfigError(f"{origin}: axis '{name}' needs variants, each with a value of its own")
    if all(_number(value) is not None for value, _ in points):
        points.sort(key=lambda point: _number(point[0]) or 0.0)
    return Axis(name, centre, dict(points))


def _check_variants(variants: Sequence[Variant], origin: str) -> None:
    """Each is made from a recipe, none is there twice, none borrows the name of another recipe."""
    known, seen = known_recipes(), dict[str, str]()
    for variant in variants:
        if is_yaml(variant.recipe):
            load_recipe(variant.recipe)
        elif variant.recipe not in known:
            raise UnknownName(f"recipe in {origin}", variant.recipe, known)
        if variant.label in known and (variant.label != variant.recipe or variant.settings):
            raise ConfigError(f"{origin}: '{variant.label}' is a packaged recipe; call this variant otherwise")
        what = json.dumps([variant.recipe, variant.settings], sort_keys=True)
        if what in seen:
            raise ConfigError(f"{origin}: '{variant.label}' and '{seen[what]}' are the same run")
        seen[what] = variant.label
    labels = [variant.label for variant in variants]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"{origin}: two of its recipes are called '{label}'")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _line(text: str) -> str:
    return " ".join(str(text).split())
