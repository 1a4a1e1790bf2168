"""The revocation index of cookies while several nodes write it (R16)."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn import LoadOutcome, MemoryStore, new_secret
from sojourn.errors import SessionConflictError
from sojourn.manager.manager import BlockingManager
from sojourn.testing import FakeClock, Fault, FaultyStore
from tests.core.models import make_manager
from tests.testing.plain_stores import TokenStore


class Nodes:
    """Two nodes of one deployment, the first of which can be overtaken while it writes the index."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.inner = MemoryStore(clock=self.clock)
        self.index = FaultyStore(self.inner)
        self.secret = new_secret()
        self.ours, self.theirs = self.node(self.index), self.node(self.inner)

    def node(self, index: Any) -> BlockingManager[Any]:
        settings = {"secret": self.secret, "idle_timeout": "2h", "absolute_timeout": "2h"}
        return make_manager(TokenStore(), clock=self.clock, revocation_store=index, settings=settings).blocking

    def log_in(self) -> str:
        session = self.theirs.open(None)
        session.login("1")
        return self.theirs.commit(session).token or ""

    def overtake(self, method: str, times: int, spared: str) -> None:
        left = [None] * times

        def plan(called: str) -> Fault:
            if called == method and left:
                left.pop()
                self.theirs.revoke_all("1", except_id=spared)
            return Fault.NONE

        self.index.follow(plan)


@pytest.mark.parametrize(("method", "times"), [("create", 1), ("replace", 1), ("replace", 7)])
def test_r16_to_end_all_is_not_undone_by_who_spares_one_at_the_same_moment(method: str, times: int) -> None:
    nodes = Nodes()
    if method == "replace":
        nodes.ours.revoke_all("1")
        nodes.clock.advance(1)
    token = nodes.log_in()
    nodes.overtake(method, times, nodes.ours.open(token).id or "")
    assert nodes.ours.revoke_all("1") == -1
    assert nodes.theirs.open(token).outcome is LoadOutcome.UNKNOWN


def test_r16_an_index_that_never_stops_changing_is_not_reported_as_success() -> None:
    nodes = Nodes()
    nodes.ours.revoke_all("1")
    token = nodes.log_in()
    nodes.overtake("replace", 100, nodes.ours.open(token).id or "")
    with pytest.raises(SessionConflictError, match="revoke again"):
        nodes.ours.revoke_all("1")


def test_r16_a_logout_is_remembered_as_long_as_any_copy_of_the_cookie_lives() -> None:
    nodes = Nodes()
    token = nodes.log_in()
    session = nodes.ours.open(token)
    session.logout()
    nodes.ours.commit(session)
    nodes.clock.advance(2 * 3600 - 0.5)
    assert nodes.theirs.open(token).outcome is LoadOutcome.UNKNOWN
    nodes.clock.advance(0.5)
    assert nodes.theirs.open(token).outcome is LoadOutcome.EXPIRED


def test_r16_the_index_lets_anonymous_cookies_be() -> None:
    nodes = Nodes()
    nodes.ours.revoke_all("1")
    session = nodes.ours.open(None)
    session.data.note = "mine"
    assert nodes.theirs.open(nodes.ours.commit(session).token).data.note == "mine"


def test_r16_who_spares_one_does_not_undo_to_end_all_at_the_same_moment() -> None:
    nodes = Nodes()
    nodes.ours.revoke_all("1")
    nodes.clock.advance(1)
    token = nodes.log_in()
    id_ = nodes.ours.open(token).id
    nodes.overtake("replace", 1, "nobody")
    nodes.ours.revoke_all("1", except_id=id_)
    assert nodes.theirs.open(token).outcome is LoadOutcome.UNKNOWN


def test_r16_what_was_revoked_under_an_older_key_stays_so_under_a_new_first_one() -> None:
    nodes = Nodes()
    token = nodes.log_in()
    nodes.ours.revoke_all("1")
    nodes.index.follow(())
    settings = {"secrets": [new_secret(), nodes.secret], "idle_timeout": "2h", "absolute_timeout": "2h"}
    rotated = make_manager(TokenStore(), clock=nodes.clock, revocation_store=nodes.inner, settings=settings).blocking
    assert rotated.open(token).outcome is LoadOutcome.UNKNOWN
