"""Moving a session under a fresh token: afterwards one token works, and nothing acknowledged is lost (R8, F6, F11)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sojourn import LoadOutcome, SessionManager
from sojourn.errors import SessionUnavailableError
from sojourn.manager import run_blocking
from sojourn.stores import MemoryStore
from sojourn.testing import FakeClock, Fault, FaultyStore
from tests.core.models import Visit, make_manager


def planned(**faults: list[Fault]) -> Callable[[str], Fault]:
    """Return the plan that gives each method its own faults, in order."""
    waiting = {method: iter(listed) for method, listed in faults.items()}
    return lambda method: next(waiting.get(method, iter(())), Fault.NONE)


def prepared(retries: int) -> tuple[SessionManager[Visit], FaultyStore, str]:
    """Return a manager over a store whose failures can be planned, and the token of an anonymous session."""
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    manager: SessionManager[Visit] = make_manager(store, clock=clock, settings={"retry_attempts": retries})
    session = manager.blocking.open(None)
    session.data.cart.append("book")
    return manager, store, manager.blocking.commit(session).token or ""


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_f6_a_login_whose_delete_was_applied_but_never_answered_keeps_the_session(lost: int) -> None:
    manager, store, token = prepared(retries=2)
    session = manager.blocking.open(token)
    session.login("1")
    store.follow(planned(delete=[Fault.AFTER] * lost))
    renewed = manager.blocking.commit(session).token
    assert manager.blocking.open(renewed).data.cart == ["book"]
    assert manager.blocking.open(token).outcome is LoadOutcome.UNKNOWN


def test_f11_a_login_whose_delete_failed_leaves_the_old_session_alone() -> None:
    manager, store, token = prepared(retries=0)
    session = manager.blocking.open(token)
    session.login("1")
    store.follow(planned(delete=[Fault.BEFORE]))
    with pytest.raises(SessionUnavailableError):
        manager.blocking.commit(session)
    opened = manager.blocking.open(token)
    assert opened.data.cart == ["book"]
    assert opened.principal is None
    assert run_blocking(store.count()) == 1


def test_f11_when_nobody_knows_the_new_record_is_kept_and_its_token_never_sent() -> None:
    manager, store, token = prepared(retries=0)
    session = manager.blocking.open(token)
    session.login("1")
    store.follow(planned(delete=[Fault.AFTER], load=[Fault.BEFORE]))
    with pytest.raises(SessionUnavailableError, match="unknown"):
        manager.blocking.commit(session)
    assert run_blocking(store.count()) == 1
    assert manager.blocking.open(token).outcome is LoadOutcome.UNKNOWN
