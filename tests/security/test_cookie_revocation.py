"""The revocation index of sessions kept in cookies (SECURITY R16): a copied cookie is worth nothing after its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn import MemoryStore, SessionManager, new_secret
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.manager import BlockingManager, run_blocking
from sojourn.stores import Store
from sojourn.testing import Fault, FaultyStore
from sojourn_store_redis import RedisStore
from tests.security.houses import House, begin, copy_of, outcome
from tests.servers import RedisServer

Build = Callable[..., SessionManager[Any]]


@pytest.fixture(params=["memory", "redis"])
def index(request: pytest.FixtureRequest, cookie_house: House) -> Iterator[Callable[[], Store]]:
    """Return what opens the index's store; every node has its own connection."""
    if request.param == "memory":
        shared = MemoryStore(clock=cookie_house.clock)
        yield lambda: shared
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    server.start_if_stopped()
    server.flush()
    with server.client() as client:
        yield lambda: RedisStore(client, clock=cookie_house.clock)


@pytest.fixture
def build(cookie_house: House, index: Callable[[], Store]) -> Build:
    def build(**settings: Any) -> SessionManager[Any]:
        return cookie_house.node(parts={"revocation_store": index()}, **settings)

    return build


@pytest.fixture
def node(build: Build) -> BlockingManager[Any]:
    return build().blocking


def test_r16_a_copied_cookie_is_refused_after_logout_by_every_node(build: Build, node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    session = node.open(token)
    session.logout()
    assert node.commit(session).action.value == "clear"
    assert outcome(node, token) == "unknown"
    assert outcome(build().blocking, token) == "unknown"


def test_r16_every_older_copy_of_a_session_ends_with_it(node: BlockingManager[Any]) -> None:
    first = begin(node, principal="42")
    session = node.open(first)
    session.data.note = "newer"
    second = node.commit(session).token
    assert second is not None
    node.revoke(session.id)
    assert (outcome(node, first), outcome(node, second)) == ("unknown", "unknown")


def test_r16_a_login_refuses_the_cookie_from_before(node: BlockingManager[Any]) -> None:
    anonymous = begin(node)
    session = node.open(anonymous)
    session.login("42")
    fresh = node.commit(session).token
    assert fresh is not None
    assert outcome(node, anonymous) == "unknown"
    assert outcome(node, fresh) == "loaded"


def test_r16_a_rotation_refuses_the_cookie_from_before(node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    session = node.open(token)
    session.rotate()
    fresh = node.commit(session).token
    assert fresh is not None
    assert (outcome(node, token), outcome(node, fresh)) == ("unknown", "loaded")


def test_r16_revoke_all_ends_all_but_one_and_nobody_elses(cookie_house: House, node: BlockingManager[Any]) -> None:
    mine = [begin(node, principal="42") for _ in range(3)]
    theirs = begin(node, principal="43")
    kept = node.open(mine[1]).id
    cookie_house.clock.advance(1)
    assert node.revoke_all("42", except_id=kept) == -1
    assert [outcome(node, token) for token in mine] == ["unknown", "loaded", "unknown"]
    assert outcome(node, theirs) == "loaded"
    cookie_house.clock.advance(1)
    assert outcome(node, begin(node, principal="42")) == "loaded", "a later login counts"


def test_r16_a_session_that_was_revoked_is_not_brought_back_by_being_spared(
    cookie_house: House, node: BlockingManager[Any]
) -> None:
    token, other = begin(node, principal="42"), begin(node, principal="42")
    stale, kept = node.open(token).id, node.open(other).id
    cookie_house.clock.advance(1)
    node.revoke_all("42", except_id=kept)
    cookie_house.clock.advance(1)
    node.revoke_all("42", except_id=stale)
    assert (outcome(node, token), outcome(node, other)) == ("unknown", "unknown")


def test_r16_a_session_that_is_spared_twice_lives(cookie_house: House, node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    for _ in range(2):
        cookie_house.clock.advance(1)
        node.revoke_all("42", except_id=node.open(token).id)
    assert outcome(node, token) == "loaded"


def test_r16_a_clock_that_lags_brings_nobody_back(cookie_house: House, node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    cookie_house.clock.advance(1)
    node.revoke_all("42")
    cookie_house.clock.jump_wall(-30)
    node.revoke_all("42")
    cookie_house.clock.jump_wall(30)
    assert outcome(node, token) == "unknown"


def test_r16_an_entry_outlives_every_cookie_it_speaks_of(cookie_house: House, build: Build) -> None:
    node = build(idle_timeout="100d", absolute_timeout="100d").blocking
    token, other = begin(node, principal="42"), begin(node, principal="42")
    node.revoke(node.open(other).id)
    node.revoke_all("42")
    for _ in range(99):
        cookie_house.clock.advance(86_400)
        assert (outcome(node, token), outcome(node, other)) == ("unknown", "unknown")


def test_r16_what_was_revoked_stays_so_while_the_secrets_are_rotated(cookie_house: House, build: Build) -> None:
    a, b = new_secret(), new_secret()
    behind, ahead = build(secrets=[a, b]).blocking, build(secrets=[b, a]).blocking
    tokens = [begin(behind, principal="42"), begin(ahead, principal="42")]
    cookie_house.clock.advance(1)
    behind.revoke_all("42")
    for step in ({"secrets": [b, a]}, {"secrets": [b], "retired_secrets": [a]}, {"secrets": [b]}):
        assert "loaded" not in {outcome(build(**step).blocking, token) for token in tokens}


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_r16_an_outage_of_the_index_is_an_outage_and_not_a_yes(cookie_house: House, fault: Fault) -> None:
    store = FaultyStore(MemoryStore(clock=cookie_house.clock))
    node = cookie_house.node(parts={"revocation_store": store}).blocking
    token = begin(node, principal="42")
    store.follow(lambda _: fault)
    session = node.open(token)
    assert session.outcome.value == "unavailable"
    assert session.principal is None
    with pytest.raises(SessionUnavailableError):
        session.login("42")
    store.follow(())
    assert outcome(node, token) == "loaded"


def test_r16_a_logout_that_the_index_did_not_take_is_no_logout(cookie_house: House) -> None:
    store = FaultyStore(MemoryStore(clock=cookie_house.clock))
    node = cookie_house.node(parts={"revocation_store": store}).blocking
    token = begin(node, principal="42")
    session = node.open(token)
    session.logout()
    store.follow(lambda _: Fault.BEFORE)
    with pytest.raises(SessionUnavailableError):
        node.commit(session)
    store.follow(())
    assert outcome(node, token) == "loaded"


def test_r16_an_entry_that_cannot_be_read_is_an_outage(cookie_house: House, index: Callable[[], Store]) -> None:
    from sojourn.manager.client_side import _key

    manager = cookie_house.node(parts={"revocation_store": index()})
    node = manager.blocking
    token = begin(node, principal="42")
    cookie_house.clock.advance(1)
    node.revoke_all("42")
    store = index()
    key = _key("not-before", manager.gate.context.ring.label("not-before", "42"))
    entry = run_blocking(store.load(key))
    assert entry is not None
    run_blocking(store.replace(copy_of(entry, version=2, payload=b"\xc1"), expected=1, write_id=bytes(8)))
    assert node.open(token).outcome.value == "unavailable"


def test_r16_without_the_index_start_up_says_that_cookies_cannot_be_revoked(
    cookie_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sojourn"):
        node = cookie_house.node().blocking
    assert "SOJOURN_REVOCATION_STORE is not set" in caplog.text
    for revoke in (node.revoke, node.revoke_all):
        with pytest.raises(ConfigurationError, match="SOJOURN_REVOCATION_STORE"):
            revoke("42")
    caplog.clear()
    with caplog.at_level(logging.INFO, "sojourn"):
        cookie_house.node(parts={"revocation_store": MemoryStore()})
    assert caplog.text == ""


RENEWING: list[dict[str, Any]] = [
    {"preset": "high_security", "idle_timeout": "15m", "absolute_timeout": "12h", "renew_after": "1m"},
    {"preset": "production", "renew_after": "1m"},
]


@pytest.mark.parametrize("settings", RENEWING, ids=lambda settings: settings["preset"])
def test_r9_start_up_says_that_tokens_in_cookies_are_not_renewed(
    settings: dict[str, Any], cookie_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """And indeed they are not: time passes, and the cookie stays the one that it was."""
    with caplog.at_level(logging.WARNING, "sojourn"):
        index = MemoryStore(clock=cookie_house.clock)
        node = cookie_house.node(parts={"revocation_store": index}, **settings).blocking
    warned = [record.getMessage() for record in caplog.records if "RENEW_AFTER" in record.getMessage()]
    assert len(warned) == 1
    assert "SOJOURN_RENEW_AFTER has no effect" in warned[0]
    token = begin(node)
    cookie_house.clock.advance(61)
    session = node.open(token)
    assert (session.outcome.value, session.id) == ("loaded", node.open(token).id)
    assert node.commit(session).token is None


@pytest.mark.parametrize("settings", RENEWING, ids=lambda settings: settings["preset"])
def test_r9_where_tokens_are_renewed_nothing_is_said_of_it(
    settings: dict[str, Any], server_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "sojourn"):
        server_house.node(**settings)
    assert "RENEW_AFTER" not in caplog.text


def test_r16_the_setting_names_the_store_of_the_index(cookie_house: House) -> None:
    from sojourn.settings import SessionSettings
    from tests.core.models import Visit

    settings = SessionSettings(
        _env_file=None, preset="testing", store="cookie", revocation_store="memory", secret=new_secret()
    )
    node = SessionManager.from_settings(Visit, settings).blocking
    token = begin(node, principal="42")
    node.revoke(node.open(token).id)
    assert outcome(node, token) == "unknown"
