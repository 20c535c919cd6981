"""What jsonargparse says about a config, as the one sentence that matters."""

from __future__ import annotations

import difflib
import re
from importlib import import_module

TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
    "tuple": "a list", "dict": "a mapping",
}  # fmt: skip
# where Lightning's own classes for an argument of the trainer stand
CLASSES = {
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.profiler": "lightning.pytorch.profilers",
    "trainer.plugins": "lightning.pytorch.plugins",
    "trainer.strategy": "lightning.pytorch.strategies",
}
BASES = ("Base", "Callback", "Checkpoint", "Lambda", "Logger", "ProgressBar")  # of Lightning, to derive from
NOISE = re.compile(
    r"Subtypes|Errors:|Expected (a )?<class|Expected a path|Does not validate against any|Given value"
    r"|Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with|Parser key"
    r"|Problem with given class_path"
)


def one_sentence(text: str) -> str:
    """jsonargparse's tree of attempts as one line: the key, and what is wrong with its value."""
    place = ".".join(re.findall(r'Parser key "([^"]+)"', text))
    kinds = re.findall(r"Problem with given class_path '(?:\w+\.)*(\w+)'", text)
    kind = kinds[-1] if kinds else "the class"
    if found := re.search(r"the following arguments are required: (.+)", text):
        names = found[1].split(", ")
        return f"{place}: required: {found[1]}; {kind} has no default for it, give {place}.{names[0]}"
    if found := re.search(r"Option '([^']+)' is not accepted", text):
        return f"{place}: {kind} has no setting '{found[1]}'"
    if found := re.search(r"No module named '([^']+)'", text):
        return f"{place}: there is no module '{found[1]}', neither installed nor where clipbench is called from"
    if found := re.search(r"module '([^']+)' has no attribute '([^']+)'", text):
        return f"{place}: module '{found[1]}' has no '{found[2]}'"
    if found := re.search(r"Import path (?:(\S+) )?does not correspond to a subclass of (\w+)", text):
        named = found[1] or (re.findall(r"Given value: (.*)", text) or ["it"])[0]
        return f"{place}: '{named[:100]}' is not a {found[2]}"
    if found := re.search(r"(?:Expected a dot import path string|Unexpected import path format): (.+)", text):
        return f"{place}: there is no class '{found[1]}'{_nearest(place, found[1])}"
    inner = text[text.rfind('Parser key "') :]
    wanted = dict.fromkeys(_wanted(inner))
    given = re.search(r"(?:Got|Given) value: (.*)", inner)
    if wanted and given and place:
        return f"{place}: '{given[1][:100]}' is not {' or '.join(wanted)}"
    lines = [line.strip(" -") for line in text.splitlines()]
    said = "; ".join(line[:300] for line in lines if line and not re.match(NOISE, line))
    if not said and given:
        said = f"'{given[1][:100]}' is nothing that it takes"
    return f"{place}: {said}" if place else said


def _wanted(text: str) -> list[str]:
    found = []
    for expected in re.findall(r"Expected (?:a |an )?(.+)", text):
        what = expected.split(". Got value")[0]
        if kind := re.match(r"<class '(?:\w+\.)*(\w+)'>", what):
            if kind[1] != "NoneType":
                found.append(TYPES.get(kind[1], kind[1]))
        elif literal := re.match(r"typing\.Literal\[(.*)\]", what):
            found.append("one of " + literal[1].replace("'", ""))
        elif not what.startswith("path but"):
            found.append(f"a {what}")
    return found


def _nearest(place: str, name: str) -> str:
    """The class of Lightning that may be meant, or all that can be used as they are."""
    if place not in CLASSES:
        return ""
    known = [one for one in import_module(CLASSES[place]).__all__ if one[:1].isupper() and not one.startswith(BASES)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f" (Lightning's own: {', '.join(known)}; one of yours is module.Class)"
