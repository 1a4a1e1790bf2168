"""FastAPI passes the scenarios that every adapter passes, on each kind of store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import Response, StreamingResponse
from starlette.requests import Request

from sojourn import Session, SessionManager
from sojourn.testing import AdapterSuite
from sojourn_contrib_fastapi import SessionDependency, install
from sojourn_testing.pages import Answer, Page, Visit
from tests.adapters.stores import InCookies, OnPostgres, OnRedis, OnSqlite


def response_of(answer: Answer) -> Response:
    if isinstance(answer.body, bytes):
        response = Response(answer.body, answer.status, media_type="application/json")
    else:
        response = StreamingResponse(answer.body, answer.status, media_type="application/json")
    for name, value in answer.headers:
        response.headers.append(name, value)
    return response


class InFastAPI(AdapterSuite):
    has_websockets = True

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        app = FastAPI()
        install(app, sessions)

        def mount(page: Page) -> None:
            async def endpoint(request: Request) -> Response:
                return response_of(page(lambda: sessions.of(request)))

            async def socket(websocket: WebSocket) -> None:
                answer = page(lambda: sessions.of(websocket))
                if answer.status != 101:
                    await websocket.send_denial_response(response_of(answer))
                    return
                await websocket.accept()
                await websocket.send_text(answer.text)
                await websocket.close()

            if page.is_socket:
                app.add_api_websocket_route(page.path, socket)
            else:
                app.add_route(page.path, endpoint, methods=["GET", "HEAD", "POST"])

        for page in pages:
            mount(page)
        return app


class ByDependency(AdapterSuite):
    """The session comes as a dependency, which is solved before the handler and outside of its `try`."""

    has_websockets = True

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        app = FastAPI()
        install(app, sessions)
        current = SessionDependency(sessions)

        def mount(page: Page) -> None:
            async def endpoint(session: Session[Visit] = Depends(current)) -> Response:  # noqa: B008
                return response_of(page(lambda: session))

            async def socket(websocket: WebSocket, session: Session[Visit] = Depends(current)) -> None:  # noqa: B008
                answer = page(lambda: session)
                if answer.status != 101:
                    await websocket.send_denial_response(response_of(answer))
                    return
                await websocket.accept()
                await websocket.send_text(answer.text)
                await websocket.close()

            async def plain(request: Request) -> Response:
                return response_of(page(lambda: sessions.of(request)))

            if page.is_socket:
                app.add_api_websocket_route(page.path, socket)
            elif page.path in {"/untouched", "/catch"}:
                app.add_route(page.path, plain, methods=["GET", "HEAD", "POST"])
            else:
                app.add_api_route(page.path, endpoint, methods=["GET", "HEAD", "POST"], response_model=None)

        for page in pages:
            mount(page)
        return app


class TestInMemory(InFastAPI):
    pass


class TestOnAStoreThatSuspends(InFastAPI):
    store_suspends = True


class TestByDependency(ByDependency):
    pass


class TestByDependencyOnAStoreThatSuspends(ByDependency):
    store_suspends = True


class TestInCookies(InCookies, InFastAPI):
    pass


class TestOnRedis(OnRedis, InFastAPI):
    pass


class TestOnSqlite(OnSqlite, InFastAPI):
    pass


class TestOnPostgres(OnPostgres, InFastAPI):
    pass
