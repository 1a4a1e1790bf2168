"""What the tests of the documentation read: the pages, their tables and their blocks of code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.*)$")


def page(name: str) -> str:
    """Return the text of a page by its path from the root of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str = "python") -> list[str]:
    """Return the blocks of code in one language, in order."""
    return [body for name, body in _BLOCK.findall(text) if name == language]


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    found: list[str] = []
    level = 0
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        match = None if fenced else _HEADING.match(line)
        if match and level and len(match[1]) <= level:
            break
        if level:
            found.append(line)
        elif match and match[2] == heading:
            level = len(match[1])
    assert level, f"the page has no heading {heading!r}"
    return "\n".join(found)


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table, without heads."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if all(set(cell) <= set("-: ") for cell in cells):
            found.pop()  # what stands above the line is the head
        else:
            found.append(cells)
    return found


def sections(text: str, level: int) -> Iterator[tuple[str, str]]:
    """Yield every heading of a level with what stands under it."""
    mark = "#" * level + " "
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith(mark) and not fenced:
            heading = line.removeprefix(mark)
            yield heading, section(text, heading)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *codes: str) -> ModuleType:
    """Run blocks of code one after the other as one module, as a reader would paste them; return the module."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # annotations are looked up there
    for code in codes:
        exec(compile(code, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    return module
