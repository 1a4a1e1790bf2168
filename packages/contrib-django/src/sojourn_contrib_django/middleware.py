"""The middleware that takes the place of ``django.contrib.sessions.middleware.SessionMiddleware``."""

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from http.cookies import SimpleCookie
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions import middleware
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import get_callable, get_resolver, get_urlconf

from sojourn.adapters import NOTHING, Ending, Peer, path_matches
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn_contrib_django.engine import SessionStore
from sojourn_contrib_django.manager import get_manager


class SessionMiddleware(middleware.SessionMiddleware):
    """Give every request its session; it opens on first use, or before the view where the store has to be awaited.

    A subclass of Django's, which the admin's checks ask for (admin.E410). Nothing is stored, and no cookie set, for a
    response of 500 and above; a logout is.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Begin the request."""
        self._begin(request, get_manager().blocking.begin)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request under an event loop."""
        current = self._begin(request, get_manager().begin)
        if not path_matches(request.path_info, getattr(settings, "SOJOURN_EXCLUDE", ())):
            await current.load()
        return await self._finish(request, await self.get_response(request))

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Commit, and say in the response what the browser has to do."""
        return _complete(self._finish(request, response))

    def process_exception(self, request: HttpRequest, exception: Any) -> HttpResponseBase | None:
        """Answer a view that met an outage, without a traceback for each request."""
        is_outage = isinstance(exception, SessionUnavailableError)
        return _answer(request, Ending(error=exception, accessed=True)) if is_outage else None

    def _begin(self, request: HttpRequest, begin: Callable[..., Any]) -> Any:
        """Begin, with the cookie that a test has put there; what tells the peer is taken out of the request, which holds it.

        Django parses the cookies when they are asked for, which is not done here: without a header there are none but
        those that were put there.
        """
        look, name = request.META.get, get_manager().settings.cookie_name
        given = request.__dict__.get("COOKIES", {}).get(name)
        cookies = look("HTTP_COOKIE") or (f"{name}={given}" if given else "")
        forwarded = [(line,) if line else () for line in (look("HTTP_X_FORWARDED_FOR"), look("HTTP_FORWARDED"))]
        peer = partial(Peer, look("REMOTE_ADDR") or None, look("HTTP_USER_AGENT"), *forwarded)
        current = begin(getattr(request, "scope", None) or request.META, cookies, peer)
        request.session = SessionStore(current.token, current)  # pyright: ignore[reportAttributeAccessIssue]
        return current

    async def _finish(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        store = getattr(request, "session", None)
        if not isinstance(store, SessionStore):
            return response
        current, saves_always = store.request, settings.SESSION_SAVE_EVERY_REQUEST
        try:
            if saves_always and current.token is not None:
                await _result(current.load())
                store.touch()
            resend = saves_always or not store.in_request
            ending = current.finish_unchanged(response.status_code, resend=resend) if store.is_as_read() else None
            if ending is None and (response.status_code < 500 or get_manager().settings.commit_on_error):
                store.write_back()
            ending = ending or await _result(current.finish(response.status_code, resend=resend))
        except Exception as error:
            ending = await _result(current.close(error))
            if ending.error is None:
                raise
        if ending.error is not None:
            return await _result((sync_to_async(_answer) if self.async_mode else _answer)(request, ending))
        if ending is not NOTHING:
            _apply(ending, store, response)
        if store.former_hash is not None:
            await self._end_the_others(request, store)
        if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
            self._follow(request, store, response)
        return response

    async def _end_the_others(self, request: HttpRequest, store: SessionStore[Any]) -> None:
        """End the user's other sessions after a change of the password; not where SECRET_KEY alone is a new one.

        In an outage, and in a store without an index, Django refuses them by their hash when they come.
        """
        user = getattr(request, "_cached_user", None) or getattr(request, "_acached_user", None)
        if store.former_hash in getattr(user, "get_session_auth_fallback_hash", tuple)():
            return
        manager = get_manager() if self.async_mode else get_manager().blocking
        try:
            await _result(manager.revoke_all(store.principal, except_id=store.id))
        except (ConfigurationError, SessionUnavailableError) as error:
            logging.getLogger("sojourn.django").info("the other sessions end when they come, by their hash: %s", error)

    def _follow(self, request: HttpRequest, store: SessionStore[Any], response: StreamingHttpResponse) -> None:
        """Store what the rest of a stream changes."""
        current: Any = store.request
        if self.async_mode and not response.is_async:  # Django reads it in a thread
            current = get_manager().blocking.begin(getattr(request, "scope", None) or request.META, "")

        def close(error: BaseException | None) -> Any:
            if error is None:
                store.write_back()
            return current.close(error)

        response.streaming_content = (_each_awaited if response.is_async else _each)(response.streaming_content, close)


def _each(parts: Any, close: Callable[..., object]) -> Iterator[bytes]:
    try:
        yield from parts
    except BaseException as error:
        close(error)
        raise
    close(None)


async def _each_awaited(parts: Any, close: Callable[..., object]) -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    except BaseException as error:
        await _result(close(error))
        raise
    await _result(close(None))


async def _result(value: Any) -> Any:
    """Return what a manager's method returns, of the blocking or of the other one."""
    return await value if hasattr(value, "__await__") else value


def _complete(steps: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that awaits nothing, since all it calls is blocking."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a blocking call of the session suspended")


def _apply(ending: Ending, store: SessionStore[Any], response: HttpResponseBase) -> None:
    """Add what the response has to say; before Python 3.14 no Morsel can say Partitioned."""
    headers, line = response.headers, ending.set_cookie
    for name, value in ending.headers(lambda name: [headers[name]] if name in headers else []).items():
        headers[name] = value
    if line is not None:
        cookie = SimpleCookie(line.replace("; Partitioned", ""))
        if "; Partitioned" in line:
            headers["Set-Cookie"] = line
        else:
            response.cookies |= cookie
        store.moved(next(iter(cookie.values())).value or None)


def _answer(request: HttpRequest, ending: Ending) -> HttpResponseBase:
    """Return handler503 or handler409 of the URLconf if there is one, else sojourn's answer; bugs are Django's to report."""
    answer = ending.answer(request.META.get("HTTP_ACCEPT", ""), request.method or "GET")
    if answer is None or ending.error is None or answer.status == 500:
        raise ending.error or AssertionError
    handler: Any = getattr(get_resolver(get_urlconf()).urlconf_module, f"handler{answer.status}", None)
    if handler is None:
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
    response: Any = get_callable(handler)(request, exception=ending.error)
    response.status_code = answer.status
    for name, value in answer.headers:
        if not name.lower().startswith("content-"):
            response.headers.setdefault(name, value)
    return response
