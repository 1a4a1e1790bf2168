"""What the packages say about themselves, before anything is built."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from trove_classifiers import classifiers as known_classifiers

from release import version as release
from tests.docs.pages import rows
from tests.packaging.environments import PACKAGES, ROOT

RELEASE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["release"]
PROJECTS: dict[str, dict[str, Any]] = {
    name: tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text()) for name in PACKAGES
}
PYTHONS = ("3.11", "3.12", "3.13")


def extra_of(package: str) -> str:
    """Return the name of the extra of the core that brings a package: `store-redis` is `sojourn[redis]`."""
    return re.sub(r"^(store|metrics|contrib)-", "", package)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Copy what `./dev version` reads and writes."""
    for pattern in ("pyproject.toml", "LICENSE", "packages/*/BUILD", *release.REQUIRING):
        for path in ROOT.glob(pattern):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    target = tmp_path / "packages/core/src/sojourn/__init__.py"
    target.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / target.relative_to(tmp_path), target)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


# one version, one set of addresses


def test_every_package_says_what_the_one_version_and_the_addresses_say() -> None:
    for path, text in release.rewritten(ROOT, RELEASE["version"], RELEASE["urls"]):
        assert path.read_text() == text, f"{path.relative_to(ROOT)}: run ./dev version"
    for name in PACKAGES:
        project = PROJECTS[name]["project"]
        assert project["version"] == RELEASE["version"]
        assert project.get("urls", {}) == {key: url for key, url in RELEASE["urls"].items() if url}


@pytest.mark.parametrize(
    ("version", "bounds"), [("7.8.9", ">=7.8,<7.9"), ("7.8.0rc1", ">=7.8.0rc1,<7.9"), ("10.0.0", ">=10.0,<10.1")]
)
def test_one_command_changes_the_version_everywhere(version: str, bounds: str, repository: Path) -> None:
    assert release.write(repository, version) == version
    core = (repository / "packages/core/src/sojourn/__init__.py").read_text()
    assert f'\n__version__ = "{version}"\n' in core
    assert tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["release"]["version"] == version
    for name in PACKAGES:
        project = tomllib.loads((repository / "packages" / name / "pyproject.toml").read_text())["project"]
        assert project["version"] == version
        for requirement in siblings(project):
            assert requirement.specifier == SpecifierSet(bounds)
            assert requirement.specifier.contains(version)
    for path, text in contents(repository).items():
        if path.startswith("packages/") and "README" not in path:
            assert RELEASE["version"] not in text, path


def test_addresses_come_from_one_place_and_go_with_it(repository: Path) -> None:
    release.write(repository, None)
    before = contents(repository)
    configuration = repository / "pyproject.toml"
    text = configuration.read_text()
    configuration.write_text(re.sub(r"^urls = .*$", 'urls = { Source = "a:b", Issues = "" }', text, flags=re.MULTILINE))
    release.write(repository, None)
    for name in PACKAGES:
        written = tomllib.loads((repository / "packages" / name / "pyproject.toml").read_text())
        assert written["project"]["urls"] == {"Source": "a:b"}
        assert written["tool"] == PROJECTS[name]["tool"]
    configuration.write_text(re.sub(r"^urls = .*$", "urls = {}", text, flags=re.MULTILINE))
    release.write(repository, None)
    configuration.write_text(text)
    assert contents(repository) == before


@pytest.mark.parametrize("arguments", [["next"], ["1.0", "2.0"]])
def test_what_is_no_version_is_refused(arguments: list[str]) -> None:
    assert release.main(arguments)


# what an index shows


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_carries_the_licence(name: str) -> None:
    project = PROJECTS[name]["project"]
    assert (project["license"], project["license-files"]) == ("MIT", ["LICENSE"])
    assert (ROOT / "packages" / name / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert not [line for line in project["classifiers"] if line.startswith("License ::")]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_classified_by_python_and_framework(name: str) -> None:
    project = PROJECTS[name]["project"]
    classifiers = project["classifiers"]
    assert classifiers == sorted(set(classifiers))
    assert set(classifiers) <= known_classifiers
    assert "Typing :: Typed" in classifiers
    assert project["keywords"]
    assert project["description"]
    versions = [line.rpartition(" ")[2] for line in classifiers if re.search(r" :: Python :: 3\.\d+$", line)]
    assert versions == list(PYTHONS)
    assert project["requires-python"] == f">={PYTHONS[0]}"
    frameworks = {line.split(" :: ")[1].lower() for line in classifiers if line.startswith("Framework :: ")}
    assert frameworks - {"asyncio"} <= used_in_tests(), "a framework that is named must be tested"
    adapted = extra_of(name)
    if name.startswith("contrib-") and adapted in {line.split(" :: ")[1].lower() for line in known_classifiers}:
        assert adapted in frameworks


def test_the_core_names_the_frameworks_of_the_quickstart() -> None:
    named = set(PROJECTS["core"]["project"]["classifiers"])
    assert {f"Framework :: {framework}" for framework in ("Django", "FastAPI", "Flask")} <= named


def test_the_promised_pythons_are_the_same_everywhere() -> None:
    promise = "Python 3.11, 3.12 or 3.13"
    assert promise == f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}"
    assert promise in (ROOT / "README.md").read_text()
    assert promise in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("name", PACKAGES)
def test_the_readme_of_a_package_stands_alone(name: str) -> None:
    text = (ROOT / "packages" / name / "README.md").read_text()
    assert not re.findall(r"\]\((?!https?://)[^)]*\)", text), "an index has no files beside the page"
    assert not re.findall(r"\./dev\b|\bmake \w+`|\bbenchmarks\b|\bdocs/", text), "nobody has the repository there"
    assert f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}" in " ".join(text.split())
    assert "MIT" in text
    assert PROJECTS[name]["project"]["readme"] == "README.md"


# what they need of each other


def test_the_core_has_one_extra_for_each_package_and_one_for_all() -> None:
    extras = PROJECTS["core"]["project"]["optional-dependencies"]
    for name in PACKAGES:
        if name != "core":
            brought = {Requirement(line).name for line in extras[extra_of(name)]}
            assert brought == {f"sojourn-{name}"}
    (everything,) = map(Requirement, extras["all"])
    assert everything.name == "sojourn"
    assert everything.extras == set(extras) - {"all"}


def test_the_readmes_name_the_extra_of_each_package() -> None:
    table = rows((ROOT / "docs" / "packages.md").read_text())
    named = {cells[0].split("/")[2]: cells[1].strip("`") for cells in table}
    assert named == {name: "" if name == "core" else extra_of(name) for name in PACKAGES}
    shown = (ROOT / "packages/core/README.md").read_text()
    for name in set(PACKAGES) - {"core"}:
        assert f"| `sojourn[{extra_of(name)}]` | `sojourn-{name}` |" in shown


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_takes_others_of_the_same_minor_version_only(name: str) -> None:
    project = PROJECTS[name]["project"]
    needed = siblings(project)
    assert needed
    expected = release.with_requirements('"sojourn>=0,<1"', RELEASE["version"]).strip('"')
    assert {str(requirement.specifier) for requirement in needed} == {str(Requirement(expected).specifier)}
    if name != "core":
        assert "sojourn" in {Requirement(line).name for line in project["dependencies"]}


def siblings(project: dict[str, Any]) -> list[Requirement]:
    """Return what a package requires of our other ones."""
    groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    found = [Requirement(line) for group in groups for line in group]
    return [needed for needed in found if needed.name.startswith("sojourn") and needed.name != project["name"]]


def used_in_tests() -> set[str]:
    """Return the third parties that the tests are run with."""
    texts = [(ROOT / f"3rdparty/python/{name}.in").read_text() for name in ("requirements", "tests")]
    lines = "\n".join(texts).splitlines()
    return {Requirement(line).name for line in lines if line and line[0] not in "#-"}
