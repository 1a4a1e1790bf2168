from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import PACKAGES, Environment, build_wheels, make_environment, third_parties_of

Wheels = dict[str, Path]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def core_alone(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Hold sojourn and what it needs, nothing else."""
    return make_environment(tmp_path_factory.mktemp("core"), [wheels["core"]], third_parties_of("sojourn"))


@pytest.fixture(scope="session")
def everything(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Hold every package of ours."""
    needed = third_parties_of("sojourn[testing]", *(f"sojourn-{name}" for name in PACKAGES if name != "core"))
    return make_environment(tmp_path_factory.mktemp("everything"), wheels.values(), needed)


@pytest.fixture
def fresh(wheels: Wheels, tmp_path: Path) -> Environment:
    """Hold the core and the command, for a test to add to."""
    return make_environment(tmp_path / "fresh", [wheels["core"], wheels["cli"]], third_parties_of("sojourn-cli"))
