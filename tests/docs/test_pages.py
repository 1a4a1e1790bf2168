from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, page, rows, section

PAGES = sorted(
    file.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "packages/*/README.md", "examples/*/README.md")
    for file in ROOT.glob(pattern)
)
DECISIONS = [name for name in PAGES if name.startswith("docs/decisions/0")]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    prose = re.sub(r"```.*?```", "", page(name), flags=re.DOTALL)
    for link in LINK.findall(prose):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_overview_leads_to_every_page() -> None:
    linked = set(LINK.findall(page("docs/overview.md")))
    there = {Path(name).name for name in PAGES if re.fullmatch(r"docs/[\w-]+\.md", name)}
    assert there - linked == {"overview.md"}


def test_the_list_of_decisions_has_each_with_its_title() -> None:
    listed = re.findall(r"^(\d+)\. \[(.*)\]\((.*)\)$", page("docs/decisions/README.md"), re.MULTILINE)
    assert [f"# {number}. {title}" for number, title, _ in listed] == [page(name).splitlines()[0] for name in DECISIONS]
    assert [f"docs/decisions/{path}" for _, _, path in listed] == DECISIONS


def test_the_page_of_versions_says_what_the_packages_need() -> None:
    told = {
        (cells[0].strip("`"), f"{cells[1].strip('`')}>={cells[2]}")
        for cells in rows(section(page("docs/versions.md"), "Dependencies"))
    }
    needed = {
        (project["name"], requirement)
        for file in ROOT.glob("packages/*/pyproject.toml")
        for project in [tomllib.loads(file.read_text())["project"]]
        for requirement in project["dependencies"]
        if not requirement.startswith("sojourn")
    }
    assert told == needed


def test_the_symptoms_name_settings_reasons_and_figures_that_exist() -> None:
    text = page("docs/symptoms.md")
    reference = page("docs/reference.md")
    named = set(re.findall(r"SOJOURN_[A-Z_]+", text)) | set(re.findall(r"`(session\.[a-z_]+\.?[a-z_]+)`", text))
    assert len(named) > 20
    assert {name for name in named if f"`{name}`" not in reference} <= {"session.data"}


def test_decisions_are_numbered_without_gaps_and_say_context_decision_and_consequences() -> None:
    assert [int(Path(name).name[:4]) for name in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for name in DECISIONS:
        headings = re.findall(r"^#+ .*$", page(name), re.MULTILINE)
        assert headings[0].startswith(f"# {int(Path(name).name[:4])}. ")
        assert headings[1:] == ["## Context", "## Decision", "## Consequences"]


def test_contributing_shows_the_layers_that_import_linter_enforces() -> None:
    contracts = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["sojourn"])
    shown = re.findall(r"^    (\S.*)$", section(page("CONTRIBUTING.md"), "The house"), re.MULTILINE)
    assert shown == layers


def test_contributing_names_folders_and_commands_that_exist() -> None:
    text = page("CONTRIBUTING.md")
    for cells in rows(section(text, "The house")):
        assert (ROOT / cells[0].strip("`")).is_dir(), cells[0]
    targets = page("Makefile").split(".PHONY:")[1].splitlines()[0].split()
    assert set(re.findall(r"\bmake (\w+)", section(text, "Set up"))) <= set(targets)


@pytest.mark.parametrize(("word", "name"), [("SECURITY R", "SECURITY.md"), ("FAILURES F", "docs/operations.md")])
def test_every_rule_and_fault_that_the_code_names_stands_on_a_page(word: str, name: str) -> None:
    letter = word[-1]
    known = set(re.findall(rf"^\| ({letter}\d+) \|", page(name), re.MULTILINE))
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("packages/*/src/**/*.py"))
    named = {
        number
        for found in re.findall(rf"{word[:-1]}((?:(?:, |-)?{letter}\d+)+)", code)
        for number in re.findall(rf"{letter}\d+", found)
    }
    assert named
    assert named <= known


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert re.findall(r"^## (.*)$", page("CHANGELOG.md"), re.MULTILINE)[0] == "[Unreleased]"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_one_title_and_ends_its_blocks(name: str) -> None:
    text = page(name)
    assert text.count("```") % 2 == 0
    assert len(re.findall(r"^# ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)) == 1
