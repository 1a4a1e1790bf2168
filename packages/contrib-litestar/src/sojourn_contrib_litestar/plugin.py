"""The plugin: the middleware, the dependency, answers through the application's exception handlers, and OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from litestar import Request, Response
from litestar.config.app import AppConfig
from litestar.di import NamedDependency, Provide
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, SerializationException
from litestar.exceptions.responses import (
    create_exception_response,  # pyright: ignore[reportUnknownVariableType]
)
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.serialization import decode_json, encode_json, get_serializer
from litestar.types import ASGIApp, Empty, Message, Receive, Scope, Send

from sojourn import Session, SessionManager
from sojourn.adapters import AsyncRequestSession, Ending, require_manager
from sojourn.asgi import SessionMiddleware
from sojourn.errors import (
    ConfigurationError,
    FreshLoginRequiredError,
    SessionConflictError,
    SessionUnavailableError,
    TooManySessionsError,
)
from sojourn_contrib_litestar.backend import SojournConfig
from sojourn_contrib_litestar.guards import Guard, too_old

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
Handlers = Mapping[int | type[Exception], Callable[..., Any]]

CurrentSession: TypeAlias = NamedDependency[Session[T]]
"""The type of a handler's parameter that takes the session: ``session: CurrentSession[UserSession]``."""

_RAISED: Final = (SessionUnavailableError, SessionConflictError, TooManySessionsError)
_HEADS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_PASSED_ON: Final = "sojourn.litestar.passed_on"
"""Under this key of a WebSocket's scope stands that its outage has been handed to the middleware."""


class SojournPlugin(InitPlugin, ReceiveRoutePlugin, Generic[T]):
    """Gives an application its sessions: ``Litestar(..., plugins=[SojournPlugin(sessions)])``.

    Handlers of both kinds and dependencies get the typed session as *dependency*, a `CurrentSession`. ``request.session`` is the same
    as a mapping, ``set_session`` replaces its extras, and ``clear_session`` logs out. *scheme_name* is what OpenAPI calls
    the cookie; *load* and *exclude* are those of ``sojourn.asgi.SessionMiddleware``, and routes whose `opt` has a true value under
    *exclude_opt_key* are excluded as well. Shutting down closes the manager.

    What keeps a response from leaving, a 503 in an outage or a 409, goes to the exception handlers of the route: the one for
    the error or a parent of it, else for the status, else for HTTPException; without one it is sojourn's answer.
    """

    def __init__(
        self,
        sessions: SessionManager[T],
        *,
        dependency: str = "session",
        scheme_name: str = "session",
        load: Literal["auto", "lazy"] = "auto",
        exclude: Sequence[str] = (),
        exclude_opt_key: str = "skip_session",
    ) -> None:
        require_manager(sessions)
        self.sessions = sessions
        self.dependency = dependency
        self.scheme_name = scheme_name
        self.session_config = SojournConfig(sessions)
        """For ``TestClient(app, session_config=...)``, whose helpers set and get the extras of its session."""
        self._middleware = DefineMiddleware(
            _Outside, sessions=sessions, load=load, exclude=exclude, exclude_opt_key=exclude_opt_key
        )

        async def provide(scope: Scope) -> Any:
            return await sessions.get(scope)

        self._provide = provide

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add what the application needs; Litestar calls it."""
        if self.dependency in app_config.dependencies:
            msg = (
                f"the application has a dependency called {self.dependency!r} already: write "
                'SojournPlugin(sessions, dependency="visit"), or another name, and use that in the handlers'
            )
            raise ConfigurationError(msg)
        app_config.dependencies[self.dependency] = Provide(self._provide)
        app_config.middleware[:0] = [self._middleware, _Inside]
        untyped = cast("Any", app_config)
        untyped.after_exception.insert(0, _pass_on)
        app_config.on_shutdown.append(self.sessions.aclose)
        for kind in _RAISED:
            untyped.exception_handlers.setdefault(kind, _raised)
        untyped.exception_handlers.setdefault(FreshLoginRequiredError, _too_old)
        app_config.type_encoders = {_Extras: dict, **(app_config.type_encoders or {})}
        if app_config.logging_config:
            # The log of an outage is sojourn's; a copy, because the application may share what it handed over.
            untyped.logging_config = copy(untyped.logging_config)
            untyped.logging_config.disable_stack_trace = {
                *untyped.logging_config.disable_stack_trace,
                *_with_children(_RAISED),
            }
        if app_config.openapi_config:
            app_config.openapi_config = copy(app_config.openapi_config)
            present = app_config.openapi_config.components
            app_config.openapi_config.components = [
                *(present if isinstance(present, list) else [present]),
                Components(security_schemes={self.scheme_name: self._scheme()}),
            ]
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Write the cookie, and what guards may answer, into the operations of *route*; Litestar calls it."""
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                self._describe(handler)

    def _describe(self, handler: HTTPRouteHandler) -> None:
        guards: list[Any] = [*cast("Any", handler).resolve_guards()]
        ours: list[Guard[Any]] = [
            guard for guard in guards if issubclass(type(guard), Guard) and guard.sessions is self.sessions
        ]
        requirement: dict[str, list[str]] = {self.scheme_name: []}
        if (not ours and not self._is_injected(handler)) or requirement in (handler.security or ()):
            return
        handler.security = [*(handler.security or ()), requirement]
        raised = [kind for guard in ours for kind in guard.raises]
        own = handler.responses or {}
        handler.raises = [
            *(handler.raises or ()),
            *(kind for kind in dict.fromkeys(raised) if kind.status_code not in own),
        ]
        handler.responses = {503: ResponseSpec(None, description="Sessions are unavailable; try again later"), **own}

    def _is_injected(self, handler: HTTPRouteHandler) -> bool:
        """Tell whether *handler*, or a dependency of it, takes the session."""
        providers = handler.resolve_dependencies()
        names, seen = [*handler.parsed_fn_signature.parameters], set[str]()
        while names:
            name = names.pop()
            if name in seen or name not in providers:
                continue
            seen.add(name)
            if providers[name].dependency is self._provide:
                return True
            names.extend(providers[name].parsed_fn_signature.parameters)
        return False

    def _scheme(self) -> SecurityScheme:
        name = self.sessions.settings.cookie_name
        return SecurityScheme(
            type="apiKey", name=name, security_scheme_in="cookie", description="The cookie of the session."
        )


class _Extras(MutableMapping[str, Any]):
    """``request.session`` as Litestar's encoders take it: what the middleware places is a struct to them, with all its fields.

    Other attributes are those of what it stands for.
    """

    __slots__ = ("_placed",)

    def __init__(self, placed: AsyncRequestSession[Any]) -> None:
        self._placed = placed

    def __getitem__(self, key: str) -> Any:
        return self._placed[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._placed[key] = value

    def __delitem__(self, key: str) -> None:
        del self._placed[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._placed)

    def __len__(self) -> int:
        return len(self._placed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._placed, name)


class _Outside:
    """The session's middleware; for routes that opt out of sessions one that loads none before it is asked to."""

    def __init__(
        self, app: ASGIApp, sessions: SessionManager[Any], *, exclude: Sequence[str], exclude_opt_key: str, load: Any
    ) -> None:
        make = partial(SessionMiddleware, cast("Any", app), sessions, load=load, answer=cast("Any", _answer))
        self._usual, self._without, self._key = make(exclude=exclude), make(exclude=("/*",)), exclude_opt_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opted_out = scope["route_handler"].opt.get(self._key)
        serve: Any = self._without if opted_out else self._usual
        await serve(scope, receive, send)


class _Inside:
    """Stands inside of the session's middleware and hands it what it may change and store."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        placed: Any = cast("dict[str, Any]", scope).get("session")
        extras: Any = _Extras(cast("Any", placed)) if isinstance(placed, AsyncRequestSession) else placed
        scope["session"] = extras

        def send_head(message: Message) -> Awaitable[None]:
            if message["type"] not in _HEADS:
                return send(message)
            value: Any = cast("dict[str, Any]", scope).get("session")
            if value is extras:
                scope["session"] = placed
            elif value is not None and value is not Empty and not isinstance(value, Mapping):
                scope["session"] = _as_dict(value, scope)
            # Its own headers: the response cache keeps the message, and would send the cookie to everybody.
            return send(cast("Message", {**message}))

        try:
            await self.app(scope, receive, send_head)
        finally:
            if scope["session"] is extras:
                scope["session"] = placed


def _as_dict(value: Any, scope: Scope) -> Any:
    """Return a model that was handed to set_session as the dict of its fields."""
    try:
        return decode_json(encode_json(value, get_serializer(scope["route_handler"].resolve_type_encoders())))
    except SerializationException:
        return value  # which the middleware refuses


async def _answer(scope: Scope, ending: Ending) -> ASGIApp | None:
    """Return what the application's handlers make of *ending*, or None where it has none."""
    request: AnyRequest = cast("Any", scope["litestar_app"]).request_class(scope)
    response = _handled(request, ending)
    if response is None:
        return None
    encoders = scope["route_handler"].resolve_type_encoders()
    return cast("ASGIApp", cast("Any", response).to_asgi_response(None, request, type_encoders=encoders))


def _raised(request: AnyRequest, error: Any) -> Response[Any]:
    """Answer an error of the session that a handler, a guard or a dependency let pass."""
    ending = Ending(error)
    response = _handled(request, ending)
    answer = ending.answer(request.headers.get("accept", ""))
    if response is not None or answer is None:
        return response or Response(None, status_code=500)
    headers = {name.lower(): value for name, value in answer.headers}
    headers.pop("content-length", None)
    return Response(
        answer.body, status_code=answer.status, media_type=headers.pop("content-type", None), headers=headers
    )


def _too_old(request: AnyRequest, error: Exception) -> Response[Any]:
    failure = too_old()
    failure.__cause__ = error
    handler = _handler_for(_handlers(request), failure)
    answer = cast("Any", handler or create_exception_response)
    response: Response[Any] = answer(request, failure)
    return response


def _handled(request: AnyRequest, ending: Ending) -> Response[Any] | None:
    error, answer = ending.error, ending.answer("text/plain")
    if error is None or answer is None:
        return None
    handlers = _handlers(request)
    for kind in type(error).__mro__:
        if kind is not Exception and (handler := handlers.get(kind)) not in {None, _raised}:
            return cast("Callable[..., Response[Any]]", handler)(request, error)
    headers = {name: value for name, value in answer.headers if not name.startswith("Content-")}
    failure = HTTPException(detail=answer.body.decode().strip(), status_code=answer.status, headers=headers)
    failure.__cause__ = error
    own = _handler_for(handlers, failure)
    return None if own is None else own(request, failure)


def _handlers(request: AnyRequest) -> Handlers:
    """Return the exception handlers of the route."""
    return cast("Handlers", cast("Any", request.scope["route_handler"]).resolve_exception_handlers())


def _handler_for(handlers: Handlers, failure: HTTPException) -> Callable[..., Response[Any]] | None:
    """Return the handler that the application registered for *failure*, as Litestar looks for it."""
    found = handlers.get(failure.status_code)
    return found or next((handlers[kind] for kind in type(failure).__mro__ if kind in handlers), None)


async def _pass_on(error: Exception, scope: Scope) -> None:
    """Let an outage in a WebSocket's handler through to the middleware, which closes with 1013; Litestar would with 4500."""
    state = cast("dict[str, Any]", scope)
    if scope["type"] == ScopeType.WEBSOCKET and isinstance(error, SessionUnavailableError) and _PASSED_ON not in state:
        state[_PASSED_ON] = True
        raise error


def _with_children(kinds: Iterable[type[Exception]]) -> set[type[Exception]]:
    found = {*kinds}
    for kind in kinds:
        found |= _with_children(kind.__subclasses__())
    return found
