"""The middleware that takes the place of ``django.contrib.sessions.middleware.SessionMiddleware``."""

# pyright: standard, reportAttributeAccessIssue=false
# Django carries no types.

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from http.cookies import Morsel, SimpleCookie
from inspect import isawaitable
from typing import Any, Final, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions import middleware
from django.core.exceptions import ImproperlyConfigured
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import get_callable, get_resolver, get_urlconf

from sojourn import CookieAction, CookieChange
from sojourn.adapters import NOTHING, Ending, Peer, path_matches, require_patterns
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn_contrib_django.engine import SessionStore, complete
from sojourn_contrib_django.manager import get_manager

_SERVER_ERROR: Final = 500
_CAN_PARTITION: Final = Morsel().isReservedKey("partitioned")
_log: Final = logging.getLogger("sojourn.django")


class SessionMiddleware(middleware.SessionMiddleware):
    """Give every request its session; it opens on first use, or before the view where the store has to be awaited.

    A subclass of Django's, which the admin's checks ask for (admin.E410). Nothing is stored, and no cookie set, for a
    response of 500 and above; a logout is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        if not issubclass(self.SessionStore, SessionStore):
            msg = (
                f'SESSION_ENGINE is {settings.SESSION_ENGINE!r}; write SESSION_ENGINE = "sojourn_contrib_django.engine"'
            )
            raise ImproperlyConfigured(msg)
        self.exclude = require_patterns(getattr(settings, "SOJOURN_EXCLUDE", ()), name="SOJOURN_EXCLUDE")

    # -- a request -------------------------------------------------------------------------------------------------

    def process_request(self, request: HttpRequest) -> None:
        """Begin the request."""
        self._begin(request, get_manager().blocking.begin)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request under an event loop."""
        current = self._begin(request, get_manager().begin)
        if not path_matches(request.path_info, self.exclude):
            await current.load()
        response: HttpResponseBase = await self.get_response(request)
        return await self._finish(request, response)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Commit, and say in the response what the browser has to do."""
        return complete(self._finish(request, response))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer a view that met an outage, without a traceback for each request."""
        if isinstance(exception, SessionUnavailableError):
            return _answer(request, Ending(error=exception, accessed=True))
        return None

    def _begin(self, request: HttpRequest, begin: Callable[..., Any]) -> Any:
        look = request.META.get
        name = get_manager().settings.cookie_name
        cookies = look("HTTP_COOKIE", "")
        if name in request.COOKIES and f"{name}=" not in cookies:  # a test has put it there
            cookies = f"{name}={request.COOKIES[name]}"
        # What tells the peer is taken out of the request, which holds its session.
        about = (look("REMOTE_ADDR"), look("HTTP_USER_AGENT"), look("HTTP_X_FORWARDED_FOR"), look("HTTP_FORWARDED"))
        current = begin(getattr(request, "scope", None) or request.META, cookies, partial(_peer, *about))
        request.session = self.SessionStore(current.token, current)
        return current

    # -- its end ---------------------------------------------------------------------------------------------------

    async def _finish(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        store = getattr(request, "session", None)
        if not isinstance(store, SessionStore):
            return response
        current, saves_always = store.request, settings.SESSION_SAVE_EVERY_REQUEST
        try:
            if saves_always and current.token is not None:
                await _result(current.load())
                store.touch()
            if response.status_code < _SERVER_ERROR or get_manager().settings.commit_on_error:
                store.write_back()
        except Exception as error:
            ending: Ending = await _result(current.close(error))
            if ending.error is None:
                raise
        else:
            resend = saves_always or not store.in_request
            ending = await _result(current.finish(response.status_code, resend=resend))
        if ending.error is not None:
            answer = sync_to_async(_answer) if self.async_mode else _answer
            return cast("HttpResponseBase", await _result(answer(request, ending)))
        if ending is not NOTHING:
            self._apply(ending, store, response)
        if store.former_hash is not None:
            await self._end_the_others(request, store)
        if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
            self._follow(request, store, response)
        return response

    def _apply(self, ending: Ending, store: SessionStore[Any], response: HttpResponseBase) -> None:
        headers = response.headers
        for name, value in ending.headers(lambda name: [headers[name]] if name in headers else []).items():
            headers[name] = value
        line = ending.set_cookie
        if line is None:
            return
        is_partitioned = "; Partitioned" in line
        morsel = next(iter(SimpleCookie(line.replace("; Partitioned", "")).values()))
        if is_partitioned and not _CAN_PARTITION:
            headers["Set-Cookie"] = line
        else:
            if is_partitioned:
                morsel["partitioned"] = True
            response.cookies[morsel.key] = morsel
        action = CookieAction.SET if morsel.value else CookieAction.CLEAR
        store.moved(CookieChange(action, morsel.value or None))

    async def _end_the_others(self, request: HttpRequest, store: SessionStore[Any]) -> None:
        """End the user's other sessions after a change of the password; not where SECRET_KEY alone is a new one."""
        user = getattr(request, "_cached_user", None) or getattr(request, "_acached_user", None)
        fallbacks = getattr(user, "get_session_auth_fallback_hash", tuple)
        session = store.typed
        if session.principal is None or store.former_hash in fallbacks():
            return
        manager = get_manager() if self.async_mode else get_manager().blocking
        try:
            await _result(manager.revoke_all(session.principal, except_id=session.id))
        except ConfigurationError:
            pass  # a store without an index: Django refuses the other sessions by their hash when they come
        except SessionUnavailableError as error:
            _log.warning("the password was changed, and the user's other sessions could not be ended now: %s", error)

    def _follow(self, request: HttpRequest, store: SessionStore[Any], response: StreamingHttpResponse) -> None:
        """Store what the rest of a stream changes."""
        current, is_async = store.request, response.is_async
        if self.async_mode and not is_async:  # Django reads it in a thread
            current = get_manager().blocking.begin(getattr(request, "scope", None) or request.META, "")

        def close(error: BaseException | None) -> Any:
            if error is None:
                store.write_back()
            return current.close(error)

        follow = cast("Callable[..., Any]", _each_awaited if is_async else _each)
        response.streaming_content = follow(response.streaming_content, close)


def _each(parts: Iterable[bytes], close: Callable[[BaseException | None], object]) -> Iterator[bytes]:
    try:
        yield from parts
    except BaseException as error:
        close(error)
        raise
    close(None)


async def _each_awaited(
    parts: AsyncIterator[bytes], close: Callable[[BaseException | None], object]
) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    except BaseException as error:
        await _result(close(error))
        raise
    await _result(close(None))


async def _result(value: Any) -> Any:
    """Return what a manager's method returns, of the blocking or of the other one."""
    return await value if isawaitable(value) else value


def _answer(request: HttpRequest, ending: Ending) -> HttpResponseBase:
    """Return handler503 or handler409 of the URLconf if there is one, else sojourn's answer; bugs are Django's to report."""
    answer = ending.answer(request.headers.get("Accept", ""), request.method or "GET")
    if answer is None or ending.error is None or answer.status == _SERVER_ERROR:
        raise ending.error or AssertionError
    headers = dict(answer.headers)
    handler = getattr(get_resolver(get_urlconf()).urlconf_module, f"handler{answer.status}", None)
    if handler is None:
        return HttpResponse(answer.body, status=answer.status, headers=headers)
    response = cast("HttpResponseBase", cast("Any", get_callable(handler))(request, exception=ending.error))
    response.status_code = answer.status
    for name, value in headers.items():
        if not name.lower().startswith("content-"):
            response.headers.setdefault(name, value)
    return response


def _peer(address: str | None, agent: str | None, x_forwarded_for: str | None, forwarded: str | None) -> Peer:
    return Peer(
        address or None, agent, (x_forwarded_for,) if x_forwarded_for else (), (forwarded,) if forwarded else ()
    )
