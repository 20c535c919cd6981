"""What lies in the repository is in order: sizes, links, schemas, the lock; `make check` runs this file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000
TEXT = {"", ".py", ".md", ".yaml", ".yml", ".json", ".toml", ".lock", ".csv", ".cff", ".txt", ".tex", ".cfg"}


@cache
def files() -> tuple[Path, ...]:
    """Every file that is or would be committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def texts() -> list[tuple[Path, str]]:
    return [(path, path.read_text(encoding="utf-8")) for path in files() if path.suffix in TEXT]


def pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def shown(paths: list[str]) -> str:
    return "\n".join(paths)


def test_no_large_file_but_the_weights() -> None:
    def limit(path: Path) -> int:
        return 8 * MEGABYTE if path.suffix == ".safetensors" and path.parent == ROOT / "clipbench/mini" else MEGABYTE

    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size}" for path in files() if path.stat().st_size > limit(path)
    ]
    assert not large, shown(large)


def test_no_path_of_somebodys_machine() -> None:
    # Homes, and the folder that this checkout lies in; a docs' /path/to is nobody's.
    personal = re.compile(rf"(?<![\w.:/])(?:/(?:home|Users)/\w+|/root\b|{re.escape(str(ROOT))}\b|[A-Z]:\\Users)")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in texts()
        if path != Path(__file__) and (match := personal.search(text))
    ]
    assert not found, shown(found)


def test_no_address_of_a_package_registry() -> None:
    option = re.compile(
        "|".join(["index" + "-url", "find" + "-links", "--" + "trusted-host", r"/simple/?\s*$"]), re.MULTILINE
    )
    found = [f"{path.relative_to(ROOT)}: {match[0]}" for path, text in texts() if (match := option.search(text))]
    assert not found, shown(found)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Git hosts make them."""
    headings = re.findall(r"^#+ (.+?)\s*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for page in pages():
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (page.parent / name) if name else page
            if not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, shown(broken)


def docs_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["datasets.md", "methods.md"])
def test_generated_page_is_current(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == docs_build().PAGES[name](), f"docs/{name} is out of date: make docs"


def test_code_files_are_small_enough_to_be_read() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in files()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] in ("clipbench", "tools")
        and (lines := len(path.read_text().splitlines())) > 400
    ]
    assert not long, shown(long)


def yaml_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.yaml"))


@pytest.mark.parametrize(
    "path", yaml_files("datasets"), ids=lambda path: path.relative_to(ROOT / "datasets").as_posix()
)
def test_card_fits_the_schema(path: Path) -> None:
    from clipbench.data.cards import card_from_mapping, read_yaml

    card_from_mapping(read_yaml(path), path.stem, path)


@pytest.mark.parametrize("path", yaml_files("configs"), ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_config_is_a_mapping_without_repeated_keys(path: Path) -> None:
    class Strict(yaml.SafeLoader):
        """YAML lets the last of two equal keys win; here that is a fault."""

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict:
        keys = [loader.construct_object(key) for key, _ in node.value]
        repeated = {str(key) for key in keys if keys.count(key) > 1}
        assert not repeated, f"{path}: repeated {repeated}"
        return dict(zip(keys, (loader.construct_object(value, deep=True) for _, value in node.value), strict=True))

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert isinstance(yaml.load(path.read_text(encoding="utf-8"), Strict), dict)


def test_no_python_in_datasets() -> None:
    assert not list((ROOT / "datasets").rglob("*.py")), "a package named datasets would hide a well-known library"


# The lock


def locked() -> dict[str, str]:
    """Name to version of what the lock installs here."""
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    needs = [Requirement(line) for line in lines]
    return {
        canonicalize_name(need.name): str(need.specifier).removeprefix("==")
        for need in needs
        if need.marker is None or need.marker.evaluate({**default_environment(), "extra": ""})
    }


def test_lock_holds_versions_only() -> None:
    body = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.lstrip().startswith("#")]
    odd = [line for line in body if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==[\w.+!]+( ; .+)?", line)]
    assert not odd, shown(odd)
    assert "://" not in (ROOT / "requirements.lock").read_text()


def project() -> dict:
    if importlib.util.find_spec("tomllib") is None:
        pytest.skip("needs Python 3.11 for tomllib")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_lock_satisfies_the_project() -> None:
    table, versions = project(), locked()
    for line in table["dependencies"] + table["optional-dependencies"]["dev"]:
        need = Requirement(line)
        name = canonicalize_name(need.name)
        assert name in versions, f"{line} is not in requirements.lock: make lock"
        assert need.specifier.contains(versions[name], prereleases=True), (
            f"{line}: the lock has {versions[name]}: make lock"
        )


def test_every_dependency_has_a_lower_bound_and_a_licence_is_named() -> None:
    table = project()
    for line in table["dependencies"]:
        assert ">=" in str(Requirement(line).specifier), line
    assert table["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_version_is_the_same_everywhere() -> None:
    import clipbench

    version = clipbench.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert importlib.metadata.version("clipbench") == version, "the installed metadata is of another version: make"
    assert str(citation["version"]) == version
    assert f"\n## [{version}] - {citation['date-released']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_python_floor_is_the_one_make_asks_for() -> None:
    floor = SpecifierSet(project()["requires-python"])
    assert "3.10" in floor
    assert "3.9" not in floor
    assert "(3, 10)" in (ROOT / "Makefile").read_text()
