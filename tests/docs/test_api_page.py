from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sojourn import errors
from sojourn.manager.manager import BlockingManager
from tests.docs.pages import ROOT, blocks, page, rows, section, sections

PAGE = page("docs/api.md")
MODULES = (
    "sojourn",
    "sojourn.asgi",
    "sojourn.wsgi",
    "sojourn.settings",
    "sojourn.hookspecs",
    "sojourn.plugins",
    "sojourn.stores.deadline",
    "sojourn.testing",
)
_NAME = re.compile(r"^`(\w+)`$")
_ROW = re.compile(r"^`(\w+)(\(.*\))?`$")
INHERITED_FROM_PYDANTIC = {"model_computed_fields", "model_config", "model_fields", "model_post_init", "presets"}


def public_names(module: ModuleType) -> set[str]:
    """Return what a module offers: its `__all__`, or without one what it defines itself."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    found: set[str] = set()
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case _:
                pass
    return {name for name in found if not name.startswith("_")}


def described(text: str) -> tuple[set[str], dict[str, dict[str, str]]]:
    """Return the names that a section describes, and for those with a heading of their own each member's row."""
    names: set[str] = set()
    members: dict[str, dict[str, str]] = {}
    parts = list(sections(text, 3)) or [("all", text)]
    for heading, below in parts:
        own = _NAME.match(heading)
        if own:
            names.add(own[1])
            members[own[1]] = {}
        for first, *_ in rows(below):
            row = _ROW.match(first)
            assert row, f"{first!r} is neither `name` nor `name(parameters)`"
            if own:
                members[own[1]][row[1]] = row[2] or ""
            else:
                names.add(row[1])
    return names, members


NAMELESS_BASES = {"Face", "Queries"}
"""Classes that no page names: what they have belongs to those who inherit it."""


def public_members(kind: type[Any]) -> set[str]:
    bases = [one for one in kind.__mro__ if one.__name__ in NAMELESS_BASES]
    named = {*vars(kind), *inspect.get_annotations(kind), *(name for one in bases for name in vars(one))}
    found = {name for name in named if not name.startswith("_")}
    # the fields of settings have a page of their own, which tests/core/test_settings_page.py compares
    return found - INHERITED_FROM_PYDANTIC - set(getattr(kind, "model_fields", ()))


def classes() -> list[tuple[str, str]]:
    return [(module, name) for module in MODULES for name in described(section(PAGE, f"`{module}`"))[1]]


@pytest.mark.parametrize("module", MODULES)
def test_the_page_describes_every_public_name_and_no_other(module: str) -> None:
    assert described(section(PAGE, f"`{module}`"))[0] == public_names(importlib.import_module(module))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in public_names(loaded) if not hasattr(loaded, name)] == []


@pytest.mark.parametrize(("module", "name"), classes())
def test_the_page_describes_every_public_member_and_no_other(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    members = described(section(PAGE, f"`{module}`"))[1][name]
    if not members:  # its protocol is described elsewhere on the page
        return
    source = inspect.getsource(kind)
    unknown = {one for one in members if not hasattr(kind, one) and f"self.{one}" not in source}
    assert unknown - public_members(kind) == set()
    assert public_members(kind) - set(members) == set()


@pytest.mark.parametrize(("module", "name"), classes())
def test_the_parameters_on_the_page_are_those_of_the_code(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    for member, written in described(section(PAGE, f"`{module}`"))[1][name].items():
        found = inspect.getattr_static(kind, member, None)
        function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if not inspect.isfunction(function) or hasattr(found, "fget"):
            assert not written, f"{name}.{member} takes no parameters"
            continue
        parameters = [one.replace(annotation=inspect.Parameter.empty) for one in signature(function)]
        if parameters and parameters[0].name in {"self", "cls"}:
            del parameters[0]
        right = re.sub(r"<built-in method (\w+) of .*?>", r"\1", str(inspect.Signature(parameters)))
        assert written == right, f"{name}.{member}{right}"


def signature(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def test_the_constructor_of_the_manager_is_the_one_shown() -> None:
    from sojourn import SessionManager

    shown = re.findall(r"^    (\w+)[,=]", blocks(section(PAGE, "`SessionManager`"))[0], re.MULTILINE)
    assert shown == [one.name for one in signature(SessionManager.__init__)[1:]]


def test_the_blocking_manager_has_the_names_of_the_manager() -> None:
    listed = described(section(PAGE, "`sojourn`"))[1]["SessionManager"]
    offered = public_members(BlockingManager)
    made_by_the_manager = {"from_env", "from_settings", "blocking"}
    assert set(listed) - made_by_the_manager <= offered
    assert offered - set(listed) == {"close"}


@pytest.mark.parametrize(
    "name", ["LoadOutcome", "SessionState", "CookieAction", "StoreIO", "Created", "Replaced", "Deleted"]
)
def test_the_page_names_every_value_of_an_enumeration(name: str) -> None:
    kind: type[Enum] = getattr(importlib.import_module("sojourn"), name)
    (meaning,) = (cells[1] for cells in rows(section(PAGE, "Values")) if cells[0] == f"`{name}`")
    assert re.findall(r"`([A-Z_]+)`", meaning) == [value.name for value in kind]


def drawn(text: str) -> dict[str, str | None]:
    """Return each error of a drawn tree with the one above it."""
    above: list[str] = []
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        match = re.match(r"^([│├└─\s]*)(\w+Error)\b", line)
        if match:
            level = len(match[1]) // 4
            del above[level:]
            found[match[2]] = above[-1] if above else None
            above.append(match[2])
    return found


def test_the_error_tree_is_that_of_the_code() -> None:
    tree = drawn(blocks(section(PAGE, "`sojourn.errors`"), "text")[0])
    there = {
        name: kind.__mro__[1].__name__ if kind.__mro__[1] is not Exception else None
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
    }
    assert tree == there


def test_the_error_tree_is_the_one_in_the_docstring() -> None:
    tree = blocks(section(PAGE, "`sojourn.errors`"), "text")[0]
    assert textwrap.indent(tree, "    ") in (errors.__doc__ or "")


def test_the_page_names_every_event() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "packages" / "core" / "src").rglob("*.py"))
    told = {
        word
        for cells in rows(section(PAGE, "`Event`"))
        for word in re.findall(r"`(\w+)`", cells[1])
        if cells[0] == "`name`"
    }
    assert set(re.findall(r"\bevent\(\s*\"(\w+)\"", sources)) | {"edited"} == told
