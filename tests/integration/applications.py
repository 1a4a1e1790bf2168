"""One application in five dresses: the same handlers under plain ASGI, Starlette, FastAPI, plain WSGI and Flask.

A handler gets the way to its session and answers with JSON; it never knows what it runs under.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import flask
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn import Session, SessionManager, asgi, wsgi
from sojourn.errors import SojournError
from tests.core.models import Visit

ASGI = ("asgi", "starlette", "fastapi")
WSGI = ("wsgi", "flask")


@dataclass
class Answer:
    value: Any = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


Open = Callable[[], Session[Visit]]
Handler = Callable[[Open, str], Answer]


def untouched(_: Open, __: str) -> Answer:
    return Answer("x")


def read(open_: Open, _: str) -> Answer:
    session = open_()
    return Answer(
        {
            "principal": session.principal,
            "count": session.data.count,
            "cart": session.data.cart,
            "extras": dict(session),
            "outcome": session.outcome.value,
        }
    )


def count(open_: Open, _: str) -> Answer:
    session = open_()
    session.data.count += 1
    return Answer(session.data.count)


def put(open_: Open, item: str) -> Answer:
    cart = open_().data.cart
    cart.append(item)
    return Answer(cart)


def fill(open_: Open, size: str) -> Answer:
    """Put into the session what does not compress."""
    import base64
    import random

    open_().data.note = base64.b64encode(random.Random(1).randbytes(int(size))).decode()
    return Answer()


def login(open_: Open, principal: str) -> Answer:
    open_().login(principal)
    return Answer(principal)


def rotate(open_: Open, _: str) -> Answer:
    open_().rotate()
    return Answer()


def logout(open_: Open, _: str) -> Answer:
    open_().logout()
    return Answer()


def say(open_: Open, text: str) -> Answer:
    open_().flash["notice"] = text
    return Answer()


def hear(open_: Open, _: str) -> Answer:
    return Answer(open_().flash.get("notice"))


def extra(open_: Open, value: str) -> Answer:
    open_()["extra"] = [value]
    return Answer()


def destroy(open_: Open, _: str) -> Answer:
    session = open_()
    session.destroy()
    try:
        session["late"] = 1
    except SojournError as error:
        return Answer(type(error).__name__)
    return Answer("was written")


def raise_(open_: Open, _: str) -> Answer:
    open_().data.count = 100
    raise ValueError("the application has a bug")


def fail(open_: Open, _: str) -> Answer:
    open_().data.count = 100
    return Answer("sorry", 500)


def fail_after_logout(open_: Open, _: str) -> Answer:
    open_().logout()
    return Answer("sorry", 500)


def raise_after_logout(open_: Open, _: str) -> Answer:
    open_().logout()
    raise ValueError("the goodbye page has a bug")


def public(open_: Open, _: str) -> Answer:
    open_().data.count += 1
    return Answer("x", headers=(("Cache-Control", "public, max-age=60"), ("Vary", "Accept")))


def private(open_: Open, _: str) -> Answer:
    open_().data.count += 1
    return Answer("x", headers=(("Cache-Control", "no-store"), ("Vary", "Accept, cookie")))


HANDLERS: dict[str, Handler] = {
    "/untouched": untouched,
    "/static/untouched": untouched,
    "/read": read,
    "/count": count,
    "/put": put,
    "/fill": fill,
    "/login": login,
    "/rotate": rotate,
    "/logout": logout,
    "/say": say,
    "/hear": hear,
    "/extra": extra,
    "/destroy": destroy,
    "/raise": raise_,
    "/fail": fail,
    "/fail-after-logout": fail_after_logout,
    "/raise-after-logout": raise_after_logout,
    "/public": public,
    "/private": private,
}


def make_application(dress: str, sessions: SessionManager[Visit], **options: Any) -> Callable[..., Any]:
    """Return the application in one *dress*, with its session middleware."""
    makers = {"asgi": _asgi, "starlette": _starlette, "fastapi": _fastapi, "wsgi": _wsgi, "flask": _flask}
    return makers[dress](sessions, options)


def _argument(query: bytes | str) -> str:
    return query.decode() if isinstance(query, bytes) else query


def _asgi(sessions: SessionManager[Visit], options: dict[str, Any]) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        answer = HANDLERS[scope["path"]](lambda: sessions.of(scope), _argument(scope["query_string"]))
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer.value).encode()})

    return asgi.SessionMiddleware(app, sessions, **options)


def _endpoint(sessions: SessionManager[Visit], handler: Handler) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        answer = handler(lambda: sessions.of(request), _argument(request.scope["query_string"]))
        return JSONResponse(answer.value, answer.status, dict(answer.headers))

    return endpoint


def _starlette(sessions: SessionManager[Visit], options: dict[str, Any]) -> Callable[..., Any]:
    methods = ["GET", "POST"]
    app = Starlette(
        routes=[Route(path, _endpoint(sessions, handler), methods=methods) for path, handler in HANDLERS.items()]
    )
    app.add_middleware(asgi.SessionMiddleware, sessions=sessions, **options)
    return app


def _fastapi(sessions: SessionManager[Visit], options: dict[str, Any]) -> Callable[..., Any]:
    app = FastAPI()

    def opener(request: Request) -> Open:
        return lambda: sessions.of(request)

    def add(path: str, handler: Handler) -> None:
        def endpoint(request: Request, open_: Annotated[Any, Depends(opener)]) -> Response:
            answer = handler(open_, _argument(request.scope["query_string"]))
            return JSONResponse(answer.value, answer.status, dict(answer.headers))

        endpoint.__annotations__ = {"request": Request, "open_": Annotated[Any, Depends(opener)], "return": None}
        app.add_api_route(path, endpoint, methods=["GET", "POST"], response_model=None)

    for path, handler in HANDLERS.items():
        add(path, handler)
    app.add_middleware(asgi.SessionMiddleware, sessions=sessions, **options)
    return app


def _wsgi(sessions: SessionManager[Visit], options: dict[str, Any]) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer = HANDLERS[environ["PATH_INFO"]](lambda: sessions.of(environ), environ["QUERY_STRING"])
        start_response(f"{answer.status} X", list(answer.headers))
        return [json.dumps(answer.value).encode()]

    return wsgi.SessionMiddleware(app, sessions, **options)


def _flask(sessions: SessionManager[Visit], options: dict[str, Any]) -> Callable[..., Any]:
    app = flask.Flask("shop")

    def add(path: str, handler: Handler) -> None:
        def endpoint() -> flask.Response:
            answer = handler(lambda: sessions.of(flask.request), _argument(flask.request.query_string))
            response = flask.make_response(json.dumps(answer.value), answer.status)
            response.headers.extend(dict(answer.headers))
            return response

        app.add_url_rule(path, path, endpoint, methods=["GET", "POST"])

    for path, handler in HANDLERS.items():
        add(path, handler)
    app.wsgi_app = wsgi.SessionMiddleware(app.wsgi_app, sessions, **options)  # type: ignore[method-assign]
    return app
