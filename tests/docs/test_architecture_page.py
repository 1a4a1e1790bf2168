"""docs/architecture.md names the packages and modules that there are, in the order that import-linter enforces."""

from __future__ import annotations

import re
import tomllib

from tests.docs.pages import ROOT, blocks, page, rows, section

PAGE = page("docs/architecture.md")
CORE = ROOT / "packages" / "core" / "src" / "sojourn"
DOORS = {"__main__", "testing"}
"""Modules of the core that only lead to packages of their own."""


def modules_of_core() -> set[str]:
    found = {path.stem for path in CORE.glob("*.py")} | {path.parent.name for path in CORE.glob("*/__init__.py")}
    return found - {"__init__"}


def test_the_drawing_shows_the_layers_of_the_core_in_their_order() -> None:
    contracts = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["sojourn"])
    enforced = [{name.strip(" ()") for name in layer.split("|")} - DOORS for layer in layers]
    # what a row is for stands four spaces or more to the right of its modules
    lines = [re.split(r" {4,}", line.strip())[0].split() for line in blocks(PAGE, "text")[0].splitlines()]
    drawn = [{*names} & modules_of_core() for names in lines]
    assert [row for row in drawn if row] == [row for row in enforced if row]


def test_the_table_names_every_module_of_the_core() -> None:
    named = [name.strip("`/") for first, *_ in rows(section(PAGE, "Layers of the core")) for name in first.split(", ")]
    assert len(named) == len(set(named))
    assert set(named) == modules_of_core() - DOORS - {"errors"}


def test_the_modules_inside_a_folder_are_those_that_the_table_names() -> None:
    for first, what in rows(section(PAGE, "Layers of the core")):
        for folder in re.findall(r"`(\w+)/`", first):
            inside = {path.stem for path in (CORE / folder).glob("*.py")} - {"__init__"}
            words = set(re.findall(r"`(\w+)`", what))
            if words & inside:
                assert words >= inside, folder


def test_the_table_names_every_package() -> None:
    named = {name for first, *_ in rows(section(PAGE, "Packages")) for name in re.findall(r"`([\w-]+)`", first)}
    assert named == {path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")}
