"""The site in Flask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request, stream_with_context

from sojourn_contrib_flask import Sojourn
from tests.real_servers.visitors import connected, shown

sessions = connected()
app = Flask("site")
sojourn = Sojourn(app, sessions)


@app.get("/healthz")
def health() -> str:
    return str(os.getpid())


@app.get("/")
def show() -> dict[str, Any]:
    return shown(sojourn.session)


@app.post("/login")
def login() -> dict[str, Any]:
    sojourn.session.data.name = request.args["name"]
    sojourn.session.login(request.args["name"])
    return shown(sojourn.session)


@app.post("/add")
def add() -> dict[str, Any]:
    sojourn.session.data.added.add(int(request.args["number"]))
    return shown(sojourn.session)


@app.post("/count")
def count() -> str:
    sojourn.session.data.count += 1
    return ""


@app.post("/late")
def late() -> Response:
    session, number = sojourn.session, int(request.args["number"])
    assert number not in session.data.added

    def parts() -> Iterator[str]:
        yield "on "
        session.data.added.add(number)
        yield "time"

    return Response(stream_with_context(parts()), mimetype="text/plain")
