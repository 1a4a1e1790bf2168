"""What a change of lifetimes, binding, names or keys does to living sessions (FAILURES F31)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sojourn import LoadOutcome, MemoryStore, new_secret
from sojourn.binding import Client
from sojourn.manager import BlockingManager
from sojourn.testing import FakeClock, Fault, FaultyStore
from sojourn_store_cookie import CookieStore
from tests.core.models import make_manager
from tests.docs.pages import page, section
from tests.security.houses import begin

HERE, THERE = Client("192.0.2.7", "Firefox"), Client("198.51.100.1", "Chrome")
STORES = pytest.mark.parametrize("kind", ["memory", "cookie"])


class Fleet:
    """Nodes with settings of their own over one store."""

    def __init__(self, kind: str) -> None:
        self.clock, self.secret = FakeClock(), new_secret()
        self.store: Any = CookieStore() if kind == "cookie" else MemoryStore(clock=self.clock)

    def node(self, **settings: Any) -> BlockingManager[Any]:
        values = {"secret": self.secret, "encrypt": True, **settings}
        return make_manager(self.store, clock=self.clock, settings=values).blocking


def visit(node: BlockingManager[Any], token: str, *, client: Client | None = None) -> str:
    """Open and commit a session as a request that reads does; return the token that the browser has then."""
    session = node.open(token, client)
    assert session.outcome is LoadOutcome.LOADED
    session._state.accessed = True
    return node.commit(session).token or token


@STORES
def test_f31_a_shorter_absolute_timeout_holds_at_once(kind: str) -> None:
    fleet = Fleet(kind)
    token = begin(fleet.node(), principal="42")
    shorter = fleet.node(absolute_timeout="40m")
    fleet.clock.advance(2399)
    assert shorter.open(token).outcome is LoadOutcome.LOADED
    fleet.clock.advance(1)
    assert shorter.open(token).outcome is LoadOutcome.EXPIRED


@STORES
def test_f31_a_longer_absolute_timeout_lengthens_no_living_session(kind: str) -> None:
    fleet = Fleet(kind)
    token = begin(fleet.node(absolute_timeout="40m"), principal="42")
    longer = fleet.node(absolute_timeout="24h")
    for _ in range(3):
        fleet.clock.advance(799)
        token = visit(longer, token)
    fleet.clock.advance(3)
    assert longer.open(token).outcome is LoadOutcome.EXPIRED


@STORES
def test_f31_a_shorter_idle_timeout_holds_from_the_next_request_on(kind: str) -> None:
    fleet = Fleet(kind)
    token = begin(fleet.node(), principal="42")
    shorter = fleet.node(idle_timeout="10m")
    fleet.clock.advance(120)
    token = visit(shorter, token)
    fleet.clock.advance(599)
    assert shorter.open(token).outcome is LoadOutcome.LOADED
    fleet.clock.advance(1)
    assert shorter.open(token).outcome is LoadOutcome.EXPIRED


def test_f31_a_session_that_was_to_be_remembered_keeps_what_its_login_asked_for() -> None:
    fleet = Fleet("memory")
    node = fleet.node(preset="production", store="memory")
    session = node.open(None)
    session.login("42", remember=timedelta(days=7))
    token = node.commit(session).token
    fleet.clock.advance(6 * 86_400)
    assert token is not None
    assert fleet.node(absolute_timeout="2h", idle_timeout="10m").open(token).outcome is LoadOutcome.LOADED


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_f27_a_shorter_idle_timeout_that_cannot_be_written_fails_no_request(fault: Fault) -> None:
    fleet = Fleet("memory")
    fleet.store = FaultyStore(fleet.store)
    token = begin(fleet.node(), principal="42")
    node = fleet.node(idle_timeout="10m")
    fleet.store.follow(lambda method: fault if method == "replace" else Fault.NONE)
    assert visit(node, token) == token


@STORES
@pytest.mark.parametrize("policy", ["observe", "reject"])
def test_f31_binding_binds_at_the_next_login_or_rotation_and_refuses_nobody_until_then(kind: str, policy: str) -> None:
    fleet = Fleet(kind)
    tokens = [begin(fleet.node(), principal="42") for _ in range(2)]
    node = fleet.node(binding=policy)
    for token, move in zip(tokens, ("rotate", "login"), strict=True):
        assert node.open(token, THERE).outcome is LoadOutcome.LOADED
        assert node.open(token, HERE).outcome is LoadOutcome.LOADED
        session = node.open(token, HERE)
        session.data.count += 1
        written = node.commit(session).token or token
        assert node.open(written, THERE).outcome is LoadOutcome.LOADED, "a write does not bind"
        session = node.open(written, HERE)
        session.rotate() if move == "rotate" else session.login("42")
        bound = node.commit(session).token
        assert bound is not None
        assert node.open(bound, HERE).outcome is LoadOutcome.LOADED
        refused = LoadOutcome.BINDING if policy == "reject" else LoadOutcome.LOADED
        assert node.open(bound, THERE).outcome is refused


@STORES
def test_f31_high_security_asks_for_a_new_login(kind: str) -> None:
    fleet = Fleet(kind)
    before = fleet.node()
    known, nobody = begin(before, principal="42"), begin(before)
    strict = fleet.node(preset="high_security", idle_timeout="15m", absolute_timeout="12h", cookie_name="sojourn")
    assert strict.open(known, HERE).outcome is LoadOutcome.BINDING
    assert strict.open(nobody, HERE).outcome is LoadOutcome.LOADED
    session = strict.open(known, HERE)
    session.login("42")
    bound = strict.commit(session).token
    assert bound is not None
    assert (strict.open(bound, HERE).principal, strict.open(bound, THERE).principal) == ("42", None)


LOGS_OUT: dict[str, dict[str, Any]] = {
    "SOJOURN_NAMESPACE": {"namespace": "another"},
    "a secret that is taken out": {"secret": new_secret()},
}


@pytest.mark.parametrize("change", LOGS_OUT)
def test_f31_what_must_log_out_does_and_stands_in_the_pages(change: str) -> None:
    fleet = Fleet("memory")
    token = begin(fleet.node(), principal="42")
    assert fleet.node(**LOGS_OUT[change]).open(token).outcome in {LoadOutcome.CORRUPT, LoadOutcome.FUTURE}
    assert fleet.node().open(token).principal == "42", "what is there is left alone"
    told = section(page("docs/operations.md"), "Changing settings")
    for setting in (*LOGS_OUT, "SOJOURN_COOKIE_NAME", "SOJOURN_STORE", "SOJOURN_BINDING_IP"):
        assert setting in told
