"""Fingerprints of code move when the code of a method does, and with nothing else."""

from __future__ import annotations

import importlib
import linecache
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.bench import fingerprint
from clipbench.bench.fingerprint import class_path, code_fingerprint, package_changes
from clipbench.errors import ConfigError
from clipbench.methods.zero_shot import ZeroShot

Files = dict[str, str]
Take = Callable[..., str]

FLAT: Files = {
    "lone_method.py": "import math\nimport torch\nfrom lone_help import twice\nclass Lone:\n    rate = twice(1)\n",
    "lone_help.py": "import lone_far\ndef twice(x):\n    return 2 * x\n",
    "lone_far.py": "import lone_method\nDEPTH = 3\n",  # a circle
    "lone_else.py": "UNUSED = 1\n",
}
PACKAGE: Files = {
    "pack/__init__.py": "SETTING = 1\n",
    "pack/method.py": "from . import parts\nfrom .deep.inner import VALUE as V\nclass Packed:\n    value = V\n",
    "pack/parts.py": "def part():\n    return 1\n",
    "pack/deep/inner.py": "from ..late import *\nVALUE = 1\n",  # deep is a namespace package
    "pack/late.py": "def f():\n    from pack import lazy\n    return lazy\n",
    "pack/lazy.py": "LAZY = 1\n",
    "pack/unused.py": "UNUSED = 1\n",
}


def write(folder: Path, files: Files) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Take]:
    """Write files into a fresh folder, import a class from there, and take its fingerprint."""
    count = iter(range(1000))
    loaded: set[str] = set()

    def taken(files: Files, module: str, name: str, below: str = "") -> str:
        folder = tmp_path / f"place{next(count)}" / below
        write(folder, files)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            for former in loaded:
                sys.modules.pop(former, None)
            before = set(sys.modules)
            kind = getattr(importlib.import_module(module), name)
            loaded.update(set(sys.modules) - before)
            return code_fingerprint(kind)

    yield taken
    for former in loaded:
        sys.modules.pop(former, None)


def lone(take: Take, **changed: str) -> str:
    return take(FLAT | {f"lone_{name}.py": text for name, text in changed.items()}, "lone_method", "Lone")


def test_it_is_independent_of_the_place(take: Take) -> None:
    assert lone(take) == lone(take)


def test_comments_docstrings_and_layout_do_not_count(take: Take) -> None:
    head = '"""A module."""\n# why\nimport lone_far\n\n\n'
    shown = head + 'def twice(\n    x,\n):\n    """Twice."""\n    return (2 * x)  # so\n'
    assert lone(take, help=shown) == lone(take)
    assert lone(take, far='"""Deep."""\nimport lone_method\nDEPTH = 3\n') == lone(take)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": FLAT["lone_method.py"].replace("twice(1)", "twice(2)")},
        {"help": FLAT["lone_help.py"].replace("2 * x", "3 * x")},
        {"far": FLAT["lone_far.py"].replace("3", "4")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_module_of_ones_own_counts(take: Take, changed: Files) -> None:
    assert lone(take, **changed) != lone(take)


def test_a_module_that_nobody_imports_does_not_count(take: Take) -> None:
    assert lone(take, **{"else": "UNUSED = 2\n"}) == lone(take)


@pytest.mark.parametrize("path", PACKAGE)
def test_a_package_counts_as_far_as_it_is_imported(take: Take, path: str) -> None:
    plain = take(PACKAGE, "pack.method", "Packed")
    edited = take(PACKAGE | {path: PACKAGE[path] + "ADDED = 1\n"}, "pack.method", "Packed")
    assert (edited == plain) == (path == "pack/unused.py")


def test_of_installed_packages_only_that_of_the_class_counts(take: Take) -> None:
    installed = PACKAGE | {"pack/method.py": "import other\n" + PACKAGE["pack/method.py"], "other.py": "OTHER = 1\n"}

    def fingerprint_of(files: Files) -> str:
        return take(files, "pack.method", "Packed", below="lib/site-packages")

    plain = fingerprint_of(installed)
    assert fingerprint_of(installed | {"other.py": "OTHER = 2\n"}) == plain
    assert fingerprint_of(installed | {"pack/lazy.py": "LAZY = 2\n"}) != plain


def test_the_path_of_the_class_counts(take: Take) -> None:
    twins = {"twins.py": "class One:\n    pass\nclass Two:\n    pass\n"}
    assert take(twins, "twins", "One") != take(twins, "twins", "Two")
    assert class_path(ZeroShot) == "clipbench.methods.zero_shot:ZeroShot"


def test_what_is_no_python_counts_by_its_bytes(take: Take) -> None:
    broken = {"lone_method.py": "try:\n    import lone_bad\nexcept SyntaxError:\n    pass\nclass Lone:\n    pass\n"}
    assert take(broken | {"lone_bad.py": "print 1"}, "lone_method", "Lone") != take(
        broken | {"lone_bad.py": "print 2"}, "lone_method", "Lone"
    )


@given(
    words=st.text(st.characters(codec="utf-8", exclude_characters='\\"\r\n\x00\f'), max_size=30),
    blank=st.integers(0, 5),
)
def test_no_comment_or_docstring_moves_the_normal_form(words: str, blank: int) -> None:
    plain = "class A:\n    def f(self):\n        return 'kept'\n"
    text = plain.replace("class", f"#{words}\n" + "\n" * blank + "class")
    text = text.replace("(self):\n", f'(self):  # {words}\n        """{words}"""\n')
    assert fingerprint._normal(text.encode()) == fingerprint._normal(plain.encode())


def made_by_hand(source: str, file: str = "") -> type:
    """A class of a module that no file holds; with a name of a file, its lines are at hand as in a notebook."""
    if file:
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(source, file or "<string>", "exec"), space)
    kind = space["Cell"]
    assert isinstance(kind, type)
    return kind


def test_a_class_of_a_notebook_counts_with_its_own_lines() -> None:
    source = "x = 1\nclass Cell:\n    def f(self):\n        return 1\n"
    plain = code_fingerprint(made_by_hand(source, "<cell 1>"))
    assert code_fingerprint(made_by_hand(source.replace("x = 1", "x = 2"), "<cell 2>")) == plain
    assert code_fingerprint(made_by_hand(source.replace("return 1", "return 2"), "<cell 3>")) != plain


def test_a_class_without_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"__main__:Cell.*put the class into a file"):
        code_fingerprint(made_by_hand("class Cell:\n    def f(self):\n        return 1\n"))


# What differs from the commit


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """A committed copy of a small clipbench; the call writes files there and says what differs."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    committed = {
        "clipbench/__init__.py": "", "clipbench/methods/__init__.py": "", "clipbench/methods/lora.py": "RANK = 4\n",
        "clipbench/tuning/masks.py": "KEEP = 1\n", "clipbench/report/tables.py": "WIDTH = 1\n",
    }  # fmt: skip
    folder = tmp_path / "vendored" / "copy"  # the repository may begin above the checkout
    write(folder, committed)

    def git(*words: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path / "vendored", check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(fingerprint, "CHECKOUT", folder)
    monkeypatch.setattr(fingerprint, "in_checkout", lambda: True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as inside a hook of another repository

    def changes(files: dict[str, str | None]) -> object:
        for name, text in files.items():
            if text is None:
                (folder / name).unlink()
            else:
                write(folder, {name: text})
        return package_changes.__wrapped__()

    return changes


def test_only_code_that_numbers_come_from_counts(checkout: Callable[..., object]) -> None:
    assert checkout({}) == {}
    assert checkout({"clipbench/report/tables.py": "WIDTH = 2\n", "clipbench/methods/notes.txt": "x"}) == {}
    assert checkout({"clipbench/methods/lora.py": '"""LoRA."""\nRANK = 4  # as in the paper\n'}) == {}
    edited = checkout({"clipbench/methods/lora.py": "RANK = 8\n"})
    assert isinstance(edited, dict)
    assert set(edited) == {"clipbench/methods/lora.py"}
    assert edited != checkout({"clipbench/methods/lora.py": "RANK = 16\n"})
    assert edited == checkout({"clipbench/methods/lora.py": "RANK = 8  # again\n"})


def test_new_and_removed_files_count(checkout: Callable[..., object]) -> None:
    assert checkout({"clipbench/methods/empty.py": "# nothing yet\n"}) == {}
    found = checkout({"clipbench/methods/new.py": "NEW = 1\n", "clipbench/tuning/masks.py": None})
    assert isinstance(found, dict)
    assert set(found) == {"clipbench/methods/new.py", "clipbench/tuning/masks.py"}
    assert found["clipbench/tuning/masks.py"] == "removed"


def test_without_a_checkout_of_git_nothing_is_said(
    checkout: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "vendored" / "untracked"
    write(copy, {"clipbench/__init__.py": "", "clipbench/methods/lora.py": "RANK = 8\n"})
    monkeypatch.setattr(fingerprint, "CHECKOUT", copy)
    assert checkout({}) is None
    monkeypatch.setattr(fingerprint, "in_checkout", lambda: False)
    assert checkout({}) is None
