"""One operation, done straight through the manager or as a request through a middleware.

What the client notes is what it was told; nothing of the store is looked at behind the product's back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from sojourn import Session, SessionManager
from sojourn.crypto import token_id
from sojourn.errors import SessionConflictError, SessionUnavailableError
from sojourn.session.transitions import CookieChange, LoadOutcome, SessionState
from verification.history.model import Basket, look, write
from verification.history.plan import Kind, Step, owner_of
from verification.history.recorder import CONFLICT, LOST, UNAVAILABLE, UNKNOWN, Row

_WHOLE = frozenset({Kind.LOGIN, Kind.ROTATE, Kind.LOGOUT, Kind.DESTROY})


class Side(Protocol):
    """The manager as a client uses it, whichever way it waits."""

    async def open(self, token: str | None) -> Session[Basket]: ...
    async def commit(self, session: Session[Basket]) -> CookieChange: ...
    async def revoke(self, id: str) -> bool: ...
    async def revoke_all(self, principal: str, except_id: str | None) -> int: ...
    async def pause(self, seconds: float) -> None: ...


class AsyncSide:
    """The manager, awaited."""

    def __init__(self, sessions: SessionManager[Basket]) -> None:
        self._sessions = sessions
        self.commit = sessions.commit
        self.revoke = sessions.revoke
        self.revoke_all = sessions.revoke_all

    async def open(self, token: str | None) -> Session[Basket]:
        return await self._sessions.open(token)

    async def pause(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)


class BlockingSide:
    """``manager.blocking``; its methods never suspend."""

    def __init__(self, sessions: SessionManager[Basket]) -> None:
        self._sessions = sessions.blocking

    async def open(self, token: str | None) -> Session[Basket]:
        return self._sessions.open(token)

    async def commit(self, session: Session[Basket]) -> CookieChange:
        return self._sessions.commit(session)

    async def revoke(self, id: str) -> bool:
        return self._sessions.revoke(id)

    async def revoke_all(self, principal: str, except_id: str | None) -> int:
        return self._sessions.revoke_all(principal, except_id)

    async def pause(self, seconds: float) -> None:
        if seconds:
            time.sleep(seconds)


async def do(side: Side, step: Step, row: Row) -> None:
    """Do *step* through the manager and note in *row* what came of it."""
    try:
        if step.kind in (Kind.REVOKE, Kind.REVOKE_ALL):
            row.answer = await revoke(side, step, row)
            return
        session = await side.open(row.token or None)
        row.before = look(session, whole=step.kind in _WHOLE)
        if session.outcome is LoadOutcome.UNAVAILABLE:
            row.result = UNAVAILABLE
        act(session, step)
        await side.pause(step.pause)
        change = await side.commit(session)
        row.cookie, row.new_token = change.action.value, change.token or ""
        if session.state is SessionState.LOADED:
            row.after = look(session, whole=step.kind in _WHOLE)
        elif session.state is SessionState.DESTROYED and step.kind is not Kind.DESTROY:
            row.result = LOST
    except SessionUnavailableError as error:
        failed(row, error)
    except SessionConflictError as error:
        row.result, row.error = CONFLICT, type(error).__name__


async def revoke(side: Side, step: Step, row: Row) -> int:
    """End the session of the token that the jar held, or all of an account."""
    if step.kind is Kind.REVOKE:
        return int(await side.revoke(token_id(row.token))) if row.token else -1
    return await side.revoke_all(step.account, token_id(row.spared) if row.spared else None)


def act(session: Session[Basket], step: Step) -> None:
    """Do to the session what *step* says, as a handler would."""
    match step.kind:
        case Kind.READ | Kind.REVOKE | Kind.REVOKE_ALL:
            return
        case Kind.LOGOUT:
            session.logout()
            return
        case Kind.DESTROY:
            session.destroy()
            return
        case Kind.LOGIN:
            session.login(step.account)
            session.data.account = step.account
        case Kind.ROTATE:
            session.rotate()
        case Kind.WRITE:
            pass
    write(session.data, step.number, owner_of(step.browser), step.weight)


def failed(row: Row, error: BaseException) -> None:
    """Note an outage, or that the client has gone: before the session was open nothing can have been changed."""
    row.error = type(error).__name__
    opened = row.before is not None and row.before.outcome != LoadOutcome.UNAVAILABLE.value
    row.result = UNKNOWN if opened or row.kind in (Kind.REVOKE.value, Kind.REVOKE_ALL.value) else UNAVAILABLE


def asgi_application(sessions: SessionManager[Basket]) -> Callable[..., Awaitable[None]]:
    """Return the application behind the ASGI middleware; step and row come with the scope."""
    side = AsyncSide(sessions)

    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        step, row = scope["history.step"], scope["history.row"]
        if step.kind in (Kind.REVOKE, Kind.REVOKE_ALL):
            row.answer = await revoke(side, step, row)
        else:
            session = sessions.of(scope)
            row.before = look(session, whole=step.kind in _WHOLE)
            act(session, step)
            await side.pause(step.pause)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    return application


def wsgi_application(sessions: SessionManager[Basket]) -> Callable[..., list[bytes]]:
    """Return the application behind the WSGI middleware; step and row come with the environ."""
    blocking = sessions.blocking

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        step, row = environ["history.step"], environ["history.row"]
        if step.kind is Kind.REVOKE:
            row.answer = int(blocking.revoke(token_id(row.token))) if row.token else -1
        elif step.kind is Kind.REVOKE_ALL:
            row.answer = blocking.revoke_all(step.account, token_id(row.spared) if row.spared else None)
        else:
            session = sessions.of(environ)
            row.before = look(session, whole=step.kind in _WHOLE)
            act(session, step)
            if step.pause:
                time.sleep(step.pause)
        start_response("200 OK", [])
        return [b"done"]

    return application
