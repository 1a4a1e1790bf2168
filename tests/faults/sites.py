"""A manager made from settings over a real server, and what excuses a failure of a machine that did not run it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pytest

from sojourn import SessionManager, new_secret
from sojourn.crypto import token_id
from sojourn.errors import SessionUnavailableError, StoreUnavailableError
from sojourn.session.transitions import LoadOutcome
from sojourn.settings import SessionSettings
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock
from sojourn_testing.bench import Driver
from tests.core.models import Visit
from tests.servers import wait_until
from verification.history.pulse import Pulse

R = TypeVar("R")

PATIENT = {"retry_deadline": "10s", "request_deadline": "20s", "retry_budget": 1.0, "breaker": False}
SECRET = new_secret()


def unless_held_up(attempt: Callable[[], R], make_pulse: Callable[[], Pulse] = Pulse) -> R:
    """Return what the first attempt returns; one in which this process was not run for a while does not count."""
    for _ in range(9):
        with make_pulse() as pulse:
            began = time.monotonic()
            try:
                return attempt()
            except (SessionUnavailableError, StoreUnavailableError, AssertionError):
                time.sleep(0.1)  # for the pulse to have noticed
                if not pulse.missed(began, time.monotonic()):
                    raise
    return attempt()


class Freezable(Protocol):
    """A server whose process can be stopped from running."""

    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Site:
    """A manager made from settings, driven as its kind is."""

    def __init__(self, kind: str, url: str, *, timeout: str, clock: FakeClock | None, settings: dict[str, Any]) -> None:
        store = "redis" if url.startswith("redis") else "sql"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(f"SOJOURN_{store.upper()}_URL", url)
            patch.setenv(f"SOJOURN_{store.upper()}_TIMEOUT", timeout)
            patch.setenv("SOJOURN_SQL_CREATE", "true")
            values = {"preset": "production", "store": store, "secret": SECRET, **settings}
            if timeout == "2s":
                # a call that timed out must have time for another try
                values.setdefault("request_deadline", "10s")
            parts = {} if clock is None else {"clock": clock}
            self.manager: SessionManager[Visit] = SessionManager.from_settings(
                Visit, SessionSettings(_env_file=None, **values), **parts
            )
        self.is_async = kind == "asyncio"
        self.driver = Driver()

    def run(self, name: str, *arguments: Any) -> Any:
        if self.is_async:
            return self.driver.run(getattr(self.manager, name)(*arguments))
        return getattr(self.manager.blocking, name)(*arguments)

    def begin(self, **values: Any) -> str:
        """Return the token of a new session with these values."""

        def attempt() -> str:
            session = self.run("open", None)
            session.data.note = "new"
            for name, value in values.items():
                setattr(session.data, name, value)
            token: str = self.run("commit", session).token
            return token

        return unless_held_up(attempt)

    def open(self, token: str) -> Any:
        """Return the session, which is there."""

        def attempt() -> Any:
            session = self.run("open", token)
            assert session.outcome is LoadOutcome.LOADED
            return session

        return unless_held_up(attempt)

    def read(self, token: str) -> Visit:
        visit: Visit = self.open(token).data
        return visit

    def is_served(self, token: str, met: list[str]) -> bool:
        """Ask the store for the record of *token* once; why that failed is added to *met*."""
        engine = (self.manager if self.is_async else self.manager.blocking.manager).engine
        try:
            found = self.driver.run(
                engine.store.load(token_id(token)), StoreIO.ASYNC if self.is_async else StoreIO.BLOCKING
            )
        except SessionUnavailableError as error:
            met.append(error.kind)
            return False
        return found is not None

    def is_served_again_after_a_freeze(self, server: Freezable, is_back: Callable[[], bool]) -> None:
        """Freeze the *server* until the breaker has opened; all that the first calls meet afterwards is the breaker."""
        token = self.begin(note="before")
        server.freeze()
        outcomes = [self.run("open", token).outcome for _ in range(8)]
        assert set(outcomes) == {LoadOutcome.UNAVAILABLE}
        server.thaw()
        wait_until(is_back, "the server is not back")
        met: list[str] = []
        wait_until(lambda: self.is_served(token, met), f"nobody is served: {met}", 20.0)
        assert set(met) <= {"breaker open"}
        assert self.read(token).note == "before"

    def close(self) -> None:
        self.driver.run(self.manager.aclose())
        self.driver.__exit__()
