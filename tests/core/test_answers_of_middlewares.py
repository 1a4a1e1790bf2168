"""What the middlewares answer when a session cannot be kept as the handler left it, alike under both protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sojourn import Session, SessionManager, asgi, wsgi
from sojourn.errors import SessionUnavailableError, StoreUnavailableError
from sojourn.stores.memory import MemoryStore
from sojourn.testing import Browser, client
from tests.core.models import make_manager

View = Callable[[Session[Any]], object]


def visit(protocol: Any, sessions: SessionManager[Any], view: View) -> Browser[Any]:
    """Return a browser of an application whose only page is *view*, and which looks at the session again afterwards."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        view(sessions.of(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    def plain_page(environ: Any, start_response: Any) -> list[bytes]:
        view(sessions.of(environ))
        start_response("200 OK", [])
        return [b"done"]

    app = page if protocol is asgi else plain_page
    return client(protocol.SessionMiddleware(app, sessions), sessions)


@pytest.fixture(params=[asgi, wsgi], ids=["asgi", "wsgi"])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


def add_a_visit(session: Session[Any]) -> None:
    session.data.count += 1


def test_f8_a_conflict_that_is_to_be_raised_is_a_409_and_the_other_request_is_kept(protocol: Any) -> None:
    sessions = make_manager(settings={"on_conflict": "raise"})

    def overtaken(session: Session[Any]) -> None:
        other = sessions.blocking.open(browser.token)
        other.data.note = "theirs"
        sessions.blocking.commit(other)
        session.data.note = "ours"

    views: list[View] = [add_a_visit, overtaken]
    with visit(protocol, sessions, lambda session: views.pop(0)(session)) as browser:
        assert browser.get("/").status == 200
        token = browser.token
        answer = browser.get("/", headers={"accept": "application/json"})
        assert (answer.status, answer.header("set-cookie"), answer.header("cache-control")) == (409, None, "no-store")
        assert answer.json()["detail"] == "The session was changed by another request at the same time."
        assert browser.token == token
        with browser.session() as session:
            assert session.data.note == "theirs"


def test_r15_a_session_too_many_is_a_409(protocol: Any) -> None:
    sessions = make_manager(settings={"max_sessions": 1, "max_sessions_policy": "reject"})
    with visit(protocol, sessions, lambda session: session.login("ada")) as browser:
        assert browser.get("/").status == 200
        second = browser.another()
        assert (second.get("/").status, second.token) == (409, None)


def test_f16_a_session_too_large_is_a_500_and_the_last_good_state_is_kept(protocol: Any) -> None:
    sessions = make_manager(settings={"max_payload": 2_000})

    def grow(session: Session[Any]) -> None:
        session.data.note += "x" * 1_500

    with visit(protocol, sessions, grow) as browser:
        assert browser.get("/").status == 200
        assert browser.get("/").status == 500
        with browser.session() as session:
            assert len(session.data.note) == 1_500


def test_f15_what_cannot_be_stored_is_a_500(protocol: Any) -> None:
    def spoil(session: Session[Any]) -> None:
        session.data.note = object()

    with visit(protocol, make_manager(), spoil) as browser:
        assert (browser.get("/").status, browser.token) == (500, None)


def test_f9_a_logout_that_fails_says_that_nobody_was_logged_out(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away", retry_after=7)

    sessions = make_manager()
    views: list[View] = [add_a_visit, lambda session: session.logout()]
    with visit(protocol, sessions, lambda session: views.pop(0)(session)) as browser:
        browser.get("/")
        token = browser.token
        monkeypatch.setattr(MemoryStore, "delete", away)
        answer = browser.get("/")
        assert (answer.status, answer.header("retry-after"), browser.token) == (503, "7", token)
        assert "You are not logged out" in answer.text


def test_r22_of_two_cookies_none_is_believed_while_the_store_cannot_be_asked_for_one(
    monkeypatch: pytest.MonkeyPatch, protocol: Any
) -> None:
    """The other one may be the visitor's: an outage, never a guess."""
    sessions = make_manager()
    with visit(protocol, sessions, add_a_visit) as browser:
        browser.get("/")
        token, load = browser.token, MemoryStore.load

        async def halting(self: MemoryStore, id: str) -> Any:
            found = await load(self, id)
            if found is None:
                raise StoreUnavailableError("away")
            return found

        monkeypatch.setattr(MemoryStore, "load", halting)
        answer = browser.get("/", headers={"cookie": f"sojourn={token}; sojourn={'B' * 42}A"})
        assert (answer.status, answer.header("set-cookie")) == (503, None)


def test_an_outage_while_a_test_looks_at_the_session_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away")

    with visit(wsgi, make_manager(), add_a_visit) as browser:
        browser.get("/")
        monkeypatch.setattr(MemoryStore, "load", away)
        with (
            pytest.raises(SessionUnavailableError, match="could not be asked for the session of this test"),
            browser.session(),
        ):
            pass


def test_an_outage_raised_after_the_head_has_begun_leaves_the_head_that_was_sent() -> None:
    """WSGI: the response cannot be taken back; the server has to end it."""
    sessions = make_manager()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        sessions.of(environ).data.count += 1
        start_response("200 OK", [])(b"begun")
        raise SessionUnavailableError("too late")

    heads: list[str] = []

    def start(status: str, _headers: object, _error: object = None, /) -> Callable[[bytes], object]:
        heads.append(status)
        return lambda _: None

    served = wsgi.SessionMiddleware(app, sessions)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "SERVER_NAME": "shop.example"}
    with pytest.raises(SessionUnavailableError, match="too late"):
        served(environ, start)
    assert heads == ["200 OK"]


def test_an_outage_raised_after_a_503_was_sent_is_answered_by_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away")

    sessions = make_manager()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        session = sessions.of(environ)
        session.data.count += 1
        start_response("200 OK", [])
        raise SessionUnavailableError("seen by the handler as well")

    monkeypatch.setattr(MemoryStore, "create", away)
    with client(wsgi.SessionMiddleware(app, sessions), sessions) as browser:
        answer = browser.get("/")
    assert answer.status == 503
    assert "Sessions are unavailable" in answer.text


def test_the_mapping_of_a_request_can_be_copied_and_inspected_without_pretending_to_be_more() -> None:
    sessions = make_manager()
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        mapping = environ["sojourn.session"]
        seen.extend([repr(mapping), hasattr(mapping, "__html__"), mapping.data.count, "state" in mapping])
        mapping["state"] = 1
        mapping.clear()
        seen.append(dict(mapping))
        start_response("200 OK", [])
        return [b""]

    with client(wsgi.SessionMiddleware(app, sessions), sessions) as browser:
        assert browser.get("/").status == 200
    assert seen == ["<BlockingRequestSession>", False, 0, False, {}]
