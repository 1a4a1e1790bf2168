"""Flask passes the scenarios that every adapter passes, on each kind of store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from flask import Flask, Response, request

from sojourn import ClientSideStore, SessionManager, Store
from sojourn.testing import AdapterSuite
from sojourn_contrib_flask import Sojourn
from sojourn_store_cookie import CookieStore
from sojourn_store_redis import RedisStore
from sojourn_testing.adapters import Page, Visit
from tests.servers import RedisServer


class InFlask(AdapterSuite):
    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        app = Flask("scenarios")
        Sojourn(app, sessions)

        def add(page: Page) -> None:
            def view() -> Response:
                here = request.environ
                answer = page(lambda: sessions.of(here))
                return Response(answer.body, int(answer.status), list(answer.headers), content_type="application/json")

            app.add_url_rule(page.path, page.path, view, methods=["GET", "POST"])

        for page in pages:
            if not page.is_socket:
                add(page)
        return app


class TestInMemory(InFlask):
    pass


class TestInCookies(InFlask):
    def make_store(self) -> ClientSideStore:
        return CookieStore()


@pytest.mark.server
class TestOnRedis(InFlask):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        redis_server.start_if_stopped()
        redis_server.flush()
        self.url = redis_server.url

    def make_store(self) -> Store:
        return RedisStore(redis.Redis.from_url(self.url))
