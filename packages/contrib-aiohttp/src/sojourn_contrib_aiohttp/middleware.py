"""The sessions of an aiohttp application: a middleware, and a signal that writes the headers before the head leaves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

from aiohttp import hdrs, web
from aiohttp.payload import AsyncIterablePayload

from sojourn import Session, SessionManager
from sojourn.adapters import (
    NOTHING,
    AsyncRequestSession,
    Ending,
    Peer,
    path_matches,
    require_manager,
    require_patterns,
    same_origin,
    site_of,
)
from sojourn.errors import ConfigurationError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SESSIONS: Final = web.AppKey("sojourn.sessions", SessionManager[Any])
"""Under this key of an application stands its manager."""

_log: Final = logging.getLogger("sojourn.aiohttp")
_SERVER_ERROR: Final = int(HTTPStatus.INTERNAL_SERVER_ERROR)
_FORWARDED: Final = ("x-forwarded-proto", "x-forwarded-host", "forwarded")
_ANSWERS: Final[dict[int, type[web.HTTPException]]] = {
    409: web.HTTPConflict,
    503: web.HTTPServiceUnavailable,
}


def setup(
    app: web.Application,
    sessions: SessionManager[Any],
    *,
    load: Literal["auto", "lazy"] = "auto",
    exclude: Sequence[str] = (),
) -> None:
    """Give *app*, and the applications below it, their sessions; paths that match *exclude* load none.

    With *load* "lazy" none is loaded before the handler: it asks `await get_session(request)`.

    The middleware stands where this is called: inside of those that were added before, which get a 503 in an outage or a 409
    as ``web.HTTPException``, and outside of those that are added later, which may use the session. Clean-up closes the manager.
    """
    require_manager(sessions)
    if load not in {"auto", "lazy"}:
        raise ConfigurationError(f'load is {load!r}; choose "auto" or "lazy"')
    layer = _Layer(sessions, require_patterns(exclude, name="exclude"), is_lazy=load == "lazy")
    app[SESSIONS] = sessions
    app.middlewares.append(layer.serve)
    app.on_response_prepare.append(layer.prepare)

    async def close(_: web.Application) -> None:
        await sessions.aclose()

    app.on_cleanup.append(close)


async def get_session(request: web.Request) -> Session[Any]:
    """Return the session of *request*; ``sessions.of(request)`` is the same with its type.

    Raises SessionUnavailableError in an outage under the strict policy, and ConfigurationError without `setup`.
    """
    return await sessions_of(request).get(request)


def sessions_of(request: web.Request) -> SessionManager[Any]:
    """Return the manager of the application of *request*."""
    sessions = request.app.get(SESSIONS)
    if sessions is None:
        sessions = request.config_dict.get(SESSIONS)  # of an application around; made anew for every request
    if sessions is None:
        msg = "the application of this request has no sessions: call setup(app, sessions) when it is made"
        raise ConfigurationError(msg)
    return sessions


class _Layer:
    """The middleware and the signal of one call of `setup`."""

    def __init__(self, sessions: SessionManager[Any], exclude: tuple[str, ...], *, is_lazy: bool = False) -> None:
        self.sessions = sessions
        self._exclude = exclude
        self._is_lazy = is_lazy
        self._key = f"sojourn.aiohttp.{id(self)}"
        self._has_stored = False

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Load the session, let the application answer, and commit before the head leaves."""
        cookies = request.headers.getall(hdrs.COOKIE, ())
        if self._has_stored:
            where: Any = request
            current = self.sessions.begin(where, cookies, partial(_peer, request))
            where[self._key] = current
        else:
            current = self._begin_first(request, cookies)
        # Without a cookie there is neither an origin to check nor anything to load.
        if cookies:
            if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket" and current.may_lead_to_session:
                self._check_origin(request)
            if not self._is_lazy and not path_matches(request.path, self._exclude):
                await current.load()
        try:
            response = await handler(request)
            # The very class first: aiohttp's responses are an abstract mapping, of which `isinstance` is slow to tell.
            if response.__class__ is not web.Response:
                response = _require_response(request, response)
            if not current.has_begun and current.finish_unchanged(response.status) is None:
                await self._finish(request, current, response)
            # What ended in nothing was not used, which is less to ask.
            if current.ending is not NOTHING and current.accessed and _is_stream(response) and not response.prepared:
                # aiohttp sends the body after the last middleware has returned; what it changes would be lost.
                await response.prepare(request)
                await response.write_eof()
        except web.HTTPException as raised:  # a response, too
            if not current.has_begun and current.finish_unchanged(raised.status) is None:
                await self._finish(request, current, raised)
            await current.close()
            raise
        except BaseException as error:
            has_gone = isinstance(error, ConnectionError) and (
                request.transport is None or request.transport.is_closing()
            )
            ending = await current.close(None if has_gone else error)
            if ending.error is None:
                raise
            raise _answer(request, ending) from ending.error
        if not current.close_unchanged():
            await current.close()
        return response

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write into the head what the session asks for; aiohttp calls it for every response, its error pages too."""
        # By the key, for `get` of a mapping is one more frame; only what never came to the middleware has none.
        try:
            current: AsyncRequestSession[Any] = request[self._key]
        except KeyError:
            return
        if current.ending is NOTHING and response.status < _SERVER_ERROR:
            return
        has_begun = current.has_begun
        ending = current.finish_unchanged(response.status) or await current.finish_changed(response.status)
        if ending.error is not None and not has_begun:
            raise _answer(request, ending, in_place_of=response) from ending.error
        if ending is NOTHING:
            return
        for name, value in ending.headers(lambda name: response.headers.getall(name, [])).items():
            response.headers[name] = value
        if ending.set_cookie is not None:
            own = f"{self.sessions.settings.cookie_name}="
            others = [line for line in response.headers.popall(hdrs.SET_COOKIE, []) if not line.startswith(own)]
            for line in (*others, ending.set_cookie):
                response.headers.add(hdrs.SET_COOKIE, line)

    async def _finish(
        self, request: web.Request, current: AsyncRequestSession[Any], response: web.StreamResponse
    ) -> None:
        """Commit for a response whose head has not left, so that another may leave in its place."""
        ending = await current.finish_changed(response.status)
        if ending.error is not None:
            raise _answer(request, ending) from ending.error

    def _begin_first(self, request: web.Request, cookies: Sequence[str]) -> AsyncRequestSession[Any]:
        """Begin without the warning that aiohttp gives, once for each key, of keys that are strings."""
        self._has_stored = True
        with warnings.catch_warnings():
            # Older releases have no other keys.
            warnings.simplefilter("ignore", web.NotAppKeyWarning)
            where: Any = request
            current = self.sessions.begin(where, cookies, partial(_peer, request))
            where[self._key] = current
        return current

    def _check_origin(self, request: web.Request) -> None:
        """Refuse a WebSocket handshake that carries the cookie from somewhere else (SECURITY R36, R52)."""
        settings, origins = self.sessions.settings, request.headers.getall(hdrs.ORIGIN, [])
        if not origins and (settings.is_relaxed or settings.allow_missing_origin):
            return
        if len(origins) == 1:
            forwarded = {name: request.headers.getall(name, []) for name in _FORWARDED}
            scheme, host = site_of(self.sessions, request.remote, forwarded)
            if same_origin(
                origins[0],
                scheme=scheme or request.scheme,
                host=request.headers.get(hdrs.HOST, "") if host is None else host,
                allowed=settings.allowed_origins,
            ):
                return
        _log.warning(
            "a WebSocket handshake with the cookie of a session was refused: its Origin is %a; name other origins in "
            "SOJOURN_ALLOWED_ORIGINS, let clients without one in by SOJOURN_ALLOW_MISSING_ORIGIN=true",
            ", ".join(origins)[:100],
        )
        raise web.HTTPForbidden(text="origin not allowed")


def _peer(request: web.Request) -> Peer:
    """Return who sent the request."""
    headers = request.headers
    return Peer(
        request.remote,
        headers.get(hdrs.USER_AGENT),
        headers.getall("x-forwarded-for", []),
        headers.getall("forwarded", []),
    )


def _require_response(request: web.Request, returned: object) -> web.StreamResponse:
    if isinstance(returned, web.StreamResponse):
        return returned
    msg = f"the handler of {request.method} {request.path} returned {returned!r} instead of a response"
    raise RuntimeError(msg)


def _is_stream(response: web.StreamResponse) -> bool:
    return isinstance(response, web.Response) and isinstance(response.body, AsyncIterablePayload)


def _answer(request: web.Request, ending: Ending, in_place_of: web.StreamResponse | None = None) -> web.HTTPException:
    """Return the response for the error of *ending*, as aiohttp's error middlewares expect it: an exception."""
    answer = ending.answer(",".join(request.headers.getall(hdrs.ACCEPT, [])))
    if answer is None:
        return web.HTTPInternalServerError()
    headers = {name: value for name, value in answer.headers if name.lower() != "content-length"}
    kind = _ANSWERS.get(answer.status, web.HTTPInternalServerError)
    response = kind(text=answer.body.decode(), headers=headers)
    if in_place_of is not None:
        # The writer has been told how the first body is framed, and frames this one in the same way.
        if in_place_of.headers.get(hdrs.TRANSFER_ENCODING) == "chunked":
            response.enable_chunked_encoding()
        coding = in_place_of.headers.get(hdrs.CONTENT_ENCODING)
        if in_place_of.compression and coding is not None:
            response.enable_compression(web.ContentCoding(coding))
    return response
