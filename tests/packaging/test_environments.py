from __future__ import annotations

import email
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.environments import (
    PACKAGES,
    ROOT,
    Environment,
    import_name,
    lay_distribution,
    make_environment,
    third_parties_of,
)

pytestmark = pytest.mark.slow

HEAVY = ["pydantic_settings", "pydantic", "asyncio", "redis", "hypothesis", "pytest", "ssl"]
PLUGINS = [import_name(name) for name in PACKAGES if name.startswith(("contrib-", "metrics-", "store-"))]
KITS = ["sojourn_cli", "sojourn_testing", "click", "rich"]
READERS = [
    "aiohttp-cookie",
    "aiohttp-redis",
    "azutoolkit-cookie",
    "azutoolkit-redis",
    "django-cache",
    "django-cookie",
    "django-db",
    "express-session",
    "flask",
    "flask-session",
    "litestar-cookie",
    "litestar-redis",
    "starlette",
    "starsessions",
]
# What each package brings along when nothing else is asked for, beside the core.
NEEDS = {
    "cli": {"click", "rich"},
    "contrib-aiohttp": {"aiohttp"},
    "contrib-azu-like": {"msgspec", "starlette"},
    "contrib-django": {"django"},
    "contrib-fastapi": {"fastapi"},
    "contrib-flask": {"flask"},
    "contrib-litestar": {"litestar"},
    "contrib-migrate": {"cryptography", "msgspec"},
    "core": {"cryptography", "msgspec", "pluggy", "pydantic-settings"},
    "metrics-opentelemetry": {"opentelemetry-api"},
    "metrics-statsd": {"datadog"},
    "store-cookie": set(),
    "store-redis": {"redis"},
    "store-sql": {"psycopg", "sqlalchemy"},
    "testing": set(),
}


def loaded(environment: Environment, code: str, **variables: str) -> list[str]:
    """Return which of the heavy modules and plugins are loaded after *code* ran."""
    names = HEAVY + PLUGINS + KITS
    script = f"{code}\nimport sys, json; print(json.dumps([n for n in {names!r} if n in sys.modules]))"
    found: list[str] = environment.answer(script, **variables)
    return found


def message(environment: Environment, code: str, **variables: str) -> tuple[str, str]:
    """Return the type and the text of the error that *code* raises."""
    lines = "\n    ".join(code.splitlines())
    script = f"""
import json
try:
    {lines}
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    kind, text = environment.answer(script, **variables)
    return kind, text


# the wheels


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_is_typed_licensed_and_holds_one_import_name(name: str, wheels: dict[str, Path]) -> None:
    imported = import_name(name)
    with zipfile.ZipFile(wheels[name]) as wheel:
        names = wheel.namelist()
        (licence,) = (wheel.read(entry) for entry in names if entry.endswith(".dist-info/licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert f"{imported}/py.typed" in names
    tops = {entry.split("/")[0] for entry in names}
    assert tops == {imported, next(top for top in tops if top.endswith(".dist-info"))}
    assert not [entry for entry in names if "test_" in entry or entry.endswith((".pyc", "BUILD"))]


@pytest.mark.parametrize("name", PACKAGES)
def test_an_sdist_holds_the_sources_and_the_licence_and_nothing_else(name: str, sdists: dict[str, Path]) -> None:
    with tarfile.open(sdists[name]) as sdist:
        files = {entry.name.partition("/")[2]: entry for entry in sdist if entry.isfile()}
        licence = sdist.extractfile(files["LICENSE"])
        assert licence is not None
        assert licence.read() == (ROOT / "LICENSE").read_bytes()
    modules = {path for path in files if path.startswith(f"src/{import_name(name)}/") and path.endswith(".py")}
    typed = f"src/{import_name(name)}/py.typed"
    # hatchling adds the ignored names, so that a build from the sdist leaves out the same files.
    assert set(files) - modules - {".gitignore"} == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", typed}
    assert modules


def test_all_wheels_carry_one_version_and_need_what_the_design_allows(wheels: dict[str, Path]) -> None:
    versions: set[str] = set()
    for name, path in wheels.items():
        with zipfile.ZipFile(path) as wheel:
            (metadata,) = (entry for entry in wheel.namelist() if entry.endswith(".dist-info/METADATA"))
            fields = email.message_from_bytes(wheel.read(metadata))
        versions.add(str(fields["Version"]))
        lines = map(str, fields.get_all("Requires-Dist", []))
        needed = {Requirement(line).name for line in lines if "extra ==" not in line}
        assert needed == NEEDS[name] | ({"sojourn"} if name != "core" else set())
    assert len(versions) == 1


# an environment with the core alone


def test_the_core_alone_has_no_store_but_memory(core_alone: Environment) -> None:
    kind, _ = message(core_alone, "import sojourn_store_redis")
    assert kind == "ModuleNotFoundError"
    assert message(core_alone, "import redis")[0] == "ModuleNotFoundError"
    names = core_alone.answer(
        "import json, sojourn.plugins as p; print(json.dumps([x.entry_point for x in p.installed()]))"
    )
    assert names == []


@pytest.mark.parametrize("name", ["redis", "clustered-redis", "cookie"])
def test_naming_a_store_that_is_not_installed_says_how_to_install_it(name: str, core_alone: Environment) -> None:
    code = "from sojourn.plugins import find_store\nfrom sojourn.settings import SessionSettings\n"
    code += "settings = SessionSettings()\nfind_store(settings.store, settings)"
    kind, text = message(core_alone, code, SOJOURN_STORE=name)
    distribution = f"sojourn-store-{name.removeprefix('clustered-')}"
    assert kind == "PluginNotFoundError"
    assert text == f"no store is called {name!r}; try: pip install {distribution} (installed: memory)"


def test_the_command_is_no_part_of_the_core(core_alone: Environment) -> None:
    assert not (core_alone.folder / "bin" / "sojourn").exists()
    refused = core_alone.run("-m", "sojourn", "keygen", code=1)
    assert refused.stderr == 'the command is in the distribution sojourn-cli: pip install "sojourn[cli]"\n'


def test_the_command_is_installed_with_its_distribution(fresh: Environment) -> None:
    script = fresh.folder / "bin" / "sojourn"
    assert fresh.run(str(script), "keygen").stdout.strip()
    refused = fresh.run(str(script), "config", "check", code=1, SOJOURN_PRESET="production")
    assert "sojourn keygen" in refused.stderr
    fresh.run(str(script), "config", code=2)
    assert fresh.run("-m", "sojourn", "--version").stdout == fresh.run(str(script), "--version").stdout


def test_the_test_kit_is_no_part_of_the_core(core_alone: Environment) -> None:
    for code in ("from sojourn.testing import client", "import sojourn.testing\nsojourn.testing.StoreSuite"):
        kind, text = message(core_alone, code)
        assert (kind, 'pip install "sojourn[testing]"' in text) == ("ModuleNotFoundError", True)


def test_the_test_client_and_the_fakes_need_no_hypothesis(wheels: dict[str, Path], tmp_path: Path) -> None:
    kit = make_environment(tmp_path / "kit", [wheels["core"], wheels["testing"]], third_parties_of("sojourn"))
    code = "from sojourn.testing import FakeClock, FaultyStore, RecordingMetrics, client, make_record"
    assert loaded(kit, code + "; make_record()") == ["sojourn_testing"]
    kind, text = message(kit, "from sojourn.testing import StoreSuite")
    assert (kind, text) == ("ModuleNotFoundError", 'StoreSuite needs hypothesis: pip install "sojourn-testing[suite]"')


def test_production_without_a_secret_refuses_to_start(core_alone: Environment) -> None:
    code = "from sojourn.settings import SessionSettings\nSessionSettings().key_ring()"
    kind, text = message(core_alone, code, SOJOURN_PRESET="production")
    assert kind == "ConfigurationError"
    assert (
        'run `sojourn keygen`, or `python -c "import secrets; print(secrets.token_urlsafe(32))"`, and put the 43'
        in text
    )


def test_workers_in_development_agree_on_the_secret_they_make(core_alone: Environment, tmp_path: Path) -> None:
    code = (
        "import json, os\nfrom concurrent.futures import ProcessPoolExecutor\nfrom pathlib import Path\n"
        "from sojourn.settings.development import development_secret\n"
        f"with ProcessPoolExecutor(4) as pool:\n"
        f"    made = list(pool.map(development_secret, [Path({str(tmp_path / 'kept')!r})] * 16))\n"
        "print(json.dumps(len(set(made))))"
    )
    assert core_alone.answer(code) == 1


# an environment with everything


def test_importing_sojourn_loads_nothing_heavy_and_no_plugin(everything: Environment) -> None:
    assert loaded(everything, "import sojourn") == []


@pytest.mark.parametrize("module", ["errors", "hookspecs", "plugins", "stores", "metrics", "cookies", "retry"])
def test_parts_of_the_core_load_nothing_heavy_either(module: str, everything: Environment) -> None:
    assert loaded(everything, f"import sojourn.{module}") == []


def test_a_plugin_that_is_installed_but_not_named_is_not_imported(everything: Environment) -> None:
    code = (
        "from sojourn.plugins import *\nfrom sojourn.settings import SessionSettings\n"
        "settings = SessionSettings()\ndoor = PluginLoader(settings)\n"
        "door.store(settings.store), door.serializer('json'), door.cipher(settings.cipher), door.metrics('null')\n"
        "door.observers(), installed(), warn_about_unknown_variables()"
    )
    assert not set(loaded(everything, code)) & {*PLUGINS, "redis"}


def test_naming_one_plugin_imports_that_one_alone(everything: Environment) -> None:
    code = (
        "from sojourn.plugins import find_metrics\nfrom sojourn.settings import SessionSettings\n"
        "settings = SessionSettings()\nfind_metrics(settings.metrics, settings)"
    )
    assert set(loaded(everything, code, SOJOURN_METRICS="statsd")) & {*PLUGINS, "redis"} == {"sojourn_metrics_statsd"}


def test_our_plugins_are_found_without_importing_them(everything: Environment) -> None:
    code = "import json, sojourn.plugins as p; print(json.dumps([x.entry_point for x in p.installed()]))"
    assert everything.answer(code) == [
        "command-sql",
        "metrics-opentelemetry",
        "metrics-statsd",
        *(f"reader-{name}" for name in READERS),
        "store-clustered-redis",
        "store-cookie",
        "store-redis",
        "store-sql",
    ]


@pytest.mark.parametrize(
    "plugin",
    ["metrics-opentelemetry", "metrics-statsd", "store-clustered-redis", "store-cookie", "store-redis", "store-sql"],
)
def test_a_plugin_of_ours_answers_to_its_name(plugin: str, everything: Environment) -> None:
    kind, _, name = plugin.partition("-")
    code = f"""
import json
from sojourn.plugins import PluginLoader
from sojourn.settings import SessionSettings
print(json.dumps(PluginLoader(SessionSettings(preset="testing")).{kind}({name!r}) is not None))
"""
    assert everything.answer(code) is True


# strangers


def test_two_distributions_that_claim_one_name_are_refused(fresh: Environment) -> None:
    lay_distribution(fresh.site, "queue-store", "store-queue = queue_store", "raise SystemExit('imported')")
    lay_distribution(fresh.site, "other-store", "store-queue = other_store", "raise SystemExit('imported')")
    code = "from sojourn.plugins import find_store\nfrom sojourn.settings import SessionSettings\n"
    kind, text = message(fresh, code + "find_store('queue', SessionSettings())")
    assert kind == "PluginConflictError"
    assert text == "2 distributions offer store-queue: other-store and queue-store; uninstall all but one"
    assert message(fresh, code + "find_store('memory', SessionSettings())\nraise LookupError")[0] == "LookupError"
    assert "CONFLICT" in fresh.run("-m", "sojourn", "plugins", code=1).stdout


def test_a_strangers_store_is_found_by_its_name(fresh: Environment) -> None:
    code = """
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from sojourn.hookspecs import hookimpl
from sojourn.settings import PluginSettings
from sojourn.stores.memory import MemoryStore

class QueueSettings(PluginSettings):
    model_config = SettingsConfigDict(env_prefix="SOJOURN_QUEUE_")
    presets = {"testing": {"size": 3}}
    size: int = Field(10, ge=1, description="How many")

@hookimpl
def sojourn_create_store(name, settings):
    if name == "queue":
        return MemoryStore(max_sessions=QueueSettings.build(settings).size)
"""
    lay_distribution(fresh.site, "queue-store", "store-queue = queue_store", code)
    ask = (
        "from sojourn.plugins import find_store, warn_about_unknown_variables\n"
        "from sojourn.settings import SessionSettings\n"
        "settings = SessionSettings()\nunknown = warn_about_unknown_variables()\n"
        "import json, sys; before = 'queue_store' in sys.modules\n"
        "print(json.dumps([find_store(settings.store, settings).max_sessions, len(unknown), before]))"
    )
    assert fresh.answer(ask, SOJOURN_STORE="queue") == [10, 0, False]
    assert fresh.answer(ask, SOJOURN_STORE="queue", SOJOURN_PRESET="testing") == [3, 0, False]
    assert fresh.answer(ask, SOJOURN_STORE="queue", SOJOURN_QUEUE_SIZE="7") == [7, 0, False]
    kind, text = message(fresh, ask, SOJOURN_STORE="queue", SOJOURN_QUEUE_SIZE="many")
    assert (kind, "SOJOURN_QUEUE_SIZE = 'many' (from the environment)" in text) == ("ConfigurationError", True)
