"""What the session layer did for a request, for the panel at the foot of every page.

`session.decisions` says it all; an ordinary application would log it, if anything.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shop.model import ShopSession
from sojourn import CookieAction, Decisions, Event, Session, SessionManager

Application = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """What is noted of one request."""

    began: float
    events: list[Event]


_request: ContextVar[Request | None] = ContextVar("request", default=None)

_COOKIES = {
    CookieAction.KEEP: "not touched: no Set-Cookie",
    CookieAction.SET: "set: Set-Cookie with a fresh token",
    CookieAction.CLEAR: "cleared: Set-Cookie with Max-Age=0",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in one request."""

    request: str
    outcome: str
    why_outcome: str
    state: str
    id: str | None
    version: int | None
    idle_deadline: datetime | None
    absolute_deadline: datetime | None
    write: str
    reasons: tuple[str, ...]
    cookie: str
    events: tuple[str, ...]
    milliseconds: float
    source: str
    """Where the session came from, if the store keeps copies of its own."""


class Trace:
    """Watch one request from its handler to its commit."""

    def __init__(self, session: Session[ShopSession], request: str, *, copy_age: float | None = None) -> None:
        self._session = session
        self._source = source_of(copy_age)
        self._request = request
        self._outcome = session.outcome.value
        self._why_outcome = session.decisions.why_outcome
        self._reasons: list[str] = []

    def because(self, reason: str) -> None:
        """Note why something will be written."""
        self._reasons.append(reason)

    async def commit(self, sessions: SessionManager[ShopSession]) -> Report:
        """Commit now rather than when the response starts, so that the page can tell what it did."""
        started = time.perf_counter()
        change = await sessions.commit(self._session)
        took = (time.perf_counter() - started) * 1000
        decisions = self._session.decisions
        reasons = self._reasons if decisions.written not in {"nothing", "touched"} else []
        if decisions.written == "touched":
            reasons = [decisions.why_written]
        return Report(
            request=self._request,
            outcome=self._outcome,
            why_outcome=self._why_outcome,
            state=self._session.state.value,
            id=None if decisions.version is None else self._session.id,
            version=decisions.version,
            idle_deadline=decisions.idle_deadline,
            absolute_deadline=decisions.absolute_deadline,
            write=_write(decisions),
            reasons=tuple(reasons) or (_nothing(self._outcome),),
            cookie=_COOKIES[change.action],
            events=tuple(_name(event) for event in _noted()),
            milliseconds=took,
            source=self._source,
        )


def _write(decisions: Decisions) -> str:
    match decisions.written:
        case "created":
            return "create: a new record, version 1"
        case "replaced" | "merged":
            version = decisions.version or 0
            return f"{decisions.written[:-1]}: version {version - 1} became {version}"
        case "rotated" | "renewed":
            return "create the new record, then delete the old one"
        case "touched":
            return "touch: the idle deadline moved, nothing else"
        case "deleted":
            return "delete: the record is gone"
        case other:
            return other


def _nothing(outcome: str) -> str:
    if outcome == "none":
        return "no cookie came, and nothing was worth one"
    return "nothing changed since it was loaded" if outcome == "loaded" else "this request had nothing to keep"


def _name(event: Event) -> str:
    return f"{event.name} ({event.reason})" if event.reason else event.name


def source_of(copy_age: float | None) -> str:
    """Say where a session came from: a copy that is older than the request was there before it."""
    if copy_age is None:
        return ""
    request = _request.get()
    if request is not None and copy_age < time.monotonic() - request.began:
        return "read from Redis"
    return f"own copy, {copy_age:.1f} s old"


def _noted() -> Sequence[Event]:
    request = _request.get()
    return () if request is None else request.events


class Recent:
    """The last report of each session, until the next page shows it: what a form did is told by the page after it."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._reports: OrderedDict[str, Report] = OrderedDict()

    def put(self, report: Report) -> None:
        """Keep the report for the page that the browser is sent to."""
        if report.id is not None:
            self._reports[report.id] = report
            while len(self._reports) > self._most:
                self._reports.popitem(last=False)

    def take(self, session: Session[ShopSession]) -> Report | None:
        """Return the report that waits for this session."""
        return None if session.is_new else self._reports.pop(session.id, None)


def observe(event: Event) -> None:
    """Be the observer of the session manager: note the event with the request that it happened in."""
    request = _request.get()
    if request is not None:
        request.events.append(event)


class TraceMiddleware:
    """Begin to note what happens in every request; stands outside SessionMiddleware."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection."""
        token = _request.set(Request(time.monotonic(), []))
        try:
            await self.app(scope, receive, send)
        finally:
            _request.reset(token)
