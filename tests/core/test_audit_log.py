"""Events as lines of JSON, and what was decided for a session as one line for each request."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import AuditFormatter, Decisions, Event, SessionManager, wsgi
from sojourn.testing import FakeClock
from tests.core.asgi_bench import Bench
from tests.core.models import Visit, make_manager

FIELDS = ["time", "event", "id", "old_id", "principal_hash", "reason", "node", "server", "client"]
TEXTS = st.text(max_size=8)


def line_of(**parts: Any) -> str:
    record = logging.makeLogRecord({"name": "sojourn.events", "levelname": "INFO", **parts})
    return AuditFormatter().format(record)


@given(st.builds(Event, TEXTS, TEXTS, st.none() | TEXTS, TEXTS, TEXTS, st.floats(0, 4e9), TEXTS, TEXTS, TEXTS))
def test_r32_every_event_is_one_line_of_json_with_the_time_in_utc(event: Event) -> None:
    line = line_of(sojourn=event)
    assert len(line.splitlines()) == 1
    read = json.loads(line)
    assert list(read) == FIELDS
    assert abs(datetime.fromisoformat(read["time"]).timestamp() - event.at) < 1e-5
    assert read["time"].endswith("+00:00")
    assert read["event"] == event.name
    assert [read[name] for name in FIELDS[2:]] == [getattr(event, name) or None for name in FIELDS[2:]], (
        "null for nothing"
    )


@given(TEXTS)
def test_a_record_that_tells_of_no_session_is_a_line_too(text: str) -> None:
    error = ValueError(text)
    line = line_of(msg="it raised", levelname="WARNING", created=0.0, exc_info=(ValueError, error, None))
    read = json.loads(line)
    assert len(line.splitlines()) == 1
    assert (read["time"], read["level"]) == ("1970-01-01T00:00:00.000000+00:00", "WARNING")
    assert read["message"].startswith("it raised\nValueError")


@pytest.fixture
def audit() -> Iterator[StringIO]:
    """Set the log up as docs/security.md has it."""
    out = StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"audit": {"()": "sojourn.AuditFormatter"}},
            "handlers": {"audit": {"class": "logging.StreamHandler", "stream": out, "formatter": "audit"}},
            "loggers": {"sojourn.events": {"level": "INFO", "handlers": ["audit"]}},
        }
    )
    yield out
    logger = logging.getLogger("sojourn.events")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


def test_r32_the_log_says_whose_session_began_and_who_ended_it(audit: StringIO) -> None:
    manager = make_manager(settings={"node_id": "web-1"}, clock=FakeClock()).blocking
    tokens = []
    for _ in range(3):
        session = manager.open(None)
        session.login("anna@example.com")
        tokens.append(manager.commit(session).token)
    session = manager.open(tokens[0])
    session.logout()
    manager.commit(session)
    second = manager.open(tokens[1]).id
    manager.revoke(second, principal="anna@example.com")
    manager.revoke_all("anna@example.com")
    text = audit.getvalue()
    assert "anna" not in text
    assert not any(token in text for token in tokens if token)
    lines = [json.loads(line) for line in text.splitlines()]
    told = [(line["event"], line["reason"]) for line in lines]
    assert told == [("started", None)] * 3 + [("deleted", "logout"), ("deleted", "revoked"), ("deleted", "revoked")]
    assert {line["principal_hash"] for line in lines} == {manager.principal_hash("anna@example.com")}
    assert {line["node"] for line in lines} == {"web-1"}


# -- decisions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def decisions(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("sojourn.decisions")
    logger.setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    logger.setLevel(logging.NOTSET)


def served(sessions: SessionManager[Visit], handler: Any, token: str | None = None, status: str = "200 OK") -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        handler(environ)
        start_response(status, [])
        yield b""

    environ = {"PATH_INFO": "/", "HTTP_COOKIE": f"sojourn={token}" if token else ""}
    body = wsgi.SessionMiddleware(app, sessions)(environ, lambda *_: lambda _: None)
    try:
        list(body)
    finally:
        body.close()  # type: ignore[attr-defined]


def lines_of(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.name == "sojourn.decisions"]


def test_each_request_is_one_line_with_what_was_decided_and_why(decisions: pytest.LogCaptureFixture) -> None:
    sessions: SessionManager[Visit] = make_manager()
    session = sessions.blocking.open(None)
    session.data.note = "mine"
    token = sessions.blocking.commit(session).token

    def broken(environ: Any) -> None:
        sessions.of(environ)
        raise ValueError("no page")

    served(sessions, lambda _: None)
    served(sessions, lambda environ: sessions.of(environ).data, token)
    served(sessions, lambda environ: setattr(sessions.of(environ).data, "note", "yours"), token)
    served(sessions, lambda environ: sessions.of(environ).data, token, "500 Oh")
    with pytest.raises(ValueError, match="no page"):
        served(sessions, broken, token)
    unused, read, written, failed, raised = lines_of(decisions.records)
    assert unused == "the session was not used"
    assert read.startswith(f"session {session.id} opened=loaded (")
    assert " written=nothing (" in read
    assert " cookie=keep (" in read
    assert " written=replaced (" in written
    assert failed == raised == read
    made = [
        vars(record)["sojourn"] for record in decisions.records if record.name == "sojourn.decisions" and record.args
    ]
    assert all(isinstance(one, Decisions) for one in made)
    assert not any(str(token) in line for line in lines_of(decisions.records))


@pytest.mark.anyio
async def test_layers_of_one_request_are_one_line_under_asgi_too(decisions: pytest.LogCaptureFixture) -> None:
    from sojourn.asgi import SessionMiddleware

    bench = Bench()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bench.sessions.of(scope).data.count += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    await bench.send(SessionMiddleware(app, bench.sessions), await bench.begin())
    (line,) = lines_of(decisions.records)
    assert " written=replaced (" in line


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG])
def test_what_nobody_asked_to_see_costs_no_call(level: int, caplog: pytest.LogCaptureFixture) -> None:
    """The level of the root does not ask for it: the logger's own does."""
    sessions: SessionManager[Visit] = make_manager()
    session = sessions.blocking.open(None)
    session.data.note = "mine"
    token = sessions.blocking.commit(session).token
    logger = logging.getLogger("sojourn.decisions")
    called: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            called.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")

    with caplog.at_level(logging.DEBUG):
        logger.setLevel(level)
        sys.setprofile(note)
        try:
            served(sessions, lambda environ: sessions.of(environ).data, token)
        finally:
            sys.setprofile(None)
            logger.setLevel(logging.NOTSET)
    logs = [name for name in called if name.startswith("logging.") or "decisions" in name]
    assert bool(logs) is bool(level)
