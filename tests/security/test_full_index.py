"""A revocation index in memory: it forgets nothing before its time, and says so when it cannot take more (SECURITY R44)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore, SessionManager, new_secret
from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.manager import BlockingManager, run_blocking
from sojourn.settings import SessionSettings
from sojourn.stores import Record
from sojourn.testing import FakeClock, RecordingMetrics, client, make_id, make_write_id
from sojourn.wsgi import SessionMiddleware
from sojourn_store_cookie import CookieStore
from tests.core.models import Visit, make_manager
from tests.security.houses import begin

FULL = "session.revocations.fullness"


def site(index: MemoryStore, clock: FakeClock, **parts: Any) -> SessionManager[Any]:
    return make_manager(CookieStore(), clock=clock, settings={"secret": new_secret()}, revocation_store=index, **parts)


def log_out(node: BlockingManager[Any], token: str) -> None:
    session = node.open(token)
    session.logout()
    node.commit(session)


@given(room=st.integers(1, 6), strangers=st.integers(0, 8))
def test_r44_a_revocation_is_kept_until_its_cookie_ends_however_many_follow(room: int, strangers: int) -> None:
    clock = FakeClock()
    node = site(MemoryStore(max_sessions=room, clock=clock), clock).blocking
    ended = begin(node, principal="42")
    log_out(node, ended)
    refused = 0
    for _ in range(strangers):
        token = begin(node)
        try:
            log_out(node, token)
        except StoreUnavailableError:
            refused += 1
            assert node.open(token).outcome is LoadOutcome.LOADED
        assert node.open(ended).outcome is LoadOutcome.UNKNOWN
    assert refused == max(0, strangers - room + 1)
    clock.advance(24 * 3600 + 61)  # every cookie of before has ended, and with it the need for its entry
    token = begin(node)
    log_out(node, token)
    assert node.open(token).outcome is LoadOutcome.UNKNOWN


def test_r44_a_full_index_answers_503_to_a_logout_and_warns_before(caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = FakeClock(), RecordingMetrics()
    sessions = site(MemoryStore(max_sessions=5, clock=clock), clock, metrics=metrics)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        session = sessions.of(environ)
        if environ["PATH_INFO"] == "/logout":
            session.logout()
        else:
            session.data.count += 1
        start_response("200 OK", [])
        return [str(session.data.count).encode()]

    for number in range(1, 6):
        with client(SessionMiddleware(app, sessions), sessions) as browser:
            browser.get("/")
            assert browser.get("/logout").status == 200
        assert metrics.gauges[FULL] == number / 5
        assert ("filling up" in caplog.text) is (number >= 4)
    assert caplog.text.count("filling up") == 1
    with client(SessionMiddleware(app, sessions), sessions) as browser:
        browser.get("/")
        reply = browser.get("/logout")
        assert reply.status == 503
        assert "not logged out" in reply.text
        assert browser.get("/").text == "2"


def test_r44_a_store_that_may_not_evict_takes_what_it_has_and_frees_what_expired() -> None:
    clock = FakeClock()
    store = MemoryStore(max_sessions=2, clock=clock)
    store.evicts = False
    records = [Record(make_id(name), 1, b"x", clock.time() + 60, clock.time() + 60) for name in "abc"]
    for record in records[:2]:
        run_blocking(store.create(record, write_id=make_write_id(record.id)))
    assert store.fullness == 1.0
    with pytest.raises(StoreUnavailableError, match="all that it may"):
        run_blocking(store.create(records[2], write_id=make_write_id("c")))
    repeated = run_blocking(store.create(records[0], write_id=make_write_id(records[0].id)))
    assert repeated.value == "ok", "a repeated write takes no room"
    assert store.evictions == 0
    clock.advance(61)
    later = Record(make_id("c"), 1, b"x", clock.time() + 60, clock.time() + 60)
    assert run_blocking(store.create(later, write_id=make_write_id("c"))).value == "ok"


def production(**values: Any) -> SessionSettings:
    return SessionSettings(_env_file=None, preset="production", secret=new_secret(), **values)


def test_r44_an_index_that_other_processes_do_not_see_is_refused() -> None:
    for build in (
        lambda: SessionManager.from_settings(Visit, production(store="cookie", revocation_store="memory")),
        lambda: SessionManager(Visit, CookieStore(), settings=production(), revocation_store=MemoryStore()),
    ):
        with pytest.raises(ConfigurationError, match="SOJOURN_SINGLE_PROCESS=true"):
            build()
    alone = production(store="cookie", revocation_store="memory", single_process=True)
    assert SessionManager.from_settings(Visit, alone).blocking.open(None).is_new


def test_r44_a_store_that_can_only_evict_is_no_revocation_index() -> None:
    class Forgetful:
        """As a plugin may have it: bounded, and unable to refuse."""

        def __init__(self) -> None:
            self._inner = MemoryStore()
            self.io = self._inner.io
            self.on_evict = None

        def __getattr__(self, name: str) -> Any:
            if name in {"evicts", "fullness", "in_process"}:
                raise AttributeError(name)
            return getattr(self._inner, name)

    with pytest.raises(ConfigurationError, match="Forgetful evicts"):
        make_manager(CookieStore(), revocation_store=Forgetful(), settings={"secret": new_secret()})
