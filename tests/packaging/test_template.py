"""The template for packages: what it makes is built, installed where nothing else is, tested, and named by variables."""

from __future__ import annotations

import re
from pathlib import Path

import copier
import pytest

from tests.docs.pages import blocks
from tests.packaging.environments import ROOT, Environment, build, make_environment, third_parties_of

pytestmark = pytest.mark.slow

# Other stores go through the suite with more examples than this one needs to.
PROFILE = "from hypothesis import settings\nsettings.register_profile('short', max_examples=20)\n"
VISIT = """
import json
from dataclasses import dataclass
from sojourn import SessionManager
from sojourn.testing import client
from sojourn.wsgi import SessionMiddleware

@dataclass
class Visitor:
    visits: int = 0

sessions = SessionManager.from_env(Visitor)

def app(environ, start_response):
    session = sessions.of(environ)
    session.data.visits += 1
    session.login("ada")
    start_response("200 OK", [])
    return [str(session.data.visits).encode()]

with client(SessionMiddleware(app, sessions), sessions) as browser:
    answers = [browser.get("/").text, browser.get("/").text, sessions.blocking.count()]
    answers += [sessions.blocking.revoke_all("ada"), browser.get("/").text]
print(json.dumps(answers))
"""
ASK = """
import json, sys
sys.path.insert(0, ".")
from shop import app, sessions
from sojourn.testing import client

with client(app, sessions) as browser:
    answers = [browser.get("/").text, browser.get("/").text, browser.another().get("/").text]
print(json.dumps(answers))
"""


def made(kind: str, folder: Path) -> Path:
    """Make a package called acme of the template."""
    target = folder / "made"
    template = str(ROOT / "examples" / "plugin-template")
    copier.run_copy(template, target, data={"kind": kind, "name": "acme"}, defaults=True, quiet=True)
    return target


@pytest.fixture(scope="module")
def installed(
    request: pytest.FixtureRequest, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Environment]:
    """Make a package, build it, and install its wheel beside the core and the test kit."""
    folder = tmp_path_factory.mktemp(request.param)
    source = made(request.param, folder)
    build(folder, source)
    (wheel,) = folder.glob("*.whl")
    packages = [wheels["core"], wheels["testing"], wheel]
    return source, make_environment(folder / "clean", packages, third_parties_of("sojourn[testing]", "pytest"))


@pytest.mark.parametrize("installed", ["store", "adapter"], indirect=True)
def test_what_the_template_makes_is_green(installed: tuple[Path, Environment], tmp_path: Path) -> None:
    source, environment = installed
    (source / "tests" / "conftest.py").write_text(f"{PROFILE}settings.load_profile('short')\n")
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(source))
    assert re.search(r"^\d{2,} passed in", done.stdout, flags=re.MULTILINE), done.stdout


@pytest.mark.parametrize("installed", ["store"], indirect=True)
def test_a_store_of_the_template_runs_by_variables_alone(installed: tuple[Path, Environment]) -> None:
    _, environment = installed
    variables = {"SOJOURN_PRESET": "testing", "SOJOURN_STORE": "acme", "SOJOURN_ACME_URL": "acme://there"}
    assert environment.answer(VISIT, **variables) == ["1", "2", 1, 1, "1"]


@pytest.mark.parametrize("installed", ["store"], indirect=True)
def test_a_misspelt_variable_of_a_store_of_the_template_is_named(installed: tuple[Path, Environment]) -> None:
    _, environment = installed
    variables = {"SOJOURN_PRESET": "testing", "SOJOURN_STORE": "acme", "SOJOURN_ACME_TIMEOTU": "2s"}
    assert "did you mean SOJOURN_ACME_TIMEOUT?" in environment.run("-c", VISIT, code=0, **variables).stderr


@pytest.mark.parametrize("installed", ["adapter"], indirect=True)
def test_an_adapter_of_the_template_runs_by_variables_alone(installed: tuple[Path, Environment]) -> None:
    source, environment = installed
    (example,) = blocks((source / "README.md").read_text())
    (environment.folder / "shop.py").write_text(example)
    assert environment.answer(ASK, SOJOURN_PRESET="testing") == ["visit 1", "visit 2", "visit 1"]


@pytest.mark.parametrize("name", ["Acme", "a-b", "1a", ""])
def test_a_name_that_makes_no_package_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="small letters and digits"):
        copier.run_copy(
            str(ROOT / "examples" / "plugin-template"),
            tmp_path / "made",
            data={"kind": "store", "name": name},
            defaults=True,
            quiet=True,
        )
