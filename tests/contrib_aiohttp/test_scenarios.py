"""aiohttp passes the scenarios that every adapter passes, on each kind of store and behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from sojourn import SessionManager
from sojourn.testing import AdapterSuite
from sojourn_contrib_aiohttp import setup
from sojourn_testing.adapters import Site
from sojourn_testing.pages import Page, Visit
from tests.adapters.stores import InCookies, OnPostgres, OnRedis, OnSqlite
from tests.contrib_aiohttp.bridge import Bridge


class InAiohttp(AdapterSuite):
    layers = 1
    streams_itself = True

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        def handler_of(page: Page) -> Any:
            async def handle(request: web.Request) -> web.StreamResponse:
                answer = page(lambda: sessions.of(request))
                headers = {"Content-Type": "application/json", **dict(answer.headers)}
                body = answer.body
                if isinstance(body, bytes):
                    return web.Response(body=body, status=int(answer.status), headers=headers)
                if not self.streams_itself:

                    async def chunks() -> AsyncIterator[bytes]:
                        for chunk in body:
                            yield chunk

                    return web.Response(body=chunks(), status=int(answer.status), headers=headers)
                response = web.StreamResponse(status=int(answer.status), headers=headers)
                await response.prepare(request)
                for chunk in body:
                    await response.write(chunk)
                return response

            return handle

        def make() -> web.Application:
            app = web.Application()
            for _ in range(self.layers):
                setup(app, sessions)
            for page in pages:
                if not page.is_socket:
                    app.router.add_get(page.path, handler_of(page))
                    app.router.add_post(page.path, handler_of(page))
            return app

        return Bridge(make)

    @contextmanager
    def site(self, *, layered: bool = False, **settings: Any) -> Generator[Site]:
        self.layers = 2 if layered else 1
        with super().site(**settings) as site:
            yield site


class TestInMemory(InAiohttp):
    pass


class TestOnAStoreThatSuspends(InAiohttp):
    store_suspends = True


class TestBodiesThatAiohttpStreams(InAiohttp):
    store_suspends = True
    streams_itself = False


class TestInCookies(InCookies, InAiohttp):
    pass


class TestOnRedis(OnRedis, InAiohttp):
    pass


class TestOnSqlite(OnSqlite, InAiohttp):
    pass


@pytest.mark.long
class TestOnPostgres(OnPostgres, InAiohttp):
    pass
