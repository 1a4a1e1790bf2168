"""The layers of one request: main and mounted applications, or a framework's adapter inside a middleware.

They share one session, one load and one commit, also where some run under an event loop and others without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias, TypeVar, cast

from sojourn.binding import Peer
from sojourn.errors import ConfigurationError
from sojourn.http import Ending
from sojourn.manager.engine import Engine
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.request import OF_THE_SESSION, BlockingRequestSession, RequestSession
from sojourn.session.session import ExtrasMapping, Session
from sojourn.stores import StoreIO

T = TypeVar("T")

_WHERE: Final = ("", "scope", "environ", "env")
"""Where a request may hold what the middleware saw: itself, or as Starlette, werkzeug and Falcon call it."""
REQUESTS_KEY: Final = "sojourn.requests"
"""Under this key of an ASGI scope, a WSGI environ or another mutable request stand its sessions, by manager."""

OUTER_SCOPE: Final = "asgi.scope"
"""Under this key a2wsgi hands the ASGI scope of a mounted WSGI application to it."""
OUTER_ENVIRON: Final = "wsgi_environ"
"""Under this key a2wsgi hands the environ to an ASGI application that a WSGI server runs."""


def join_outer(where: MutableMapping[str, Any], outer: object) -> MutableMapping[object, RequestSession[Any]] | None:
    """Let *where* share the sessions of the request that it is a part of; None where no middleware has seen that."""
    requests: MutableMapping[object, RequestSession[Any]] | None = None
    if isinstance(outer, dict | Mapping):
        requests = cast("Mapping[str, Any]", outer).get(REQUESTS_KEY)
    if requests is not None:
        where[REQUESTS_KEY] = requests
    return requests


if TYPE_CHECKING:
    RequestLike: TypeAlias = object
else:

    class RequestLike:
        """An ASGI scope, a WSGI environ or an object that has one: any object to type checkers.

        A framework that fills the parameters of a dependency by their annotations, as FastAPI does with pydantic, would look
        for a query parameter called "request" and answer every request with 422; it is told when the route is made.
        """

        @classmethod
        def __get_pydantic_core_schema__(cls, *_: object) -> NoReturn:
            raise ConfigurationError(
                "this method of the session manager is no dependency: it takes the request, which no query holds. Write "
                "Depends(SessionDependency(sessions)) from sojourn_contrib_fastapi (pip install sojourn-contrib-fastapi), or "
                "a function with `request: Request` that returns sessions.of(request)"
            )


def join(
    kind: type[RequestSession[Any]],
    requests: MutableMapping[object, RequestSession[Any]],
    engine: Engine[Any],
    cookies: str,
    peer: Callable[[], Peer] | None,
) -> Any:
    """Return one more layer, of that *kind*, of a request that a middleware has seen; after that was closed, a new request.

    Raises ConfigurationError where another manager has the same cookie.
    """
    found = requests.get(engine.key)
    if found is not None and found.layers > 0:
        found.layers += 1
    else:
        for other in requests.values():
            if other is not found and other.engine.cookies.name == engine.cookies.name:
                raise ConfigurationError(
                    f"this request passes two session managers that both use the cookie {engine.cookies.name!r}, one for "
                    f"{other.engine.describe()} and one for {engine.describe()}: set another SOJOURN_COOKIE_NAME for one of "
                    "them, or hand one manager to both middlewares"
                )
        found = requests[engine.key] = kind(engine, cookies, peer)
    if isinstance(found, kind):
        return found
    if issubclass(kind, BlockingRequestSession):
        return BlockingLayer(found, engine)
    # The engine of the layer outside never suspends, so this one may go on with it.
    return AsyncLayer(found, found.engine if engine.io is StoreIO.ASYNC else engine)


class _Layer(ExtrasMapping, Generic[T]):
    """A request as the other kind of layer sees it."""

    __slots__ = ("_engine", "_request", "is_lazy")

    def __init__(self, request: RequestSession[T], engine: Engine[T]) -> None:
        self._request = request
        self._engine = engine
        self.is_lazy = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session if name in OF_THE_SESSION else self._request, name)

    @property
    def session(self) -> Session[T]:
        """See `RequestSession.session`."""
        return self._request.session


class AsyncLayer(_Layer[T]):
    """A request that a layer without an event loop began, for one under an event loop."""

    __slots__ = ()

    async def load(self) -> None:
        """See `AsyncRequestSession.load`."""
        await self._request.load_steps(self._engine)

    async def finish(self, status: int, persistent: bool | None = None, *, resend: bool = False) -> Ending:  # noqa: FBT001
        """See `AsyncRequestSession.finish`."""
        return await self._request.finish_steps(self._engine, status, persistent=persistent, resend=resend)

    finish_changed = finish

    async def close(self, error: BaseException | None = None) -> Ending:
        """See `AsyncRequestSession.close`."""
        self._request.layers -= 1
        return await self._request.close_steps(self._engine, error)


class BlockingLayer(_Layer[T]):
    """A request that a layer under an event loop began, for one without."""

    __slots__ = ()

    @property
    def session(self) -> Session[T]:
        """See `RequestSession.session`; opened now where the layer outside has not loaded it, on one of its `exclude`."""
        run_blocking(self._request.load_steps(self._engine))
        return self._request.session

    def load(self) -> None:
        """See `BlockingRequestSession.load`."""
        run_blocking(self._request.load_steps(self._engine))

    def finish(self, status: int, persistent: bool | None = None, *, resend: bool = False) -> Ending:  # noqa: FBT001
        """See `BlockingRequestSession.finish`."""
        return run_blocking(self._request.finish_steps(self._engine, status, persistent=persistent, resend=resend))

    def close(self, error: BaseException | None = None) -> Ending:
        """See `BlockingRequestSession.close`."""
        self._request.layers -= 1
        return run_blocking(self._request.close_steps(self._engine, error))


def request_of(request: object, key: object) -> RequestSession[Any]:
    """Return the session of a request under the key of a manager; ConfigurationError when there is none."""
    found = find(request).get(key)
    if found is None:
        msg = "this request passed a session middleware of another manager; hand this manager to SessionMiddleware"
        raise ConfigurationError(msg)
    return found


def find(request: object) -> MutableMapping[object, RequestSession[Any]]:
    """Return the sessions of a request: an ASGI scope, a WSGI environ, a mapping, or an object that has one."""
    looked_at: list[str] = []
    for name in _WHERE:
        candidate = getattr(request, name, None) if name else request
        if isinstance(candidate, dict | Mapping):
            surroundings = cast("Mapping[str, MutableMapping[object, RequestSession[Any]] | None]", candidate)
            requests = surroundings.get(REQUESTS_KEY)
            if requests is not None:
                return requests
            looked_at.append(f"its {name} holds none" if name else "as a mapping it holds none")
        elif candidate is not None and name:
            looked_at.append(f"its {name} is a {type(candidate).__name__}")
    seen = "; ".join(looked_at) or "it is no mapping and has no scope, environ or env"
    raise ConfigurationError(
        f"no session middleware has seen this {type(request).__name__} ({seen}): add sojourn.asgi.SessionMiddleware or "
        "sojourn.wsgi.SessionMiddleware with this manager, outside whatever asks for the session"
    )
