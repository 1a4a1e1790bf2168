"""Endpoints in tests, without a server: with a session that a request would have brought."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from starlette.requests import Request

from sojourn_contrib_azu_like.endpoint import Endpoint
from sojourn_contrib_azu_like.sessions import SessionHelpers

E = TypeVar("E", bound=Endpoint[Any, Any])


def with_session(
    endpoint: type[E],
    params: object = None,
    *,
    principal: str | None = None,
    data: object = None,
    headers: dict[str, str] | None = None,
) -> E:
    """Return an *endpoint* ready for ``await it.call()``, with *params* as its request and a new session.

    *principal* is logged in, with *data* as the content of the session. Nothing is stored: look at ``it.session`` afterwards.
    """
    lines = {"host": "testserver", "accept": "application/json", **(headers or {})}
    scope: dict[str, Any] = {
        "type": "http",
        "method": endpoint.method,
        "scheme": "http",
        "path": endpoint.path or "/",
        "root_path": "",
        "query_string": b"",
        "server": ("testserver", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in lines.items()],
    }
    made = endpoint(Request(scope))
    made.params = params
    if isinstance(made, SessionHelpers):
        helped = cast("SessionHelpers[Any]", made)
        helped.sessions.begin(scope, "")
        if principal is not None:
            helped.session.login(principal)
        if data is not None:
            helped.session.data = data
    return made
