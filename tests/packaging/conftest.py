from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import (
    PACKAGES,
    Environment,
    build_packages,
    import_name,
    make_environment,
    third_parties_of,
)

Files = dict[str, Path]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the sdists and wheels of all packages."""
    return build_packages(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def wheels(built: Path) -> Files:
    """Return the wheel of each package by its folder."""
    return {name: next(built.glob(f"{import_name(name)}-[0-9]*.whl")) for name in PACKAGES}


@pytest.fixture(scope="session")
def sdists(built: Path) -> Files:
    """Return the sdist of each package by its folder."""
    return {name: next(built.glob(f"{import_name(name)}-[0-9]*.tar.gz")) for name in PACKAGES}


@pytest.fixture(scope="session")
def core_alone(wheels: Files, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Hold sojourn and what it needs, nothing else."""
    return make_environment(tmp_path_factory.mktemp("core"), [wheels["core"]], third_parties_of("sojourn"))


@pytest.fixture(scope="session")
def everything(wheels: Files, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Hold every package of ours."""
    needed = third_parties_of("sojourn[all]", *(f"sojourn-{name}" for name in PACKAGES if name != "core"))
    return make_environment(tmp_path_factory.mktemp("everything"), wheels.values(), needed)


@pytest.fixture
def fresh(wheels: Files, tmp_path: Path) -> Environment:
    """Hold the core and the command, for a test to add to."""
    return make_environment(tmp_path / "fresh", [wheels["core"], wheels["cli"]], third_parties_of("sojourn-cli"))
