"""Two managers of one deployment on one store in memory; what the second does is timed to a call of the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sojourn import CookieAction, MemoryStore, Session, SessionManager, new_secret
from sojourn.manager import run_blocking
from sojourn.manager.manager import BlockingManager
from sojourn.stores import Record
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingObserver
from tests.core.models import make_manager


class Rivals:
    """*ours* goes through a store whose calls can be failed or preceded by something; *theirs* goes straight."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.inner = MemoryStore(clock=self.clock)
        self.store = FaultyStore(self.inner)
        self.observer = RecordingObserver()
        self.settings = {"secret": new_secret(), "encrypt": True, "retry_attempts": 0, **settings}
        self.manager: SessionManager[Any] = self.manage(self.store, observers=[self.observer])
        self.ours: BlockingManager[Any] = self.manager.blocking
        self.theirs: BlockingManager[Any] = self.manage(self.inner).blocking

    def manage(self, store: MemoryStore | FaultyStore, **parts: Any) -> SessionManager[Any]:
        return make_manager(store, clock=self.clock, settings=self.settings, **parts)

    def begin(self, principal: str | None = None, **data: Any) -> str:
        """Make a session and return its token."""
        session = self.theirs.open(None)
        session["begun"] = True
        for name, value in data.items():
            setattr(session.data, name, value)
        if principal is not None:
            session.login(principal)
        return self.theirs.commit(session).token or ""

    def accessed(self, token: str) -> Session[Any]:
        """Open a session as a middleware does once a handler has asked for it."""
        session = self.ours.open(token)
        session._state.accessed = True
        return session

    def change(self, token: str, **data: Any) -> str:
        """Change a session as another request; return the token that leads to it afterwards."""
        session = self.theirs.open(token)
        for name, value in data.items():
            setattr(session.data, name, value)
        change = self.theirs.commit(session)
        return change.token or token if change.action is CookieAction.SET else token

    def end(self, token: str) -> None:
        """Log a session out as another request."""
        session = self.theirs.open(token)
        session.destroy()
        self.theirs.commit(session)

    def record(self, id: str) -> Record | None:
        return run_blocking(self.inner.load(id))

    @property
    def count(self) -> int:
        """The number of records, and not of sessions alone."""
        return len(self.inner._blobs)

    def before(self, method: str, *work: Callable[[], object]) -> None:
        """Before the first call of *method* do the first *work*, before the second the next; None does nothing."""
        waiting = iter(work)

        def plan(called: str) -> Fault:
            if called == method:
                todo = next(waiting, None)
                if todo is not None:
                    todo()
            return Fault.NONE

        self.store.follow(plan)

    def fail(self, **faults: list[Fault]) -> None:
        """Fail the calls of each method as listed, in order."""
        listed = {method: iter(several) for method, several in faults.items()}
        self.store.follow(lambda method: next(listed.get(method, iter(())), Fault.NONE))
