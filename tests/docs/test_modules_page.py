"""A module that only one other imports has its reason in decision 33, and neither modules nor packages outgrow it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, page, rows

LONGEST = 520
"""The most lines of one module."""
FOLDERS = {"sojourn": "core", "sojourn_store_redis": "store-redis"}
TABLES = rows(page("docs/decisions/0033-a-module-has-readers-or-a-reason.md"))
SIZES = {name.strip("`"): (int(files), int(lines)) for name, files, lines in TABLES if files.isdecimal()}
REASONS = {
    module.strip("`"): (reader.strip("`"), reason) for module, reader, reason in TABLES if not reader.isdecimal()
}


def modules() -> dict[str, Path]:
    """Return the modules of all packages by name; the front of a folder has the name of the folder."""
    found: dict[str, Path] = {}
    for source in ROOT.glob("packages/*/src"):
        for path in source.rglob("*.py"):
            parts = path.relative_to(source).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules that a file imports from, and the names, wherever in the file and for whomever."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def readers() -> dict[str, set[str]]:
    """Return by module who imports it; who imports a name from the front of a folder imports the module behind it."""
    known = modules()
    fronts = {
        name: {what: module for module, what in imported(path)}
        for name, path in known.items()
        if path.name == "__init__.py"
    }
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in known.items():
        for module, what in imported(path):
            behind = f"{module}.{what}"
            found[behind if behind in known else fronts.get(module, {}).get(what, module)].add(name)
    return found


def offered(known: dict[str, Path]) -> set[str]:
    """Return the modules of which the front of a package offers a name to everybody."""
    found: set[str] = set()
    for name, path in known.items():
        if "." not in name:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            lists = [
                node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node)
            ]
            public = {str(name) for each in lists for name in ast.literal_eval(each)}
            found |= {module for module, what in imported(path) if what in public}
    return found


@pytest.mark.slow
def test_a_module_that_only_one_other_imports_is_listed_with_its_reason() -> None:
    known, by_module = modules(), readers()
    public = offered(known)
    alone = {
        name: reader
        for name, path in known.items()
        if path.name != "__init__.py" and len(by_module[name]) == 1
        for reader in by_module[name]
        if "." in reader or name not in public
    }
    print(*(f"{name}: {reason}" for name, (_, reason) in REASONS.items()), sep="\n")
    assert alone == {name: reader for name, (reader, _) in REASONS.items()}


@pytest.mark.parametrize(("package", "most"), SIZES.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_package_is_no_larger_than_the_page_allows(package: str, most: tuple[int, int]) -> None:
    lines = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "packages" / FOLDERS[package] / "src").rglob("*.py")
    }
    size = len(lines), sum(lines.values())
    assert (size[0] <= most[0], size[1] <= most[1]) == (True, True), f"{size} where {most} are allowed"


def test_no_module_is_too_long_for_one_idea() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: number for name, number in lengths.items() if number > LONGEST} == {}


def test_every_package_has_a_size() -> None:
    assert set(SIZES) == set(FOLDERS)
