"""The session behind the test client of a framework: httpx's clients, and Starlette's, which is one of them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from http.cookiejar import Cookie, CookieJar
from typing import Any, Protocol, TypeVar

from sojourn import CookieAction, LoadOutcome, Session, SessionManager
from sojourn.errors import SessionUnavailableError

T = TypeVar("T")


class Cookies(Protocol):
    """The cookies of a client."""

    @property
    def jar(self) -> CookieJar: ...  # noqa: D102
    def set(self, name: str, value: str, domain: str = "", path: str = "/") -> None: ...  # noqa: D102


class HttpClient(Protocol):
    """What is used of ``httpx.Client``, ``httpx.AsyncClient`` and Starlette's ``TestClient``."""

    @property
    def cookies(self) -> Any: ...  # noqa: D102 - Cookies, as properties of httpx have other types in their setters
    @property
    def base_url(self) -> Any: ...  # noqa: D102
    @property
    def headers(self) -> Any: ...  # noqa: D102


@contextmanager
def session_of(client: HttpClient, sessions: SessionManager[T]) -> Generator[Session[T]]:
    """Open the session of *client*; what is changed in the block is stored at its end, and the client's cookie follows.

    Log in there, or look what a request left. From then on the client also sends the Origin of its base URL, as browsers
    do: without it WebSockets that carry the cookie are refused outside of ``testing`` and ``development``. Raises
    SessionUnavailableError when the store cannot be asked. When the block raises, nothing is stored.
    """
    cookies: Cookies = client.cookies
    name = sessions.settings.cookie_name
    held = [cookie for cookie in cookies.jar if cookie.name == name]
    session = sessions.blocking.open(held[-1].value if held else None)
    if session.outcome is LoadOutcome.UNAVAILABLE:
        msg = "the store could not be asked for the session of this test; is it running?"
        raise SessionUnavailableError(msg)
    if "origin" not in client.headers:
        client.headers["origin"] = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
    yield session
    change = sessions.blocking.commit(session)
    if change.action is CookieAction.KEEP:
        return
    for cookie in held:
        _forget(cookies.jar, cookie)
    if change.action is CookieAction.SET and change.token is not None:
        host: str = client.base_url.host
        # Under the name that the jar gives the host, so that the application's own Set-Cookie replaces it.
        cookies.set(name, change.token, domain=host if "." in host else f"{host}.local")


def _forget(jar: CookieJar, cookie: Cookie) -> None:
    jar.clear(cookie.domain, cookie.path, cookie.name)
