"""A small application for the tests of endpoints: a library with sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import httpx
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette

from sojourn import MemoryStore, SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.settings import SessionSettings
from sojourn_contrib_azu_like import Endpoint, Redirect, SessionHelpers, Text, application, routes

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass
class Reader:
    name: str | None = None
    roles: list[str] = field(default_factory=list)


sessions = SessionManager(Reader, MemoryStore(), settings=SessionSettings(preset="testing", _env_file=None))


class LibraryEndpoint(Endpoint[Req, Res], SessionHelpers[Reader], Generic[Req, Res]):
    sessions = sessions
    signin_path: str | None = "/signin"


@dataclass
class Credentials:
    user: str
    roles: list[str] = field(default_factory=list)


class SignIn(LibraryEndpoint[Credentials, Redirect], path="/signin", method="POST"):
    async def call(self) -> Redirect:
        self.login(self.params.user)
        self.session.data.roles = self.params.roles
        self.flash.notice = f"Welcome, {self.params.user}"
        return Redirect("/")


class SignOut(LibraryEndpoint[None, Redirect], path="/signout", method="POST"):
    async def call(self) -> Redirect:
        self.logout()
        return Redirect("/")


class Home(LibraryEndpoint[None, Text], path="/"):
    async def call(self) -> Text:
        assert self.session is self.current_session
        return Text(f"{self.current_user_id} {self.authenticated} {self.flash.notice}")


class Desk(LibraryEndpoint[None, Text], path="/desk"):
    async def before(self) -> None:
        self.require_authentication()

    async def call(self) -> Text:
        return Text(f"the desk of {self.current_user_id}")


class Reading(LibraryEndpoint[None, Text], path="/reading"):
    async def call(self) -> Text:
        return Text(self.require_role("reader", "librarian"))


class Stock(LibraryEndpoint[None, Text], path="/stock"):
    async def call(self) -> Text:
        return Text(f"{self.require_role('librarian')} counts")


class Vault(LibraryEndpoint[None, Text], path="/vault"):
    signin_path = None

    def roles_of(self, data: Reader) -> Collection[str]:
        return "librarian" if data.name is None else ()

    async def call(self) -> Text:
        return Text(self.require_role("librarian"))


@dataclass
class Signed:
    csrf: str = ""


class Token(LibraryEndpoint[None, Text], path="/token"):
    async def call(self) -> Text:
        return Text(self.session.csrf_token())


class Donate(LibraryEndpoint[Signed, Text], path="/donate", method="POST"):
    async def call(self) -> Text:
        self.require_csrf(self.params.csrf)
        return Text("thank you")


ENDPOINTS = (SignIn, SignOut, Home, Desk, Reading, Stock, Vault, Token, Donate)


def in_fastapi(*endpoints: type[Endpoint[Any, Any]]) -> FastAPI:
    app = FastAPI()
    for endpoint in endpoints:
        app.add_api_route(**endpoint.operation())
    return app


def in_litestar(*endpoints: type[Endpoint[Any, Any]]) -> Litestar:
    return Litestar(
        [asgi("/", is_mount=True, copy_scope=False)(application(*endpoints))], logging_config=None, openapi_config=None
    )


FRAMEWORKS: dict[str, Callable[..., Any]] = {
    "starlette": lambda *endpoints: Starlette(routes=routes(*endpoints)),
    "fastapi": in_fastapi,
    "litestar": in_litestar,
}


class Visitor:
    """One visitor of an application: keeps cookies, follows no redirects."""

    def __init__(self, client: httpx.AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner
        self.cookies = client.cookies

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@contextmanager
def visitor(
    *endpoints: type[Endpoint[Any, Any]], load: Literal["auto", "lazy"] = "auto", framework: str = "starlette"
) -> Iterator[Visitor]:
    """Serve the *endpoints*, by default the library, to one visitor."""
    app = SessionMiddleware(FRAMEWORKS[framework](*(endpoints or ENDPOINTS)), sessions, load=load)
    with serve(app) as client:
        yield client


@contextmanager
def serve(app: Any) -> Iterator[Visitor]:
    transport = httpx.ASGITransport(app=app)
    with asyncio.Runner() as runner:
        client = httpx.AsyncClient(transport=transport, base_url="http://testserver")
        try:
            yield Visitor(client, runner)
        finally:
            runner.run(client.aclose())
