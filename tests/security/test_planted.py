"""Five faults that were once planted and that no test noticed; each is noticed here (SECURITY R53)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sojourn import LoadOutcome, MemoryStore, Session, SessionManager, asgi, wsgi
from sojourn.binding import Client
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingObserver, client
from tests.core.models import make_manager
from tests.security.houses import House, begin

Handler = Callable[[Session[Any]], str]
"""What a page does with the session; returns the status line."""
LEAVE: dict[str, Callable[[Session[Any]], object]] = {
    "logout": lambda session: session.logout(),
    "clear": lambda session: session.clear(),
    "destroy": lambda session: session.destroy(),
    "login as another": lambda session: session.login("43"),
}


def page(interface: str, sessions: SessionManager[Any], handler: Handler) -> Any:
    """Return an application under ``asgi`` or ``wsgi`` whose every page is *handler*."""

    async def over_asgi(scope: Any, receive: Any, send: Any) -> None:
        status = int(handler(sessions.of(scope))[:3])
        await send({"type": "http.response.start", "status": status, "headers": [(b"location", b"/next")]})
        await send({"type": "http.response.body", "body": b""})

    def over_wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response(handler(sessions.of(environ)), [("Location", "/next")])
        return [b""]

    if interface == "asgi":
        return asgi.SessionMiddleware(over_asgi, sessions)
    return wsgi.SessionMiddleware(over_wsgi, sessions)


interfaces = pytest.mark.parametrize("interface", ["asgi", "wsgi"])


@interfaces
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "304 Not Modified", "307 Temporary"])
@pytest.mark.parametrize("writes", [False, True])
def test_r53_a_redirect_that_depends_on_the_session_varies(interface: str, status: str, writes: bool) -> None:
    sessions = make_manager()

    def look(session: Session[Any]) -> str:
        session.data.count += writes
        return status

    with client(page(interface, sessions, look), sessions) as browser:
        assert browser.get("/").all("vary") == ["Cookie"]
        assert browser.get("/").all("vary") == ["Cookie"]


@pytest.mark.parametrize("module", [asgi, wsgi], ids=["asgi", "wsgi"])
def test_r53_the_redirect_to_the_login_varies(module: Any) -> None:
    sessions = make_manager()
    guarded = module.AuthenticationMiddleware(None, sessions)
    with client(module.SessionMiddleware(guarded, sessions), sessions) as browser:
        reply = browser.get("/private")
        assert (reply.status, reply.all("vary")) == (303, ["Cookie"])


@pytest.mark.parametrize("how", LEAVE)
def test_r53_a_message_does_not_outlive_the_session_that_it_was_for(house: House, how: str) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    session = node.open(token)
    session.flash["stored"] = "for the one who leaves"
    session = node.open(node.commit(session).token or token)
    session.flash["now"] = "in the request of the end"
    held = session.flash
    LEAVE[how](session)
    assert (len(session.flash), len(held)) == (0, 2)
    assert held is not session.flash
    if how != "destroy":
        session.data.note = "what comes after"
        after = node.open(node.commit(session).token)
        assert after.data.note == "what comes after"
        assert len(after.flash) == 0


class Keeping(MemoryStore):
    """A store that still hands out what has expired."""

    async def load(self, id: str) -> Any:
        self._clock, clock = FakeClock(), self._clock
        try:
            return await super().load(id)
        finally:
            self._clock = clock


@interfaces
def test_r53_an_expired_record_leaves_the_cookie_alone(interface: str) -> None:
    clock = FakeClock()
    sessions = make_manager(Keeping(clock=clock), clock=clock)
    seen: list[LoadOutcome] = []

    def look(session: Session[Any]) -> str:
        seen.append(session.outcome)
        return "200 OK"

    with client(page(interface, sessions, look), sessions) as browser:
        with browser.session() as session:
            session.data.note = "kept for an hour"
        clock.advance(3601)
        assert browser.get("/").all("set-cookie") == []
    assert seen == [LoadOutcome.EXPIRED]


@interfaces
@pytest.mark.parametrize("status", ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"])
@pytest.mark.parametrize("how", ["logout", "destroy", "clear"])
def test_r53_an_outage_at_a_logout_is_told_also_where_the_page_failed(interface: str, status: str, how: str) -> None:
    store = FaultyStore(MemoryStore())
    sessions = make_manager(store)

    def leave(session: Session[Any]) -> str:
        store.follow(lambda method: Fault.BEFORE if method == "delete" else Fault.NONE)
        LEAVE[how](session)
        return status

    with client(page(interface, sessions, leave), sessions, raise_errors=False) as browser:
        with browser.session() as session:
            session.login("42")
        reply = browser.get("/")
        assert reply.status == 503
        assert "not logged out" in reply.text
        assert reply.all("set-cookie") == []
        store.follow(lambda _method: Fault.NONE)
        with browser.session() as session:
            assert session.principal == "42"


def test_r53_a_login_binds_the_session_to_the_client_that_logs_in(house: House) -> None:
    before, after = Client("192.0.2.7", "Firefox"), Client("198.51.100.1", "Chrome")
    observer = RecordingObserver()
    node = house.node(binding="observe", parts={"observers": [observer]}).blocking
    session = node.open(None, before)
    session.data.note = "begun by one client"
    session = node.open(node.commit(session).token, after)
    session.login("42")
    token = node.commit(session).token
    observer.clear()
    assert node.open(token, after).principal == "42"
    assert "rejected" not in observer.names
    node.open(token, before)
    (rejected,) = (event for event in observer.events if event.name == "rejected")
    assert (rejected.reason, rejected.principal_hash) == ("binding", node.principal_hash("42"))
    strict = house.node(binding="reject").blocking
    assert strict.open(token, after).principal == "42"
    assert strict.open(token, before).outcome is LoadOutcome.BINDING
