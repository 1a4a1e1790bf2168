"""The example of a third-party package: built, installed and used as a stranger's would be."""

from __future__ import annotations

import ast
import inspect
import io
import re
import shutil
import tokenize
import zipfile
from pathlib import Path

import pytest

from sojourn import hookspecs
from tests.packaging.environments import ROOT, Environment, build, make_environment, third_parties_of

EXAMPLE = ROOT / "examples" / "sojourn-store-sqlite"
PAGE = (ROOT / "docs" / "write-a-plugin.md").read_text()
BLOCKS = re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
SOURCES = ["pyproject.toml", *(str(path.relative_to(EXAMPLE)) for path in sorted(EXAMPLE.glob("src/*/*.py")))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, as from an unpacked source archive."""
    folder = tmp_path_factory.mktemp("example")
    source = folder / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", ".*", "dist"))
    build(folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Hold the core, the example and what their tests need."""
    third_parties = third_parties_of("sojourn[testing]", "pytest")
    return make_environment(
        tmp_path_factory.mktemp("installed"), [wheels["core"], wheels["testing"], wheel], third_parties
    )


@pytest.mark.slow
def test_the_wheel_is_typed_and_offers_one_store(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (points,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    assert points.split() == ["[sojourn]", "store-sqlite", "=", "sojourn_store_sqlite.plugin"]
    assert "sojourn_store_sqlite/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sojourn_store_sqlite"}


@pytest.mark.slow
def test_the_store_is_discovered_by_its_entry_point_and_imported_only_when_named(installed: Environment) -> None:
    code = """
import json, sys
from sojourn.plugins import find_store, installed
from sojourn.settings import SessionSettings
found = [plugin.entry_point for plugin in installed()]
find_store("memory", SessionSettings())
before = "sojourn_store_sqlite" in sys.modules
settings = SessionSettings()
store = find_store(settings.store, settings)
print(json.dumps([found, before, type(store).__module__, store._path, store._timeout]))
"""
    answer = installed.answer(code, SOJOURN_STORE="sqlite", SOJOURN_SQLITE_PATH="named.db", SOJOURN_SQLITE_TIMEOUT="3s")
    assert answer == [["store-sqlite"], False, "sojourn_store_sqlite.store", "named.db", 3.0]


@pytest.mark.slow
def test_a_wrong_setting_of_the_example_is_named(installed: Environment) -> None:
    code = "from sojourn.plugins import find_store\nfrom sojourn.settings import SessionSettings\n"
    code += "find_store('sqlite', SessionSettings())"
    done = installed.run("-c", code, code=1, SOJOURN_SQLITE_TIMEOUT="soon")
    assert "ConfigurationError" in done.stderr
    assert "SOJOURN_SQLITE_TIMEOUT" in done.stderr


@pytest.mark.slow
def test_the_example_keeps_the_published_contract(installed: Environment, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE / "pyproject.toml", tmp_path)
    # Other stores go through the suite with more examples than this one needs to.
    profile = "from hypothesis import settings\n\n"
    profile += "settings.register_profile('short', max_examples=10, stateful_step_count=20)\n"
    (tmp_path / "conftest.py").write_text(profile + "settings.load_profile('short')\n")
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path))
    assert re.search(r"^\d{2,} passed in", done.stdout, flags=re.MULTILINE), done.stdout


@pytest.mark.slow
def test_one_process_finds_the_session_of_another(installed: Environment, tmp_path: Path) -> None:
    prelude = """
import json
from dataclasses import dataclass
from sojourn import SessionManager

@dataclass
class UserSession:
    visits: int = 0

sessions = SessionManager.from_env(UserSession).blocking
"""
    write = """
session = sessions.open(None)
session.data.visits = 3
print(json.dumps(sessions.commit(session).token))
"""
    read = """
session = sessions.open({token!r})
print(json.dumps([session.outcome.name, session.data.visits]))
"""
    variables = {
        "SOJOURN_PRESET": "testing",
        "SOJOURN_SECRET": "A" * 42 + "E",
        "SOJOURN_STORE": "sqlite",
        "SOJOURN_SQLITE_PATH": str(tmp_path / "sessions.db"),
    }
    token = installed.answer(prelude + write, **variables)
    assert installed.answer(prelude + read.format(token=token), **variables) == ["LOADED", 3]


@pytest.mark.parametrize("source", SOURCES)
def test_the_page_shows_each_file_of_the_example_in_full(source: str) -> None:
    shown = "".join(block for path, block in BLOCKS if path == source)
    assert [line for line in shown.splitlines() if line] == [
        line for line in (EXAMPLE / source).read_text().splitlines() if line
    ]


def test_the_page_shows_nothing_that_the_example_does_not_contain() -> None:
    for path, block in BLOCKS:
        assert block.strip("\n") in (EXAMPLE / path).read_text()
    assert {path for path, _ in BLOCKS} == {*SOURCES, "tests/test_sqlite_store.py"}


def test_the_page_names_every_hook() -> None:
    hooks = re.findall(r"^def (sojourn_\w+\([^)]*\))", inspect.getsource(hookspecs), re.MULTILINE)
    assert {hook.partition("(")[0] for hook in hooks} == {
        name for name in hookspecs.__all__ if name.startswith("sojourn_")
    }
    for hook in hooks:
        name, _, parameters = hook.partition("(")
        bare = ", ".join(parameter.split(":")[0].strip() for parameter in parameters.rstrip(")").split(","))
        assert f"`{name}({bare})`" in PAGE


def test_the_example_has_at_most_120_lines_of_code() -> None:
    assert sum(lines_of_code(EXAMPLE / source) for source in SOURCES if source.endswith(".py")) <= 120


def lines_of_code(path: Path) -> int:
    """Count lines that are neither blank, comment, docstring nor import."""
    text = path.read_text()
    idle = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in idle:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)
