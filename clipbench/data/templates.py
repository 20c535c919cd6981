"""Template sets: named files `configs/templates/NAME.yaml` with the sentences for the classes of each dataset."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.errors import ConfigError, UnknownName
from clipbench.resources import configs_dir
from clipbench.yaml_files import check_schema, read_yaml

if TYPE_CHECKING:
    from clipbench.data.task import Task, TestSplit

GENERIC = "a photo of a {}."
SCHEMA_FILE = Path(__file__).with_name("templates.schema.json")


@dataclass(frozen=True)
class TemplateSet:
    """A named set of templates.

    Attributes:
        name: the name of the file.
        description, source: what it is and where the sentences come from.
        templates: dataset key to its templates.
        default: templates of a dataset that is not listed.
    """

    name: str
    description: str
    source: str
    templates: Mapping[str, tuple[str, ...]]
    default: tuple[str, ...]


def list_template_sets() -> tuple[str, ...]:
    """Names of the sets that there are."""
    return tuple(sorted(path.stem for path in (configs_dir() / "templates").glob("*.yaml")))


@functools.cache
def template_set(name: str) -> TemplateSet:
    """The set of that name.

    Raises:
        UnknownName: when there is none; names the nearest one.
        ConfigError: when the file is not right.
    """
    if name not in list_template_sets():  # a name, never a path
        raise UnknownName("template set", str(name), list_template_sets())
    path = configs_dir() / "templates" / f"{name}.yaml"
    data = read_yaml(path)
    check_schema(data, SCHEMA_FILE, "template set", str(path))
    listed = {key: tuple(sentences) for key, sentences in data["templates"].items()}
    default = tuple(data.get("default", [GENERIC]))
    return TemplateSet(name, data["description"].strip(), data["source"].strip(), listed, default)


def check_template(template: str, where: str) -> str:
    """The template itself, when it is one line with exactly one `{}` and no other brace.

    Raises:
        ConfigError: otherwise.
    """
    if not isinstance(template, str) or template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        raise ConfigError(f"{where}: a template needs '{{}}' exactly once, for the class name, but is '{template}'")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in template):
        raise ConfigError(f"{where}: a template is one line of text, without control characters, but is {template!r}")
    return template


def templates_for_task(set_name: str, task: Task | TestSplit) -> tuple[str, ...]:
    """The templates of the dataset of a task, or of a split that is of another dataset, in a set.

    A dataset with a template of its own (rendered or own data) uses that under every set.

    Raises:
        UnknownName: there is no set of that name.

    Example:
        >>> from clipbench.data.task import Task
        >>> task = Task("dtd", None, ("banded", "dotted"), ())
        >>> templates_for_task("coop", task), templates_for_task("clipfit", task)
        (('{} texture.',), ('a photo of a {}, a type of texture.',))
    """
    chosen = template_set(set_name)
    if task.template is not None:
        return (task.template,)
    return chosen.templates.get(task.dataset or "", chosen.default)


def class_text(classname: str) -> str:
    """A class name as every prompt writes it: underscores become blanks, nothing else changes.

    Example:
        >>> class_text("apple_pie")
        'apple pie'
    """
    return classname.replace("_", " ")


def fill(template: str, classname: str) -> str:
    """The sentence for a class, with its name as `class_text` writes it.

    Example:
        >>> fill("a photo of {}, a type of food.", "apple_pie")
        'a photo of apple pie, a type of food.'
    """
    return template.replace("{}", class_text(classname))
