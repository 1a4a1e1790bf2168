"""Litestar passes the scenarios that every adapter passes, on each kind of store."""

# Litestar reads annotations that name what is local to a function, so they are no strings here.
from collections.abc import Sequence
from typing import Any

import pytest
from litestar import Litestar, Request, Response, WebSocket
from litestar.handlers import HTTPRouteHandler, WebsocketRouteHandler
from litestar.response import Stream

from sojourn import SessionManager
from sojourn.testing import AdapterSuite
from sojourn_contrib_litestar import CurrentSession, SojournPlugin
from sojourn_testing.pages import Answer, Page, Visit
from tests.adapters.stores import InCookies, OnPostgres, OnRedis, OnSqlite


def response_of(answer: Answer) -> Response[Any]:
    kind: Any = Response if isinstance(answer.body, bytes) else Stream
    response: Response[Any] = kind(
        answer.body, status_code=int(answer.status), media_type="application/json", headers=dict(answer.headers)
    )
    return response


async def answer_socket(socket: WebSocket[Any, Any, Any], answer: Answer) -> None:
    if answer.status != 101:
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        head: Any = {"type": "websocket.http.response.start", "status": int(answer.status), "headers": headers}
        body: Any = {"type": "websocket.http.response.body", "body": answer.body}
        await socket.send(head)
        await socket.send(body)
        return
    await socket.accept()
    await socket.send_text(answer.text)
    await socket.close()


class InLitestar(AdapterSuite):
    has_websockets = True

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        def handler_for(page: Page) -> Any:
            async def endpoint(request: Request[Any, Any, Any]) -> Response[Any]:
                return response_of(page(lambda: sessions.of(request)))

            async def at_socket(socket: WebSocket[Any, Any, Any]) -> None:
                await answer_socket(socket, page(lambda: sessions.of(socket)))

            if page.is_socket:
                return WebsocketRouteHandler(page.path)(at_socket)
            return HTTPRouteHandler(page.path, http_method=["GET", "HEAD", "POST"], status_code=200)(endpoint)

        return Litestar(
            [handler_for(page) for page in pages],
            plugins=[SojournPlugin(sessions)],
            logging_config=None,
            openapi_config=None,
        )


class ByDependency(AdapterSuite):
    """The session comes as a dependency, which is provided before the handler and outside of its `try`."""

    has_websockets = True

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        def handler_for(page: Page) -> Any:
            async def endpoint(session: CurrentSession[Visit]) -> Response[Any]:
                return response_of(page(lambda: session))

            async def plain(request: Request[Any, Any, Any]) -> Response[Any]:
                return response_of(page(lambda: sessions.of(request)))

            async def at_socket(socket: WebSocket[Any, Any, Any], session: CurrentSession[Visit]) -> None:
                await answer_socket(socket, page(lambda: session))

            if page.is_socket:
                return WebsocketRouteHandler(page.path)(at_socket)
            function = plain if page.path in {"/untouched", "/catch"} else endpoint
            return HTTPRouteHandler(page.path, http_method=["GET", "HEAD", "POST"], status_code=200)(function)

        return Litestar(
            [handler_for(page) for page in pages],
            plugins=[SojournPlugin(sessions)],
            logging_config=None,
            openapi_config=None,
        )


class TestInMemory(InLitestar):
    pass


class TestOnAStoreThatSuspends(InLitestar):
    store_suspends = True


class TestByDependency(ByDependency):
    pass


class TestByDependencyOnAStoreThatSuspends(ByDependency):
    store_suspends = True


class TestInCookies(InCookies, InLitestar):
    pass


class TestOnRedis(OnRedis, InLitestar):
    pass


class TestOnSqlite(OnSqlite, InLitestar):
    pass


@pytest.mark.long
class TestOnPostgres(OnPostgres, InLitestar):
    pass
