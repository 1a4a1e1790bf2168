"""Managers as applications build and shut them down: from the environment, over twins, with an index of their own."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

import sojourn
from sojourn import SessionManager, asgi, new_secret, wsgi
from sojourn.errors import ConfigurationError, SessionUnavailableError, StoreUnavailableError
from sojourn.manager import run_blocking
from sojourn.session.transitions import LoadOutcome
from sojourn.stores import Store, StoreIO
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, client
from sojourn_store_cookie import CookieStore
from tests.core.models import Visit, make_manager


class ClosedMemory(MemoryStore):
    """Counts how often it was closed."""

    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


class SuspendingMemory(ClosedMemory):
    """Says that it suspends, and brings a twin on the same data, as the Redis store does."""

    io = StoreIO.ASYNC

    def __init__(self) -> None:
        super().__init__()
        self.twin = ClosedMemory()

    def blocking_twin(self) -> Store:
        self.twin._blobs, self.twin._index = self._blobs, self._index
        self.twin._deadlines, self.twin._anonymous = self._deadlines, self._anonymous
        return self.twin


@pytest.fixture
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in an empty folder with a secret in the environment, as a deployment does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_SECRET", new_secret())
    monkeypatch.setenv("SOJOURN_COOKIE_NAME", "visit")


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize(
    "build", [lambda: SessionManager(Visit, MemoryStore()), lambda: SessionManager.from_env(Visit)]
)
def test_a_manager_without_settings_reads_the_environment(build: Any) -> None:
    sessions = build()
    assert sessions.engine.cookies.name == "visit"
    assert sessions.engine.settings.preset == "production"


@dataclass
class Located:
    """What `json` cannot keep, and `pydantic` can."""

    home: IPv4Address | None = None


def test_the_serializer_that_a_refusal_names_is_used_beside_a_store_from_code() -> None:
    with pytest.raises(ConfigurationError, match="set SOJOURN_SERIALIZER=pydantic"):
        make_manager(model=Located)
    sessions = make_manager(model=Located, settings={"serializer": "pydantic"}).blocking
    session = sessions.open(None)
    session.data.home = IPv4Address("192.0.2.1")
    token = sessions.commit(session).token
    assert sessions.open(token).data == Located(IPv4Address("192.0.2.1"))


def test_a_serializer_from_code_wins_over_the_settings() -> None:
    sessions = make_manager(settings={"serializer": "pydantic"}, serializer="msgpack")
    assert sessions.engine.model.serializer.name == "msgpack"


def test_a_serializer_that_nobody_has_is_refused_beside_a_store_from_code() -> None:
    with pytest.raises(ConfigurationError, match="yaml"):
        make_manager(settings={"serializer": "yaml"})


def test_high_security_refuses_a_store_that_was_told_not_to_seal() -> None:
    class Readable(MemoryStore):
        encrypt = False

    values = {"preset": "high_security", "idle_timeout": "15m", "absolute_timeout": "12h", "secret": new_secret()}
    with pytest.raises(ConfigurationError, match="encryption is turned off for Readable"):
        make_manager(Readable(), settings=values)


def test_shutting_down_closes_every_store_the_twins_and_the_index_included() -> None:
    store = SuspendingMemory()
    sessions = make_manager(store)
    assert sessions.blocking.open(None).outcome is LoadOutcome.NONE
    run_blocking(sessions.aclose())
    assert (store.closed, store.twin.closed) == (1, 1)

    index = SuspendingMemory()
    sessions = make_manager(CookieStore(), revocation_store=index, settings={"secret": new_secret()})
    blocking = sessions.blocking
    session = blocking.open(None)
    session.login("ada")
    token = blocking.commit(session).token
    assert blocking.open(token).outcome is LoadOutcome.LOADED
    blocking.revoke_all("ada")
    assert blocking.open(token).outcome is not LoadOutcome.LOADED
    assert run_blocking(index.count()) == 1, "both sides have one index"
    run_blocking(sessions.aclose())
    assert (index.closed, index.twin.closed) == (1, 1)


def test_the_index_of_a_cookie_store_is_closed_once_where_it_needs_no_twin() -> None:
    index = ClosedMemory()
    run_blocking(make_manager(CookieStore(), revocation_store=index, settings={"secret": new_secret()}).aclose())
    assert index.closed == 1


@pytest.mark.parametrize("protocol", [asgi, wsgi], ids=["asgi", "wsgi"])
def test_f1_require_gives_a_503_where_of_gives_an_anonymous_visitor(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On routes that must not run anonymously, whatever SOJOURN_ON_UNAVAILABLE says."""
    sessions = make_manager(settings={"on_unavailable": "degraded"})
    asked: list[str] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        asked.append(str(sessions.of(scope).principal))
        if scope["path"] == "/strict":
            sessions.require(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def plain_page(environ: Any, start_response: Any) -> list[bytes]:
        asked.append(str(sessions.of(environ).principal))
        if environ["PATH_INFO"] == "/strict":
            sessions.blocking.require(environ)
        start_response("204 No Content", [])
        return []

    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    app = protocol.SessionMiddleware(page if protocol is asgi else plain_page, sessions)
    with client(app, sessions) as browser:
        with browser.session() as session:
            session.login("ada")
        monkeypatch.setattr(MemoryStore, "load", away)
        assert [browser.get("/").status, browser.get("/strict").status] == [204, 503]
    assert asked == ["None", "None"]


def test_an_outage_raised_after_a_503_was_sent_is_answered_by_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """ASGI; tests/core/test_answers_of_middlewares.py has the one of WSGI."""

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away")

    sessions = make_manager()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sessions.of(scope).data.count += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise SessionUnavailableError("seen by the handler as well")

    monkeypatch.setattr(MemoryStore, "create", away)
    with client(asgi.SessionMiddleware(app, sessions), sessions) as browser:
        assert browser.get("/").status == 503


def test_a_full_store_passes_over_ids_that_were_deleted() -> None:
    clock, evicted = FakeClock(), list[str]()
    store = MemoryStore(max_sessions=2, clock=clock, on_evict=evicted.append)
    sessions = make_manager(store, clock=clock).blocking
    ids: list[str] = []
    for number in range(5):
        session = sessions.open(None)
        session.data.count = number + 1
        sessions.commit(session)
        ids.append(session.id)
        clock.advance(60)
        if number == 1:
            sessions.revoke(ids[0])  # waits first, and is gone
    assert evicted == ids[1:3]


def test_the_package_shows_its_public_names_before_they_are_imported() -> None:
    assert {*sojourn.__all__} <= {*dir(sojourn)}
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = sojourn.nonsense
