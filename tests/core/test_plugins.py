from __future__ import annotations

import importlib
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import SessionManager
from sojourn.crypto.ciphers import AesGcm
from sojourn.errors import ConfigurationError, PluginConflictError, PluginNotFoundError
from sojourn.hookspecs import Event
from sojourn.metrics import CompositeMetrics, LogMetrics, NullMetrics
from sojourn.plugins import (
    PluginLoader,
    find_cipher,
    find_metrics,
    find_observers,
    find_serializer,
    find_store,
    installed,
    unknown_variables,
    warn_about_unknown_variables,
)
from sojourn.settings import SessionSettings
from sojourn.stores.memory import MemoryStore

Install = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a distribution with entry points on the path, as pip would."""
    before = set(sys.modules)

    def lay(distribution: str, code: str = "", *entry_points: str, module: str | None = None) -> str:
        site = tmp_path / f"site-{distribution}"
        module = module or distribution.replace("-", "_")
        metadata = site / f"{module}-1.2.dist-info"
        metadata.mkdir(parents=True)
        (site / f"{module}.py").write_text("from sojourn.hookspecs import hookimpl\n" + textwrap.dedent(code))
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = "\n".join(f"{name} = {module}" for name in entry_points)
        (metadata / "entry_points.txt").write_text(f"[sojourn]\n{lines}\n")
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return module

    yield lay
    for name in set(sys.modules) - before:
        if name.startswith("fake_"):
            del sys.modules[name]


@dataclass
class Cart:
    size: int = 0


STORE = """
    from sojourn.stores.memory import MemoryStore

    @hookimpl
    def sojourn_create_store(name, settings):
        return MemoryStore(max_sessions=7) if name == "{name}" else None
"""


def without_our_own(*, group: str, **selection: Any) -> list[EntryPoint]:
    """Find the entry points that tests have laid, and none of the packages of this repository."""
    points: list[EntryPoint] = list(entry_points(group=group, **selection))
    return [point for point in points if point.dist and not point.dist.name.startswith("sojourn-")]


# built-ins


def test_the_built_ins_need_no_plugin() -> None:
    settings = SessionSettings(memory_max_sessions=12)
    store = find_store("memory", settings)
    assert isinstance(store, MemoryStore)
    assert store.max_sessions == 12
    assert find_store("memory", settings) is not store
    assert find_serializer("json", settings)(Cart).decode(b'{"size":1}') == Cart(1)
    assert find_serializer("msgpack", settings)(Cart).name == "msgpack"
    assert find_serializer("pydantic", settings) is not None
    assert isinstance(find_cipher("aes-256-gcm", settings), AesGcm)
    assert find_cipher("aes-256-cbc-hmac-sha256", settings).suite == 2
    assert isinstance(find_metrics("null", settings), NullMetrics)
    assert isinstance(find_metrics("log", settings), LogMetrics)


def test_several_sinks_between_commas_are_one(install: Install) -> None:
    install(
        "fake-sink",
        """
        from sojourn.metrics import NullMetrics

        class Sink(NullMetrics):
            pass

        @hookimpl
        def sojourn_create_metrics(name, settings):
            return Sink() if name == "fake" else None

        @hookimpl
        def sojourn_observers(settings):
            return [print]
        """,
        "metrics-fake",
    )
    settings = SessionSettings(metrics="log, Fake,log")
    assert settings.metrics == "log,fake"
    found = find_metrics(settings.metrics, settings)
    assert isinstance(found, CompositeMetrics)
    assert [type(sink).__name__ for sink in found.sinks] == ["LogMetrics", "Sink"]
    assert find_observers(settings) == (print,)
    with pytest.raises(PluginNotFoundError, match="'nothing'"):
        find_metrics("log,nothing", settings)


@pytest.mark.parametrize("value", ["", ",", "log,", "log,,null", "log;null", "a b"])
def test_a_list_of_sinks_has_no_holes_and_only_names(value: str) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_METRICS"):
        SessionSettings(metrics=value)


def test_a_built_in_name_is_not_overridden_by_a_plugin(install: Install) -> None:
    module = install("fake-memory", STORE.format(name="memory"), "store-memory")
    store = find_store("memory", SessionSettings())
    assert isinstance(store, MemoryStore)
    assert store.max_sessions != 7
    assert module not in sys.modules


# naming a plugin


def test_a_named_plugin_is_imported_and_asked(install: Install) -> None:
    install("fake-one", STORE.format(name="one"), "store-one")
    store = find_store("one", SessionSettings())
    assert isinstance(store, MemoryStore)
    assert store.max_sessions == 7


def test_an_installed_plugin_that_is_not_named_is_not_imported(install: Install) -> None:
    named = install("fake-one", STORE.format(name="one"), "store-one")
    unnamed = install("fake-two", "raise RuntimeError", "store-two", "observer-two")
    find_store("one", SessionSettings())
    find_observers(SessionSettings(store="one"))
    assert {plugin.name for plugin in installed()} >= {"one", "two"}
    warn_about_unknown_variables({"SOJOURN_TWO_URL": "x"})
    with pytest.raises(PluginNotFoundError):
        find_store("three", SessionSettings())
    assert named in sys.modules
    assert unnamed not in sys.modules


def test_a_plugin_may_offer_several_names(install: Install) -> None:
    code = """
        from sojourn.metrics import NullMetrics
        from sojourn.stores.memory import MemoryStore

        @hookimpl
        def sojourn_create_store(name, settings):
            return MemoryStore() if name in ("one", "clustered-one") else None

        @hookimpl
        def sojourn_create_metrics(name, settings):
            return NullMetrics() if name == "one" else None
    """
    install("fake-one", code, "store-one", "store-clustered-one")
    door = PluginLoader(SessionSettings())
    assert door.store("one") is not door.store("clustered-one")
    assert isinstance(door.metrics("one"), NullMetrics)
    assert door.load("store", "clustered-one")


def test_a_serializer_and_a_cipher_may_come_from_plugins(install: Install) -> None:
    code = """
        class Rot:
            name, suite = "rot", 200
            def box(self, key): return self

        @hookimpl
        def sojourn_create_serializer(name, settings):
            return (lambda model: model) if name == "rot" else None

        @hookimpl
        def sojourn_create_cipher(name, settings):
            return Rot() if name == "rot" else None
    """
    install("fake-rot", code, "serializer-rot", "cipher-rot")
    settings = SessionSettings()
    made: object = find_serializer("rot", settings)(Cart)
    assert made is Cart
    assert find_cipher("rot", settings).suite == 200


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("redis", ["no store is called 'redis'", "try: pip install sojourn-store-redis"]),
        ("clustered-redis", ["try: pip install sojourn-store-redis"]),
        ("redsi", ["did you mean 'redis'? Try: pip install sojourn-store-redis"]),
        ("memroy", ["did you mean 'memory'?"]),
        ("postgres", ["a package that brings it has the entry point store-postgres"]),
    ],
)
def test_an_unknown_store_says_what_to_do(
    name: str, words: list[str], install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.plugins.entry_points", without_our_own)
    install("fake-one", STORE.format(name="one"), "store-one")
    with pytest.raises(PluginNotFoundError) as caught:
        find_store(name, SessionSettings())
    for word in [*words, "(installed: memory, one)"]:
        assert word in str(caught.value)


def test_no_strangers_package_is_recommended() -> None:
    with pytest.raises(PluginNotFoundError) as caught:
        find_store("sqlite", SessionSettings())
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (find_serializer, "no serializer is called 'nope'.*installed: auto, json, msgpack, pydantic"),
        (find_cipher, "no cipher is called 'nope'.*installed: aes-256-gcm, aes-256-cbc-hmac-sha256"),
        (find_metrics, "no metrics are called 'nope'.*installed: null, log"),
    ],
)
def test_an_unknown_name_of_any_kind_lists_the_choices(find: Callable[..., object], words: str) -> None:
    with pytest.raises(PluginNotFoundError, match=words):
        find("nope", SessionSettings())


# plugins that do not work


def test_two_distributions_offering_one_name_are_refused_by_name(install: Install) -> None:
    modules = [install(f"fake-{word}", STORE.format(name="one"), "store-one") for word in ("alpha", "beta")]
    with pytest.raises(
        PluginConflictError, match=r"2 distributions offer store-one: fake-alpha and fake-beta; uninstall all but one"
    ):
        find_store("one", SessionSettings())
    assert not set(modules) & set(sys.modules)
    assert [plugin.conflict for plugin in installed() if plugin.name == "one"] == [True, True]


def test_a_conflict_between_plugins_nobody_names_is_no_trouble(install: Install) -> None:
    for word in ("alpha", "beta"):
        install(f"fake-{word}", "", "store-one")
    assert isinstance(find_store("memory", SessionSettings()), MemoryStore)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module_at_all", r"ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("raise ValueError('redis://user:hunter2@host')", r"\(ValueError\)"),
        ("oops oops", r"\(SyntaxError\)"),
    ],
)
def test_a_plugin_that_does_not_import_is_named(install: Install, code: str, words: str) -> None:
    install("fake-broken", code, "store-broken")
    with pytest.raises(ConfigurationError, match=f"store-broken of fake-broken cannot be imported .*{words}") as caught:
        find_store("broken", SessionSettings())
    assert caught.value.__cause__ is not None
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_hook_is_an_error(install: Install) -> None:
    install("fake-typo", "@hookimpl\ndef sojourn_create_stor(name, settings): ...", "store-typo")
    with pytest.raises(ConfigurationError, match="store-typo of fake-typo .*sojourn_create_stor"):
        find_store("typo", SessionSettings())


def test_a_hook_with_other_parameters_is_an_error(install: Install) -> None:
    install("fake-typo", "@hookimpl\ndef sojourn_create_store(name, url): ...", "store-typo")
    with pytest.raises(ConfigurationError, match="store-typo of fake-typo .*url"):
        find_store("typo", SessionSettings())


def test_a_plugin_that_does_not_know_its_own_name_is_said_to_be_defect(install: Install) -> None:
    install("fake-one", STORE.format(name="other"), "store-one")
    with pytest.raises(PluginNotFoundError, match="store-one is installed, but its hook sojourn_create_store"):
        find_store("one", SessionSettings())


def test_r6_a_hook_that_raises_is_reported_without_its_text(install: Install) -> None:
    code = "@hookimpl\ndef sojourn_create_store(name, settings): raise ValueError('hunter2')"
    install("fake-one", code, "store-one")
    with pytest.raises(ConfigurationError, match="sojourn_create_store failed with ValueError") as caught:
        find_store("one", SessionSettings())
    assert isinstance(caught.value.__cause__, ValueError)
    assert "hunter2" not in str(caught.value)


def test_a_hooks_own_configuration_error_is_passed_on(install: Install) -> None:
    code = """
        from sojourn.errors import ConfigurationError

        @hookimpl
        def sojourn_create_store(name, settings):
            raise ConfigurationError("SOJOURN_ONE_URL is missing; set it")
    """
    install("fake-one", code, "store-one")
    with pytest.raises(ConfigurationError, match=r"^SOJOURN_ONE_URL is missing; set it$"):
        find_store("one", SessionSettings())


@pytest.mark.parametrize(
    ("kind", "find"),
    [("store", find_store), ("metrics", find_metrics), ("serializer", find_serializer), ("cipher", find_cipher)],
)
def test_what_a_hook_returns_is_checked(install: Install, kind: str, find: Callable[..., object]) -> None:
    install("fake-odd", f"@hookimpl\ndef sojourn_create_{kind}(name, settings): return 'text'", f"{kind}-odd")
    with pytest.raises(ConfigurationError, match=f"{kind}-odd returned an object of type str, .*{kind}"):
        find("odd", SessionSettings())


@pytest.mark.parametrize("suite", [0, 1, 2, 127, 256])
def test_r26_a_plugins_cipher_keeps_to_its_suite_bytes(install: Install, suite: int) -> None:
    code = f"""
        class Odd:
            name, suite = "odd", {suite}
            def box(self, key): return self

        @hookimpl
        def sojourn_create_cipher(name, settings): return Odd()
    """
    install("fake-odd", code, "cipher-odd")
    with pytest.raises(ConfigurationError, match=f"the cipher 'odd' has the suite byte {suite}; .*128 to 255"):
        find_cipher("odd", SessionSettings())


# observers

OBSERVER = """
    def {name}(event): seen.append(("{name}", event.name))
    seen = []

    @hookimpl
    def sojourn_observers(settings): return [{name}]
"""


def test_observers_come_from_loaded_plugins_and_named_ones_in_order(install: Install) -> None:
    first = install("fake-audit", OBSERVER.format(name="audit"), "observer-audit")
    second = install("fake-mail", OBSERVER.format(name="mail"), "observer-mail")
    store = install("fake-one", OBSERVER.format(name="one") + STORE.format(name="one"), "store-one")
    observers = find_observers(SessionSettings(store="one", observers="audit,mail"))
    for observer in observers:
        observer(Event("started", "id"))
    names = [getattr(observer, "__name__", "") for observer in observers]
    assert names == ["one", "audit", "mail"]
    for module, name in ((first, "audit"), (second, "mail"), (store, "one")):
        assert sys.modules[module].seen == [(name, "started")]


def test_without_plugins_there_are_no_observers() -> None:
    assert find_observers(SessionSettings()) == ()


def test_a_named_observer_that_is_missing_is_an_error() -> None:
    with pytest.raises(PluginNotFoundError, match=r"no observer is called 'audit'.*\(installed: none\)"):
        find_observers(SessionSettings(observers="audit"))


def test_an_observer_must_be_callable(install: Install) -> None:
    install("fake-audit", "@hookimpl\ndef sojourn_observers(settings): return [1]", "observer-audit")
    with pytest.raises(ConfigurationError, match="sojourn_observers returned an object of type int, no callable"):
        find_observers(SessionSettings(observers="audit"))


def test_a_store_given_in_code_needs_no_plugin_of_its_name_to_find_observers() -> None:
    assert find_observers(SessionSettings(store="not-installed")) == ()


# unknown variables


def test_misspelt_variables_are_reported_with_the_nearest_name_and_no_value(
    caplog: pytest.LogCaptureFixture, install: Install, tmp_path: Path
) -> None:
    module = install("fake-store", "raise RuntimeError", "store-queue", "store-clustered-queue")
    (tmp_path / ".env").write_text("SOJOURN_PRESETT=hunter2\nDATABASE_URL=hunter2\nSOJOURN_SALT=x\n")
    environ = {
        "SOJOURN_IDEL_TIMEOUT": "hunter2",
        "sojourn_store": "memory",
        "SOJOURN_QUEUE_URL": "hunter2",
        "SOJOURN_CLUSTERED_QUEUE_SIZE": "1",
        "SOJOURN_QUEU_URL": "hunter2",
        "SOJOURN_SECRETS_DIR": "/run/secrets",
        "SOJOURN_XYZZY": "hunter2",
        "PATH": "/bin",
        "SOJOURNER": "1",
    }
    found = warn_about_unknown_variables(environ)
    assert {variable.name: variable.nearest for variable in found} == {
        "SOJOURN_IDEL_TIMEOUT": "SOJOURN_IDLE_TIMEOUT",
        "SOJOURN_QUEU_URL": "SOJOURN_QUEUE_URL",
        "SOJOURN_XYZZY": None,
        "SOJOURN_PRESETT": "SOJOURN_PRESET",
    }
    assert "SOJOURN_IDEL_TIMEOUT (from the environment)" in caplog.text
    assert "did you mean SOJOURN_IDLE_TIMEOUT?" in caplog.text
    assert "SOJOURN_PRESETT (from .env)" in caplog.text
    assert "hunter2" not in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert module not in sys.modules


def test_every_setting_is_known_by_its_variable_without_a_look_at_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {SessionSettings.variable_of(name): "x" for name in SessionSettings.model_fields}
    monkeypatch.setattr("sojourn.plugins.entry_points", None)
    assert warn_about_unknown_variables(environ) == []


def test_a_core_setting_misspelt_under_a_plugins_prefix_is_reported_too() -> None:
    known, prefixes = ["SOJOURN_COOKIE_SECURE"], ["SOJOURN_COOKIE_"]
    names = ["SOJOURN_COOKIE_SECUR", "SOJOURN_COOKIE_REVOCATION"]
    found = unknown_variables(names, "the environment", known=known, prefixes=prefixes)
    assert [(variable.name, variable.nearest) for variable in found] == [
        ("SOJOURN_COOKIE_SECUR", "SOJOURN_COOKIE_SECURE")
    ]


QUEUE = """
    from pydantic import Field
    from pydantic_settings import SettingsConfigDict
    from sojourn.settings import PluginSettings
    from sojourn.stores.memory import MemoryStore

    class QueueSettings(PluginSettings):
        model_config = SettingsConfigDict(env_prefix="SOJOURN_QUEUE_")
        max_size: int = Field(10, description="How many")

    @hookimpl
    def sojourn_settings(name):
        return QueueSettings if name == "queue" else None

    @hookimpl
    def sojourn_create_store(name, settings):
        return MemoryStore(max_sessions=QueueSettings.build(settings).max_size) if name == "queue" else None
"""


def test_a_misspelt_setting_of_a_plugin_is_reported_when_a_manager_is_built(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install("fake-queue", QUEUE, "store-queue")
    install("fake-cart", "raise RuntimeError", "store-queue-cart")
    monkeypatch.setenv("SOJOURN_QUEUE_MAX_SIZE", "3")
    monkeypatch.setenv("SOJOURN_QUEUE_MAX_SIEZ", "3")
    monkeypatch.setenv("SOJOURN_QUEUE_CART_URL", "of another plugin")
    SessionManager.from_settings(Cart, SessionSettings(preset="testing", store="queue"))
    (told,) = [record.getMessage() for record in caplog.records if "QUEUE" in record.getMessage()]
    assert "SOJOURN_QUEUE_MAX_SIEZ (from the environment)" in told
    assert "did you mean SOJOURN_QUEUE_MAX_SIZE?" in told
    caplog.clear()
    SessionManager.from_settings(Cart, SessionSettings(preset="testing"))
    assert "QUEUE" not in caplog.text  # for the plugin is not loaded, and nobody knows its settings


def test_a_misspelt_variable_is_reported_although_what_it_names_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOJOURN_STOER", "redis")
    with pytest.raises(PluginNotFoundError):
        SessionManager.from_settings(Cart, SessionSettings(preset="testing", store="nowhere"))
    assert "did you mean SOJOURN_STORE?" in caplog.text


def test_a_variable_of_a_plugin_that_is_not_installed_says_so() -> None:
    (found,) = unknown_variables(["SOJOURN_REDIS_URL"], "the environment", known=[], prefixes=[])
    assert "it belongs to sojourn-store-redis, which is not installed" in str(found)


@given(st.lists(st.text(max_size=30)), st.lists(st.text(max_size=8)), st.lists(st.text(max_size=8)))
def test_any_environment_can_be_looked_through(names: list[str], known: list[str], prefixes: list[str]) -> None:
    for variable in unknown_variables(names, "x", known=known, prefixes=prefixes):
        assert variable.name.startswith("SOJOURN_")
        assert variable.name not in known


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_STOER", "redis")
    assert [variable.nearest for variable in warn_about_unknown_variables()] == ["SOJOURN_STORE"]
    assert warn_about_unknown_variables({}, None) == []


def test_an_event_is_a_plain_value() -> None:
    event: Any = Event("started", "id")
    assert (event.old_id, event.principal_hash, event.reason, event.at) == (None, None, None, 0.0)
    with pytest.raises(AttributeError):
        event.name = "deleted"
