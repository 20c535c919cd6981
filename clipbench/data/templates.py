"""Template sets: named files `configs/templates/NAME.yaml` with the sentences for the classes of each dataset."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.data.cards import read_yaml
from clipbench.errors import ConfigError, UnknownName
from clipbench.resources import configs_dir

if TYPE_CHECKING:
    from clipbench.data.task import Task

GENERIC = "a photo of a {}."


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
    path = configs_dir() / "templates" / f"{name}.yaml"
    if not path.is_file():
        raise UnknownName("template set", name, list_template_sets())
    data = read_yaml(path)
    try:
        listed = {key: _checked(value, path, key) for key, value in data["templates"].items()}
        default = _checked(data.get("default", [GENERIC]), path, "default")
        return TemplateSet(name, str(data["description"]).strip(), str(data["source"]).strip(), listed, default)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} must have the keys description, source and templates: {error!r}") from error


def _checked(templates: object, path: Path, key: str) -> tuple[str, ...]:
    if not isinstance(templates, list) or not templates or not all(isinstance(text, str) for text in templates):
        raise ConfigError(f"{path}: the templates of '{key}' must be a list of sentences")
    for text in templates:
        check_template(text, f"{path}: {key}")
    return tuple(templates)


def check_template(template: str, where: str) -> str:
    """The template itself, when it has exactly one `{}` and no other brace.

    Raises:
        ConfigError: otherwise.
    """
    if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
        raise ConfigError(f"{where}: a template needs '{{}}' exactly once, for the class name, but is '{template}'")
    return template


def templates_for_task(set_name: str, task: Task) -> tuple[str, ...]:
    """The templates of a task's dataset in a set.

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
    return chosen.templates.get(task.dataset, chosen.default)


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
