"""The pages of the application that the scenarios of adapters visit: written once, and knowing no framework."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from sojourn import Session
from sojourn.errors import ResponseStartedError, SessionUnavailableError


@dataclass(repr=False)
class Visit:
    """The model of the suite's sessions."""

    count: int = 0
    cart: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, repr=False)
class Answer:
    """What a page answers: bytes, or an iterator that goes on after the head has left.

    A socket with *status* 101 is accepted, sends the body as text and closes; with any other it is denied by a response.
    """

    status: int = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | Iterator[bytes] = field(default=b"{}", repr=False)

    @property
    def text(self) -> str:
        """The body of a socket's answer."""
        return self.body.decode() if isinstance(self.body, bytes) else ""


Open = Callable[[], Session[Visit]]
"""Returns the session of the request, as handlers of the framework get it."""


@dataclass(frozen=True, repr=False)
class Page:
    """One route: mount it at *path* for GET, HEAD and POST, or as a WebSocket where *is_socket* is set.

    The handler calls it with a function that returns the session, and sends what it answers. It lets every exception pass.
    """

    path: str
    handle: Callable[[Open], Answer]
    is_socket: bool = False

    def __call__(self, open_session: Open) -> Answer:
        """Do what the page is for."""
        return self.handle(open_session)


# -- the pages -------------------------------------------------------------------------------------------------------


def _shown(session: Session[Visit]) -> bytes:
    shown = {"principal": session.principal, "count": session.data.count, "cart": session.data.cart}
    return json.dumps(shown).encode()


def _untouched(_: Open) -> Answer:
    return Answer()


def _read(open_session: Open) -> Answer:
    return Answer(body=_shown(open_session()))


def _add(open_session: Open) -> Answer:
    session = open_session()
    session.data.cart.append("book")
    return Answer(body=_shown(session))


def _login(open_session: Open) -> Answer:
    session = open_session()
    session.login("ada")
    return Answer(body=_shown(session))


def _logout(open_session: Open) -> Answer:
    open_session().logout()
    return Answer()


def _destroy(open_session: Open) -> Answer:
    open_session().destroy()
    return Answer()


def _logout_and_greet(open_session: Open) -> Answer:
    session = open_session()
    session.logout()
    session.flash["notice"] = "Goodbye"
    return Answer()


def _hear(open_session: Open) -> Answer:
    return Answer(body=json.dumps(open_session().flash.get("notice")).encode())


def _catch(open_session: Open) -> Answer:
    try:
        return Answer(body=_shown(open_session()))
    except SessionUnavailableError:
        return Answer(body=b'"come back later"')


def _fail(open_session: Open) -> Answer:
    open_session().data.count = 100
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _fail_after_logout(open_session: Open) -> Answer:
    open_session().logout()
    return Answer(HTTPStatus.BAD_GATEWAY)


def _raise(open_session: Open) -> Answer:
    open_session().data.count = 100
    raise ValueError("the page has a bug")


def _raise_after_logout(open_session: Open) -> Answer:
    open_session().logout()
    raise ValueError("the goodbye page has a bug")


def _stream(open_session: Open) -> Answer:
    session = open_session()

    def chunks() -> Iterator[bytes]:
        yield b"[1"
        session.data.count += 1
        yield b", 2]"

    return Answer(body=chunks())


def _stream_a_login(open_session: Open) -> Answer:
    session = open_session()

    def chunks() -> Iterator[bytes]:
        yield b'["'
        try:
            session.login("late")
        except ResponseStartedError as error:
            yield type(error).__name__.encode()
        yield b'"]'

    return Answer(body=chunks())


def _public(open_session: Open) -> Answer:
    open_session().data.cart.append("book")
    headers = (
        ("Vary", "Accept"),
        ("Cache-Control", "public, max-age=60"),
        ("Set-Cookie", "theme=dark; Path=/"),
        ("X-Own", "kept"),
    )
    return Answer(headers=headers)


def _private(open_session: Open) -> Answer:
    open_session().data.cart.append("book")
    return Answer(headers=(("Vary", "Accept, Cookie"), ("Cache-Control", "no-store")))


def _redirect(open_session: Open) -> Answer:
    open_session()["seen"] = True
    return Answer(HTTPStatus.SEE_OTHER, (("Location", "/read"),), b"")


def _not_modified(open_session: Open) -> Answer:
    open_session().data.cart.append("book")
    return Answer(HTTPStatus.NOT_MODIFIED, (("ETag", '"1"'),), b"")


def _accept(open_session: Open) -> Answer:
    session = open_session()
    session.data.cart.append("book")
    return Answer(HTTPStatus.SWITCHING_PROTOCOLS, body=_shown(session))


def _deny(open_session: Open) -> Answer:
    open_session().data.cart.append("book")
    return Answer(HTTPStatus.FORBIDDEN, body=b"no")


PAGES: Final = (
    Page("/untouched", _untouched),
    Page("/read", _read),
    Page("/add", _add),
    Page("/login", _login),
    Page("/logout", _logout),
    Page("/destroy", _destroy),
    Page("/goodbye", _logout_and_greet),
    Page("/hear", _hear),
    Page("/catch", _catch),
    Page("/fail", _fail),
    Page("/fail-after-logout", _fail_after_logout),
    Page("/raise", _raise),
    Page("/raise-after-logout", _raise_after_logout),
    Page("/stream", _stream),
    Page("/stream-a-login", _stream_a_login),
    Page("/public", _public),
    Page("/private", _private),
    Page("/redirect", _redirect),
    Page("/not-modified", _not_modified),
    Page("/socket", _accept, is_socket=True),
    Page("/socket/denied", _deny, is_socket=True),
)
"""The routes that the application of an adapter needs."""
