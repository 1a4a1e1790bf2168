"""Flask passes the scenarios that every adapter passes, on each kind of store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, request

from sojourn import SessionManager
from sojourn.testing import AdapterSuite
from sojourn_contrib_flask import Sojourn
from sojourn_testing.pages import Page, Visit
from tests.adapters.stores import InCookies, OnBlockingPostgres, OnBlockingRedis, OnSqlite


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


class TestInCookies(InCookies, InFlask):
    pass


class TestOnRedis(OnBlockingRedis, InFlask):
    pass


class TestOnSqlite(OnSqlite, InFlask):
    pass


class TestOnPostgres(OnBlockingPostgres, InFlask):
    pass
