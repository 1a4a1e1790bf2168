"""The sessions of a FastAPI application: the middleware, its answers through the application's handlers, and OpenAPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, Final, Literal, cast

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from sojourn import SessionManager
from sojourn.adapters import Ending, require_manager
from sojourn.asgi import SessionMiddleware
from sojourn.errors import (
    ConfigurationError,
    FreshLoginRequiredError,
    SessionConflictError,
    SessionUnavailableError,
    TooManySessionsError,
)
from sojourn_contrib_fastapi.dependencies import STATUSES

_RAISED: Final = (SessionUnavailableError, SessionConflictError, TooManySessionsError)
_DESCRIPTIONS: Final = {
    "401": "Nobody is logged in, or the last login is too long ago",
    "403": "Not allowed: a role or the token of a form is missing",
    "503": "Sessions are unavailable; try again later",
}


def install(
    app: FastAPI,
    sessions: SessionManager[Any],
    *,
    load: Literal["auto", "lazy"] = "auto",
    exclude: Sequence[str] = (),
) -> None:
    """Give *app* its sessions; *load* and *exclude* are those of ``sojourn.asgi.SessionMiddleware``.

    The middleware stands inside of all others, whenever they are added, so that those that add headers (CORS) add them to
    its answers too. Where another middleware uses the session, put ``sojourn.asgi.SessionMiddleware`` around that as well.

    What keeps a response from leaving, a 503 in an outage or a 409, goes to the application's exception handlers: the one
    for the error or a parent of it, else for the status, else for HTTPException; without one it is sojourn's answer.
    """
    require_manager(sessions)
    if app.middleware_stack is not None:
        raise ConfigurationError("the application has served requests already; call install() when it is made")
    middleware = Middleware(
        SessionMiddleware, sessions=sessions, load=load, exclude=exclude, answer=partial(_answer, app)
    )
    app.user_middleware.append(middleware)
    for kind in _RAISED:
        app.exception_handlers.setdefault(kind, _raised)
    app.exception_handlers.setdefault(FreshLoginRequiredError, _too_old)
    generate = app.openapi
    app.openapi = lambda: _completed(generate())  # type: ignore[method-assign]


async def _answer(app: FastAPI, scope: Any, ending: Ending) -> Response | None:
    """Return what the application's handlers make of *ending*, or None where it has none."""
    return await _handled(app, Request(scope), ending)


async def _raised(request: Request, error: Exception) -> Response:
    """Answer an error of the session that a handler or a dependency let pass."""
    if request.scope["type"] != "http":
        raise error  # the middleware closes the WebSocket with 1013
    ending = Ending(cast("SessionUnavailableError", error))
    response = await _handled(request.app, request, ending)
    answer = ending.answer(request.headers.get("accept", ""), request.method)
    if response is not None or answer is None:
        return response or Response(status_code=HTTPStatus.INTERNAL_SERVER_ERROR)
    return Response(answer.body, answer.status, dict(answer.headers))


async def _too_old(request: Request, error: Exception) -> Response:
    failure = HTTPException(401, str(error), {"WWW-Authenticate": "Cookie"})
    handler = _handler_for(request.app, failure) or http_exception_handler
    return await _call(handler, request, failure)


async def _handled(app: FastAPI, request: Request, ending: Ending) -> Response | None:
    error, answer = ending.error, ending.answer("text/plain")
    if error is None or answer is None:
        return None
    handlers = app.exception_handlers
    for kind in type(error).__mro__:
        if kind is not Exception and (handler := handlers.get(kind)) not in {None, _raised}:
            return await _call(handler, request, error)
    headers = {name: value for name, value in answer.headers if not name.startswith("Content-")}
    failure = HTTPException(answer.status, answer.body.decode().strip(), headers)
    failure.__cause__ = error
    own = _handler_for(app, failure)
    return None if own is None else await _call(own, request, failure)


def _handler_for(app: FastAPI, failure: HTTPException) -> Callable[..., Any] | None:
    """Return the handler that the application registered for *failure*; None where it has FastAPI's own only."""
    handlers = cast("dict[Any, Callable[..., Any]]", app.exception_handlers)
    for key in (failure.status_code, HTTPException, StarletteHTTPException):
        handler = handlers.get(key)
        if handler is not None and handler is not http_exception_handler:
            return handler
    return None


async def _call(handler: Any, request: Request, error: Exception) -> Response:
    if iscoroutinefunction(handler):
        return cast("Response", await handler(request, error))
    return cast("Response", await run_in_threadpool(handler, request, error))


def _completed(schema: dict[str, Any]) -> dict[str, Any]:
    """Write the statuses of guards into the operations of *schema*, and their schemes back to one for the cookie."""
    schemes: dict[str, Any] = schema.get("components", {}).get("securitySchemes", {})
    for name, scheme in [*schemes.items()]:
        base, suffix = _parts(name)
        if suffix:
            del schemes[name]
            schemes.setdefault(base, scheme)
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            if isinstance(operation, dict):
                _complete(cast("dict[str, Any]", operation), schemes)
    return schema


def _complete(operation: dict[str, Any], schemes: dict[str, Any]) -> None:
    requirements: list[dict[str, list[str]]] = operation.get("security", [])
    ours: list[dict[str, list[str]]] = []
    for requirement in requirements:
        for name in requirement:
            base, suffix = _parts(name)
            if base in schemes and schemes[base].get("description") == "The cookie of the session.":
                for status in STATUSES[suffix]:
                    operation["responses"].setdefault(str(status), {"description": _DESCRIPTIONS[str(status)]})
        renamed = {_parts(name)[0]: scopes for name, scopes in requirement.items()}
        if renamed not in ours:
            ours.append(renamed)
    if requirements:
        operation["security"] = ours


def _parts(name: str) -> tuple[str, str]:
    """Return the name of a scheme without what a guard adds to it, and that."""
    base, dot, suffix = name.rpartition(".")
    return (base, f".{suffix}") if dot and f".{suffix}" in STATUSES else (name, "")
