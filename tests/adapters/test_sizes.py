"""An adapter is small: at most 400 lines that are neither blank nor part of a docstring."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADAPTERS = sorted(
    path for path in ROOT.glob("packages/contrib-*") if path.name not in {"contrib-azu-like", "contrib-migrate"}
)


def lines_of(path: Path) -> int:
    text = path.read_text()
    strings = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    left_out = {line for node in strings for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return sum(bool(line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in left_out)


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda path: path.name)
def test_an_adapter_is_at_most_400_lines(folder: Path) -> None:
    assert sum(map(lines_of, folder.glob("src/**/*.py"))) <= 400
