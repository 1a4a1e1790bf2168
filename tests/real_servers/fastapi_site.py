"""The site in FastAPI."""

# Without `from __future__ import annotations`: FastAPI reads those of the endpoints.
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from sojourn import Session
from sojourn_contrib_fastapi import SessionDependency, install
from tests.real_servers.visitors import Visitor, connected, shown

sessions = connected()
app = FastAPI()
install(app, sessions)

CurrentSession = Annotated[Session[Visitor], Depends(SessionDependency(sessions))]


@app.get("/healthz")
async def health() -> str:
    return str(os.getpid())


@app.get("/")
async def show(session: CurrentSession) -> dict[str, Any]:
    return shown(session)


@app.post("/login")
async def login(session: CurrentSession, name: str) -> dict[str, Any]:
    session.data.name = name
    session.login(name)
    return shown(session)


@app.post("/add")
async def add(session: CurrentSession, number: int) -> dict[str, Any]:
    session.data.added.add(number)
    return shown(session)


@app.post("/count")
async def count(session: CurrentSession) -> None:
    session.data.count += 1


@app.post("/count-in-a-thread")
def count_in_a_thread(session: CurrentSession) -> None:
    session.data.count += 1


@app.post("/late")
async def late(session: CurrentSession, number: int) -> StreamingResponse:
    assert number not in session.data.added

    async def parts() -> AsyncIterator[str]:
        yield "on "
        session.data.added.add(number)
        yield "time"

    return StreamingResponse(parts(), media_type="text/plain")
