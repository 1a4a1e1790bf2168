"""A browser for tests: makes requests, keeps cookies, and sets and reads the session behind them.

The one rule: the session is stored and read by the application's own manager, so a test sees what a request sees.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Generic, Self, TypeVar
from urllib.parse import urlencode

from sojourn.errors import SessionUnavailableError
from sojourn.manager import SessionManager
from sojourn.session import CookieAction, LoadOutcome, Session
from sojourn.stores import StoreIO
from sojourn.testing.replies import Call, Reply
from sojourn.testing.wires import AsgiWire, Wire, wire_to

T = TypeVar("T")

_SERVER_ERROR: Final = 500


class Browser(Generic[T]):
    """One visitor of one application; make the first with `client`, more with `another`.

    As a context manager it starts the application up and shuts it down (ASGI lifespan).
    """

    def __init__(self, wire: Wire, sessions: SessionManager[T], *, raise_errors: bool) -> None:
        self._wire = wire
        self._sessions = sessions if isinstance(wire, AsgiWire) else sessions.blocking.manager
        self._raise_errors = raise_errors
        self._name = sessions.gate.cookies.name
        self._scheme = "https" if sessions.gate.cookies.secure else "http"
        self.cookies: dict[str, str] = {}
        """The jar: names and values."""

    def another(self) -> Browser[T]:
        """Return another visitor of the same application, with an empty jar."""
        return Browser(self._wire, self._sessions, raise_errors=self._raise_errors)

    # -- the session -----------------------------------------------------------------------------------------

    @property
    def token(self) -> str | None:
        """The session's token in the jar; assign to send another one, None to forget it."""
        return self.cookies.get(self._name)

    @token.setter
    def token(self, value: str | None) -> None:
        if value is None:
            self.cookies.pop(self._name, None)
        else:
            self.cookies[self._name] = value

    @contextmanager
    def session(self) -> Generator[Session[T]]:
        """Open the visitor's session; what is changed in the block is stored at its end, and the jar follows.

        Raises SessionUnavailableError when the store cannot be asked. When the block raises, nothing is stored.
        """
        session = self._wire.run(self._sessions.open(self.token))
        if session.outcome is LoadOutcome.UNAVAILABLE:
            msg = "the store could not be asked for the session of this test; is it running?"
            raise SessionUnavailableError(msg)
        yield session
        change = self._wire.run(self._sessions.commit(session))
        if change.action is CookieAction.SET:
            self.token = change.token
        elif change.action is CookieAction.CLEAR:
            self.token = None

    # -- requests --------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: object = None,
        form: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make a request with the cookies of the jar; redirects are not followed.

        *json* and *form* are encoded and announced; *headers* win over what this sends by itself, ``cookie`` too.
        """
        sent = {"host": "testserver"}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if json is not None:
            body, sent["content-type"] = json_module.dumps(json).encode(), "application/json"
        elif form is not None:
            body, sent["content-type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        if body:
            sent["content-length"] = str(len(body))
        sent.update((name.lower(), value) for name, value in (headers or {}).items())
        call = Call(method=method, path=path, headers=tuple(sent.items()), body=body, scheme=self._scheme)
        try:
            reply = self._wire.send(call)
        except Exception:
            if self._raise_errors:
                raise
            return Reply(status=_SERVER_ERROR, headers=(), body=b"")
        for line in reply.all("set-cookie"):
            self._keep(line)
        return reply

    def get(self, path: str, **options: Any) -> Reply:
        """Make a GET request; *options* are those of `request`."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Reply:
        """Make a POST request; *options* are those of `request`."""
        return self.request("POST", path, **options)

    def _keep(self, line: str) -> None:
        """Do with one Set-Cookie line what a browser would, for the one site that there is."""
        pair, *attributes = line.split(";")
        name, _, value = (part.strip() for part in pair.partition("="))
        lives = {key.strip().lower(): text.strip() for key, _, text in (one.partition("=") for one in attributes)}
        if lives.get("max-age", "1").startswith(("0", "-")):
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value

    # -- the application's life ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._wire.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Shut the application down, and close what the manager opened in its event loop."""
        try:
            if isinstance(self._wire, AsgiWire) and self._sessions.gate.io is StoreIO.ASYNC and self._wire.is_open:
                self._wire.run(self._sessions.aclose())
        finally:
            self._wire.close()


def client(app: Callable[..., Any], sessions: SessionManager[T], *, raise_errors: bool = True) -> Browser[T]:
    """Return a browser for tests of *app*, an ASGI or WSGI application that *sessions* serve.

    With *raise_errors* an error that leaves the application is raised in the test, else it is answered with 500, as
    a server does. Not for use inside a running event loop: it has its own.
    """
    return Browser(wire_to(app), sessions, raise_errors=raise_errors)
