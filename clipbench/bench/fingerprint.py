"""Fingerprints of code: what a method from outside the package computes with, and what differs from the last commit.

Only what can move a number counts: comments, docstrings and layout do not, nor does the place of the files.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import os
import site
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from clipbench.errors import ConfigError
from clipbench.resources import CHECKOUT, PACKAGE, in_checkout

OWN = PACKAGE.name
NOT_PYTHON = (SyntaxError, ValueError, RecursionError)
# numbers come from these packages
NUMERIC = ("methods", "tuning", "backbone", "data", "protocols")


def class_path(kind: type) -> str:
    """The class by its module and name there, as `clipbench.methods.lora:LoRA`."""
    return f"{kind.__module__}:{kind.__qualname__}"


def code_of(method: type, callbacks: Iterable[type] = ()) -> dict[str, str]:
    """The code of a cell that no version number speaks for: name of a class or file -> fingerprint.

    Args:
        method: the class of the method; it counts unless it is one of ours.
        callbacks: classes of the trainer's callbacks; they count where they are neither ours nor installed.

    Raises:
        ConfigError: the source of a class cannot be found.
    """
    counted = [method] if _top(method.__module__) != OWN else []
    counted += [kind for kind in callbacks if not _is_installed(kind)]
    return (package_changes() or {}) | {class_path(kind): code_fingerprint(kind) for kind in counted}


@functools.cache
def code_fingerprint(kind: type) -> str:
    """SHA-256 of the code behind a class, hexadecimal.

    It covers the path of the class, its file and every module that this file imports, directly or through others,
    outside installed packages, the standard library and clipbench; of installed packages only the one that holds the
    class. Imports by a computed name are not followed. A class of a notebook counts with its own lines.

    Args:
        kind: the class. Its fingerprint is taken once per process: that is the code that runs there.

    Raises:
        ConfigError: the source of the class cannot be found.
    """
    own = _top(kind.__module__)
    sources: dict[str, bytes] = {}
    waiting: list[ModuleSpec] = []
    for base in kind.__mro__:
        specs = _specs_of_class(base)
        if specs:
            waiting += specs
        elif _top(base.__module__) not in sys.stdlib_module_names:
            sources[class_path(base)] = _normal(_lines_of_class(base))
    while waiting:
        spec = waiting.pop()
        if spec.name in sources or (_installed(spec) and _top(spec.name) != own):
            continue
        content = Path(str(spec.origin)).read_bytes()
        sources[spec.name] = _normal(content)
        for name in _imports(content, spec):
            waiting += _specs(name)
    parts = [f"{name} {_digest(text)}" for name, text in sorted(sources.items()) if text]
    return _digest("\n".join([class_path(kind), *parts]).encode())


@functools.cache
def package_changes() -> dict[str, str] | None:
    """What differs from the committed code in the packages that numbers come from; asked of git once per process.

    Returns:
        Path below the checkout -> SHA-256 of the code without comments and docstrings (`removed` where the file is
        gone), for changed and untracked Python files; empty where nothing differs; None without a git checkout.
    """
    if not in_checkout():
        return None
    folders = [f"{OWN}/{name}" for name in NUMERIC]
    try:
        _git("cat-file", "-e", f"HEAD:./{OWN}/__init__.py")  # a copy inside a repository of others is no checkout
        changed = _git("diff", "--name-only", "--no-renames", "-z", "--relative", "HEAD", "--", *folders)
        untracked = _git("ls-files", "--others", "-z", "--", *folders)
        before = {path: _git("show", f"HEAD:./{path}") for path in _python_files(changed)}
    except (OSError, subprocess.SubprocessError):
        return None
    changes = {}
    for path in sorted({*before, *_python_files(untracked)}):
        file = CHECKOUT / path
        code = _normal(file.read_bytes()) if file.is_file() else None
        if (code or b"") != _normal(before.get(path, b"")):
            changes[path] = "removed" if code is None else _digest(code)
    return changes


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _normal(content: bytes) -> bytes:
    """Python source as its syntax tree alone spells it, without docstrings; anything else as it is."""
    try:
        tree = ast.parse(content)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                ast.get_docstring(node, clean=False) is not None
            ):
                del node.body[0]
                if not node.body and not isinstance(node, ast.Module):
                    node.body.append(ast.Pass())
        return ast.unparse(tree).encode("utf-8", "surrogatepass")
    except NOT_PYTHON:
        return content


def _lines_of_class(kind: type) -> bytes:
    """The lines of a class that no file holds: from a notebook or the standard input."""
    try:
        return textwrap.dedent(inspect.getsource(kind)).encode()
    except (OSError, TypeError):
        pass
    for member in vars(kind).values():  # a notebook keeps the lines of functions only
        try:
            tree = ast.parse("".join(inspect.findsource(inspect.unwrap(member))[0]))
        except (OSError, TypeError, *NOT_PYTHON):
            continue
        if (found := _class_in(tree, kind.__name__)) is not None:
            return ast.unparse(found).encode()
    raise ConfigError(
        f"the source of '{class_path(kind)}' cannot be found, so records of it and of an edited one could not be told "
        "apart; put the class into a file"
    )


def _class_in(tree: ast.AST, name: str) -> ast.ClassDef | None:
    return next((node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name), None)


# Modules and their files, found without running them


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_installed(kind: type) -> bool:
    """Whether the class comes from an installed package, the standard library or clipbench."""
    specs = _specs_of_class(kind)
    return _top(kind.__module__) in sys.stdlib_module_names or bool(specs and _installed(specs[-1]))


def _specs_of_class(kind: type) -> list[ModuleSpec]:
    """The module that holds a class and the packages above it; empty where no file holds it."""
    module = sys.modules.get(kind.__module__)
    name = kind.__module__
    if name == "__main__" and getattr(module, "__spec__", None) is not None:  # python -m NAME
        name = module.__spec__.name  # type: ignore[union-attr]
    specs = list(_specs(name))
    if not specs or specs[-1].name != name:
        file = getattr(module, "__file__", None)
        spec = importlib.util.spec_from_file_location(name, file) if file else None
        specs = [spec] if spec is not None and _is_file(spec) else []
    if specs and kind.__module__ == "__main__":  # the program may be somebody else's that runs a notebook or a test
        try:
            held = _class_in(ast.parse(Path(str(specs[-1].origin)).read_bytes()), kind.__name__)
        except NOT_PYTHON:
            held = None
        specs = specs if held is not None else []
    return specs


def _specs(name: str) -> Iterator[ModuleSpec]:
    """The packages above a module, whose files run before it, and the module, as far as they are files."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ValueError, ImportError):  # loaded without a spec
        return
    while spec is not None:
        if _is_file(spec):
            yield spec
        if not rest or spec.submodule_search_locations is None:
            return
        spec = PathFinder.find_spec(f"{spec.name}.{rest.pop(0)}", list(spec.submodule_search_locations))


def _is_file(spec: ModuleSpec) -> bool:
    return bool(spec.has_location and spec.origin and os.path.isfile(spec.origin))


def _installed(spec: ModuleSpec) -> bool:
    """Whether it is part of an installed package, the standard library or clipbench."""
    if _top(spec.name) in (OWN, *sys.stdlib_module_names):
        return True
    path = Path(str(spec.origin)).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(
        path.is_relative_to(folder) for folder in _library_folders()
    )


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_paths()[name] for name in names]
    return tuple(Path(folder).resolve() for folder in (*folders, *site.getsitepackages(), site.getusersitepackages()))


def _imports(content: bytes, spec: ModuleSpec) -> Iterator[str]:
    """Names of what a module imports anywhere in its code; `from a import b` names a.b, which may be no module."""
    try:
        tree = ast.parse(content)
    except NOT_PYTHON:
        return
    package = spec.name if spec.submodule_search_locations is not None else spec.name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            if base:
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _git(*words: str) -> bytes:
    # without the variables that git sets for its hooks: they may mean another repository
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *words]
    run = subprocess.run(command, cwd=CHECKOUT, env=outside, capture_output=True, check=True, timeout=30)  # noqa: S603
    return run.stdout


def _python_files(listing: bytes) -> list[str]:
    return [path for path in os.fsdecode(listing).split("\0") if path.endswith(".py")]
