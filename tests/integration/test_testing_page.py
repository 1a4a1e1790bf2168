"""The examples of docs/testing.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def examples() -> dict[str, object]:
    """Run every block of the page in one namespace, as a reader would paste them; return each test with its globals."""
    names: dict[str, object] = {"__name__": __name__}
    tests: dict[str, object] = {}
    for block in EXAMPLES:
        names = dict(names)
        exec(
            compile(block, str(PAGE), "exec", dont_inherit=True), names
        )  # the functions keep the globals of their block
        tests.update({name: names[name] for name in re.findall(r"def (test_\w+)", block)})
    return tests


def test_every_example_has_a_test() -> None:
    assert len(EXAMPLES) == 4
    assert len(examples()) == 5


@pytest.mark.parametrize("name", re.findall(r"def (test_\w+)", PAGE.read_text()))
def test_the_example_passes(name: str) -> None:
    test = examples()[name]
    assert callable(test)
    test()
