"""Whoever ends a session ends it under every token it moved to meanwhile (SECURITY R9, R13, R14)."""

from __future__ import annotations

import pytest

from sojourn import LoadOutcome
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from tests.core.models import make_manager


@pytest.mark.parametrize("how", ["revoke", "logout", "revoke_all"])
def test_r14_a_session_that_was_renewed_after_it_was_listed_ends_all_the_same(how: str) -> None:
    clock = FakeClock()
    manager = make_manager(MemoryStore(clock=clock), clock=clock, settings={"renew_after": "10m"}).blocking
    session = manager.open(None)
    session.login("1")
    token = manager.commit(session).token
    clock.advance(601)
    listed = manager.list("1")[0].id
    leaving = manager.open(token)
    renewing = manager.open(token)
    assert renewing.principal == "1"
    renewed = manager.commit(renewing).token
    assert renewed not in (None, token)
    if how == "revoke":
        assert manager.revoke(listed)
    elif how == "revoke_all":
        assert manager.revoke_all("1") >= 1
    else:
        leaving.logout()
        manager.commit(leaving)
    for each in (token, renewed):
        assert manager.open(each).outcome is LoadOutcome.UNKNOWN
    assert not manager.revoke(listed)
