"""The scenarios that every framework adapter has to pass, as a pytest class to subclass.

    class TestMyFramework(AdapterSuite):
        def make_application(self, sessions, pages):
            app = MyFramework()
            ...  # the adapter, and one route for each of *pages*
            return app

The suite drives the application as a server does, over ASGI or WSGI; its pages are those of `sojourn_testing.pages`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, ClassVar, Final, TypeVar

from sojourn import ClientSideStore, MemoryStore, SessionManager, Store, StoreIO, asgi, new_secret, wsgi
from sojourn.settings import SessionSettings
from sojourn_testing.browser import AsgiTransport, Browser, Reply, transport_to
from sojourn_testing.fakes import Fault, FaultyStore
from sojourn_testing.pages import PAGES, Page, Visit

T = TypeVar("T")

_WRITES: Final = frozenset({"create", "replace", "touch", "delete"})


class _WatchedStore(FaultyStore):
    """A store whose calls are seen, fail on purpose, or meet another request that comes between."""

    def __init__(self, inner: Store, *, suspends: bool) -> None:
        super().__init__(inner)
        self.between: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {}
        """What happens once, just before the next call of a method."""
        if suspends:
            self.io = StoreIO.ASYNC

    async def _call(self, method: str, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self.io is StoreIO.ASYNC:
            await _turn()
        happens = self.between.pop(method, None)
        if happens is not None:
            await happens()
        return await super()._call(method, operation)


async def _turn() -> None:
    """Let everybody else in the event loop go first, as waiting for a network does."""
    import asyncio

    await asyncio.sleep(0)


class Site:
    """The application under test with its store, and one visitor."""

    def __init__(
        self, app: Any, sessions: SessionManager[Visit], store: _WatchedStore, *, is_client_side: bool
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.store = store
        """The store, or the revocation index of a client-side one."""
        self.is_client_side = is_client_side
        self.transport = app if isinstance(app, AsgiTransport) else transport_to(app)
        self.browser = Browser(self.transport, sessions, raise_errors=False)

    def ask(self, method: str, *arguments: object) -> Any:
        """Call the manager as another process would, beside the requests of the application."""
        if isinstance(self.transport, AsgiTransport):
            return self.transport.run(getattr(self.sessions, method)(*arguments))
        return getattr(self.sessions.blocking, method)(*arguments)

    def logged_in(self) -> str:
        """Log in; return the token."""
        assert self.browser.post("/login").status == HTTPStatus.OK
        assert self.browser.token is not None
        return self.browser.token

    def seen(self, token: str | None = None) -> dict[str, Any]:
        """Return what /read shows, to the browser or to whoever has *token*."""
        reply = self.browser.get("/read", headers={} if token is None else {"cookie": self.cookie(token)})
        assert reply.status == HTTPStatus.OK, reply
        shown: dict[str, Any] = reply.json()
        return shown

    def cookie(self, token: str) -> str:
        """Return the Cookie header for *token*."""
        return f"{self.sessions.settings.cookie_name}={token}"

    def own_lines(self, reply: Reply) -> list[str]:
        """Return the Set-Cookie lines of the session."""
        lines = (line.strip(" \t") for line in reply.all("set-cookie"))  # Django's begin with a space (RFC 9110 5.5)
        return [line for line in lines if line.startswith(self.cookie(""))]

    def writes(self) -> list[str]:
        """Return the calls that the store has seen and that write, in order."""
        return [call for call in self.store.calls if call in _WRITES]

    def socket(self, path: str) -> list[MutableMapping[str, Any]]:
        """Open a WebSocket with the browser's cookie from the same origin; return what the application sent."""
        if not isinstance(self.transport, AsgiTransport):
            raise TypeError("only an ASGI application has WebSockets; set has_websockets = False")
        headers = [(b"host", b"testserver"), (b"origin", b"http://testserver")]
        if self.browser.token is not None:
            headers.append((b"cookie", self.cookie(self.browser.token).encode("latin-1")))
        return self.transport.run(_connect(self.app, path, headers))


async def _connect(
    app: Callable[..., Awaitable[None]], path: str, headers: list[tuple[bytes, bytes]]
) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []
    inbox: list[dict[str, Any]] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> dict[str, Any]:
        return inbox.pop(0) if len(inbox) > 1 else inbox[0]

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("testserver", 80),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    return sent


class AdapterSuite:
    """The scenarios as tests; ``make_application`` is all that a subclass needs."""

    has_websockets: ClassVar[bool] = False
    """Whether the application takes the pages that are sockets."""
    store_suspends: ClassVar[bool] = False
    """Let the store suspend as one behind a network does; for adapters under an event loop."""

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        """Return an ASGI or WSGI application that serves *pages*, with the adapter and *sessions*."""
        del sessions, pages
        raise TypeError(f"{type(self).__name__} must define make_application(self, sessions, pages)")

    def make_store(self) -> Store | ClientSideStore:
        """Return an empty store; an application under WSGI needs one that does not suspend."""
        return MemoryStore()

    @contextmanager
    def site(self, *, layered: bool = False, **settings: Any) -> Generator[Site]:
        """Build the application; *layered* puts sojourn's own middleware around it."""
        store = self.make_store()
        is_client_side = isinstance(store, ClientSideStore)
        watched = _WatchedStore(
            MemoryStore() if isinstance(store, ClientSideStore) else store, suspends=self.store_suspends
        )
        # A machine that is busy with other tests may be slow to ask a server.
        values: dict[str, Any] = {"preset": "testing", "secret": new_secret(), "request_deadline": 30.0, **settings}
        sessions: SessionManager[Visit] = SessionManager(
            Visit,
            store if is_client_side else watched,
            settings=SessionSettings(_env_file=None, **values),
            revocation_store=watched if is_client_side else None,
        )
        app = self.make_application(sessions, PAGES)
        if layered:
            is_asgi = isinstance(transport_to(app), AsgiTransport)
            app = asgi.SessionMiddleware(app, sessions) if is_asgi else wsgi.SessionMiddleware(app, sessions)
        site = Site(app, sessions, watched, is_client_side=is_client_side)
        try:
            with site.browser:
                yield site
        finally:
            if not isinstance(site.transport, AsgiTransport):
                sessions.blocking.close()

    # -- reading and writing -------------------------------------------------------------------------------------

    def test_a_page_that_does_not_look_at_the_session_costs_nothing(self) -> None:
        """No cookie, no Vary, no write, with and without a session."""
        with self.site() as site:
            for _ in range(2):
                writes = site.writes()
                reply = site.browser.get("/untouched")
                assert (reply.status, reply.all("set-cookie"), reply.all("vary")) == (200, [], [])
                assert site.writes() == writes
                site.logged_in()

    def test_reading_writes_nothing_and_says_vary(self) -> None:
        """R17, R23."""
        with self.site() as site:
            assert site.seen() == {"principal": None, "count": 0, "cart": []}
            assert site.sessions.settings.cookie_name not in site.browser.cookies
            assert site.store.calls == []
            token = site.logged_in()
            writes = site.writes()
            reply = site.browser.get("/read")
            assert reply.json()["principal"] == "ada"
            assert reply.all("set-cookie") == []
            assert reply.all("vary") == ["Cookie"]
            assert (site.writes(), site.browser.token) == (writes, token)

    def test_a_change_inside_the_data_is_kept(self) -> None:
        """Nobody has to announce it."""
        with self.site() as site:
            reply = site.browser.post("/add")
            assert len(site.own_lines(reply)) == 1
            site.browser.post("/add")
            assert site.seen()["cart"] == ["book", "book"]
            assert site.browser.another().get("/read").json()["cart"] == []

    def test_head_stores_and_sends_what_get_does_without_a_body(self) -> None:
        """RFC 9110 9.3.2."""
        with self.site() as site:
            reply = site.browser.request("HEAD", "/add")
            assert (reply.status, reply.body, len(site.own_lines(reply))) == (200, b"", 1)
            assert site.seen()["cart"] == ["book"]

    def test_304_and_redirects_carry_cookie_and_vary(self) -> None:
        """Caches keep what a 304 says; R53."""
        with self.site() as site:
            for path, status in (("/redirect", HTTPStatus.SEE_OTHER), ("/not-modified", HTTPStatus.NOT_MODIFIED)):
                site.browser.token = None
                reply = site.browser.get(path)
                assert (reply.status, reply.body, len(site.own_lines(reply))) == (status, b"", 1)
                assert "Cookie" in (reply.header("vary") or "")

    def test_headers_of_the_application_are_joined_and_never_weakened(self) -> None:
        """R23: Vary is one line, a stricter Cache-Control stays, other cookies are not touched."""
        with self.site() as site:
            public = site.browser.get("/public")
            assert len(site.own_lines(public)) == 1
            assert [line for line in public.all("set-cookie") if line.strip().startswith("theme=dark")]
            assert public.header("x-own") == "kept"
            assert {name.strip() for line in public.all("vary") for name in line.split(",")} == {"Accept", "Cookie"}
            assert 'no-cache="Set-Cookie"' in (public.header("cache-control") or "")
            assert "public" in (public.header("cache-control") or "")
            site.browser.token = None
            private = site.browser.get("/private")
            assert (private.header("cache-control"), private.header("vary")) == ("no-store", "Accept, Cookie")

    # -- the life of a session -----------------------------------------------------------------------------------

    def test_login_keeps_the_cart_and_leaves_the_old_token_dead(self) -> None:
        """R8."""
        with self.site() as site:
            site.browser.post("/add")
            anonymous = site.browser.token
            assert anonymous is not None
            token = site.logged_in()
            assert token != anonymous
            assert site.seen() == {"principal": "ada", "count": 0, "cart": ["book"]}
            assert site.seen(anonymous) == {"principal": None, "count": 0, "cart": []}

    def test_logout_ends_the_session_and_clears_the_cookie(self) -> None:
        """R13: the record is gone before the response is."""
        with self.site() as site:
            for path in ("/logout", "/destroy"):
                token = site.logged_in()
                reply = site.browser.post(path)
                assert (reply.status, len(site.own_lines(reply))) == (200, 1)
                assert "sojourn" not in site.browser.cookies
                assert site.seen(token)["principal"] is None

    def test_a_message_survives_the_logout_of_its_request_under_a_fresh_token(self) -> None:
        """R13, R53."""
        with self.site() as site:
            token = site.logged_in()
            assert site.browser.post("/goodbye").status == HTTPStatus.OK
            assert site.browser.token not in {token, None}
            assert site.browser.get("/hear").json() == "Goodbye"
            assert site.browser.get("/hear").json() is None
            assert site.seen(token)["principal"] is None

    def test_a_session_that_is_revoked_from_elsewhere_is_nobodys(self) -> None:
        """R14; the cookie is left alone (R13)."""
        with self.site() as site:
            token = site.logged_in()
            other = site.browser.another()
            assert other.post("/login").status == HTTPStatus.OK
            site.ask("revoke_all", "ada")
            for browser in (site.browser, other):
                reply = browser.get("/read")
                assert (reply.status, reply.json()["principal"], reply.all("set-cookie")) == (200, None, [])
            assert site.browser.token == token

    def test_a_session_that_is_revoked_during_a_request_is_not_brought_back(self) -> None:
        """FAILURES F7."""
        with self.site() as site:
            token = site.logged_in()
            if site.is_client_side:
                return  # nothing is stored at the end of the request, so nothing comes between
            with site.browser.session() as session:
                own = session.id
            site.store.between["replace"] = lambda: site.store.inner.delete(own)
            assert site.browser.post("/add").status == HTTPStatus.OK
            assert site.seen(token) == {"principal": None, "count": 0, "cart": []}

    # -- applications that fail ----------------------------------------------------------------------------------

    def test_what_a_failing_handler_changed_is_not_kept(self) -> None:
        """FAILURES F23."""
        with self.site() as site:
            token = site.logged_in()
            for path in ("/fail", "/raise"):
                reply = site.browser.post(path)
                assert (reply.status, reply.all("set-cookie")) == (500, [])
            assert (site.browser.token, site.seen()["count"]) == (token, 0)

    def test_a_logout_holds_although_the_handler_fails(self) -> None:
        """FAILURES F23."""
        with self.site() as site:
            for path, status in (("/fail-after-logout", 502), ("/raise-after-logout", 500)):
                token = site.logged_in()
                assert site.browser.post(path).status == status
                assert site.seen(token)["principal"] is None

    def test_an_outage_in_the_handler_is_a_503_without_a_traceback(self) -> None:
        """FAILURES F1, F5: the cookie is kept, and the log has no traceback for each request."""
        with self.site() as site:
            token = site.logged_in()
            site.store.follow(lambda _: Fault.BEFORE)
            with _tracebacks() as tracebacks:
                for method in ("GET", "POST", "HEAD"):
                    reply = site.browser.request(method, "/read")
                    assert (reply.status, reply.header("retry-after")) == (503, "1"), method
                    assert site.own_lines(reply) == []
                    assert (reply.body == b"") == (method == "HEAD")
                assert site.browser.get("/untouched").status == HTTPStatus.OK
                assert site.browser.get("/catch").json() == "come back later"
            assert tracebacks == []
            site.store.follow(())
            assert (site.browser.token, site.seen()["principal"]) == (token, "ada")

    def test_an_outage_at_the_commit_is_a_503_in_the_place_of_the_response(self) -> None:
        """FAILURES F5: what the application answered does not leave."""
        with self.site() as site:
            token = site.logged_in()
            site.store.follow(lambda method: Fault.NONE if method == "load" else Fault.BEFORE)
            for path in ("/login", "/logout"):
                with _tracebacks() as tracebacks:
                    reply = site.browser.post(path)
                assert (reply.status, reply.header("retry-after"), reply.all("set-cookie")) == (503, "1", []), path
                assert b"ada" not in reply.body
                assert tracebacks == []
            site.store.follow(())
            assert (site.browser.token, site.seen()["principal"]) == (token, "ada")

    def test_a_logout_under_a_5xx_that_could_not_be_stored_is_told(self) -> None:
        """R53: nobody may believe that it is logged out."""
        with self.site() as site:
            token = site.logged_in()
            site.store.follow(lambda method: Fault.NONE if method == "load" else Fault.BEFORE)
            reply = site.browser.post("/fail-after-logout")
            assert (reply.status, site.own_lines(reply)) == (503, [])
            site.store.follow(())
            assert site.seen(token)["principal"] == "ada"

    # -- after the head ------------------------------------------------------------------------------------------

    def test_a_change_in_a_stream_is_kept_although_the_head_has_left(self) -> None:
        """FAILURES F20. A client-side store has no cookie left to put it into."""
        with self.site() as site:
            site.logged_in()
            if not site.is_client_side:
                reply = site.browser.get("/stream")
                assert (reply.status, reply.json(), reply.header("vary")) == (200, [1, 2], "Cookie")
                assert site.seen()["count"] == 1

    def test_a_login_in_a_stream_is_refused(self) -> None:
        """FAILURES F20: the cookie can no longer be sent."""
        with self.site() as site:
            site.logged_in()
            assert site.browser.get("/stream-a-login").json() == ["ResponseStartedError"]
            assert site.seen()["principal"] == "ada"

    # -- layers, sockets -----------------------------------------------------------------------------------------

    def test_two_layers_of_one_manager_are_one_session(self) -> None:
        """One load, one commit, one Set-Cookie, one Vary."""
        with self.site(layered=True) as site:
            reply = site.browser.post("/login")
            assert len(site.own_lines(reply)) == 1
            assert [line.lower() for line in reply.all("vary")] == ["cookie"]
            site.store.calls.clear()
            reply = site.browser.post("/add")
            assert reply.status == HTTPStatus.OK
            assert site.store.calls == (
                [*["load"] * len(site.store.calls)] if site.is_client_side else ["load", "replace"]
            )
            site.store.follow(lambda _: Fault.BEFORE)
            reply = site.browser.get("/read")
            assert (reply.status, reply.header("retry-after")) == (503, "1")
            site.store.follow(lambda method: Fault.NONE if method == "load" else Fault.BEFORE)
            reply = site.browser.post("/logout")
            assert (reply.status, reply.header("retry-after"), site.own_lines(reply)) == (503, "1", [])
            site.store.follow(())
            assert site.browser.post("/logout").status == HTTPStatus.OK
            assert site.browser.token is None

    def test_a_socket_stores_at_its_accept(self) -> None:
        """The handshake's response carries the cookie."""
        if not self.has_websockets:
            return
        with self.site() as site:
            sent = site.socket("/socket")
            assert sent[0]["type"] == "websocket.accept"
            lines = [value for name, value in sent[0].get("headers") or () if name.lower() == b"set-cookie"]
            assert len(lines) == 1
            site.browser.token = lines[0].decode().partition(";")[0].partition("=")[2]
            assert site.seen()["cart"] == ["book"]
            assert json.loads(sent[1].get("text") or sent[1]["bytes"])["cart"] == ["book"]

    def test_a_denied_socket_stores_and_says_vary(self) -> None:
        """R52."""
        if not self.has_websockets:
            return
        with self.site() as site:
            site.logged_in()
            sent = site.socket("/socket/denied")
            assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 403)
            assert b"vary" in {name.lower() for name, _ in sent[0]["headers"]}
            if not site.is_client_side:
                assert site.seen()["cart"] == ["book"]

    def test_a_socket_that_meets_an_outage_is_closed(self) -> None:
        """Close code 1013, try again later."""
        if not self.has_websockets:
            return
        with self.site() as site:
            site.logged_in()
            site.store.follow(lambda _: Fault.BEFORE)
            sent = site.socket("/socket")
            assert [(message["type"], message.get("code")) for message in sent] == [("websocket.close", 1013)]


@contextmanager
def _tracebacks() -> Generator[list[str]]:
    """Yield the messages that are logged with a traceback in the block."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                found.append(record.getMessage())

    keeper = Keeper()
    root = logging.getLogger()
    root.addHandler(keeper)
    try:
        yield found
    finally:
        root.removeHandler(keeper)
