"""The revocation index of sessions kept in cookies (SECURITY R16): a copied cookie is worth nothing after its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn import MemoryStore, SessionManager, new_secret
from sojourn.errors import ConfigurationError, CookieTooLargeError, SessionUnavailableError
from sojourn.manager import BlockingManager, run_blocking
from sojourn.manager.revocations import _key
from sojourn.stores import Store
from sojourn.testing import Fault, FaultyStore
from sojourn_store_redis import RedisStore
from tests.core.models import make_manager
from tests.security.houses import House, begin, copy_of, outcome
from tests.servers import RedisServer

Build = Callable[..., SessionManager[Any]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server)])
def index(request: pytest.FixtureRequest, cookie_house: House) -> Iterator[Callable[[], Store]]:
    """Return what opens the index's store; every node has its own connection."""
    if request.param == "memory":
        shared = MemoryStore(clock=cookie_house.clock)
        yield lambda: shared
        return
    server: RedisServer = request.getfixturevalue("redis_server")
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
    manager = cookie_house.node(parts={"revocation_store": index()})
    node = manager.blocking
    token = begin(node, principal="42")
    cookie_house.clock.advance(1)
    node.revoke_all("42")
    store = index()
    key = _key("not-before", manager.engine.ring.label("not-before", "42"))
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
        node = cookie_house.node(parts={"revocation_store": index}, single_process=True, **settings).blocking
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


# -- R39: what moves or ends a session creates the entry of its id ------------------------------------------------------


def rotate(node: BlockingManager[Any], token: str) -> str | None:
    """Rotate as one request; return the new cookie, if there is one."""
    session = node.open(token)
    session.rotate()
    return node.commit(session).token


def test_r39_a_rotation_in_flight_does_not_survive_a_logout(node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    slow, leaving = node.open(token), node.open(token)
    slow.rotate()
    leaving.logout()
    node.commit(leaving)
    assert node.commit(slow).action.value == "keep"
    assert slow.state.value == "destroyed"


def test_r39_a_slow_write_does_not_overwrite_the_cookie_of_a_login_since(node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    slow, touching, leaving = node.open(token), node.open(token), node.open(token)
    slow.data.note = "slow"
    touching.touch()
    leaving.logout()
    node.commit(leaving)
    begin(node, principal="42")
    assert [node.commit(late).action.value for late in (slow, touching)] == ["keep", "keep"]


def test_r39_a_cookie_that_was_to_be_sent_is_not_when_the_session_has_ended_since(node: BlockingManager[Any]) -> None:
    session = node.open(begin(node, principal="42"))
    session.data.note = "saved early"
    assert node.commit(session).action.value == "set"
    node.revoke(session.id)
    session.data.note = "and again at the end"
    assert node.commit(session).action.value == "keep"


def test_r39_an_entry_names_the_next_id_under_a_seal_and_no_token(
    cookie_house: House, node: BlockingManager[Any], index: Callable[[], Store]
) -> None:
    token = begin(node, principal="42")
    old = node.open(token).id
    fresh = rotate(node, token) or ""
    entry = run_blocking(index().load(_key("revoked", old)))
    assert entry is not None
    new = node.open(fresh).id
    assert new.encode() not in entry.payload
    assert fresh.encode() not in entry.payload
    # and no cookie can be made of it
    assert outcome(node, run_blocking(cookie_house.store().create(entry, write_id=b""))) == "corrupt"


@pytest.mark.parametrize("content", [b"\xc1", b"", "of another id"])
def test_r39_an_entry_that_was_tampered_with_leads_nowhere(
    node: BlockingManager[Any], index: Callable[[], Store], content: bytes | str
) -> None:
    token, other = begin(node, principal="42"), begin(node, principal="43")
    late, victim = node.open(token), node.open(other).id
    rotate(node, token)
    theirs = rotate(node, other) or ""
    entries = [run_blocking(index().load(_key("revoked", id))) for id in (late.id, victim)]
    assert entries[0] is not None
    assert entries[1] is not None
    forged = content if isinstance(content, bytes) else entries[1].payload
    run_blocking(index().replace(copy_of(entries[0], version=2, payload=forged), expected=1, write_id=bytes(8)))
    late.logout()
    if content == b"":
        node.commit(late)  # whoever can write to the index can also say that a session has ended
    else:
        with pytest.raises(SessionUnavailableError, match="cannot be read"):
            node.commit(late)
    assert outcome(node, theirs) == "loaded"
    assert outcome(node, token) == "unknown"


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_r39_a_rotation_whose_reply_was_lost_finds_out_whose_entry_it_is(cookie_house: House, fault: Fault) -> None:
    store = FaultyStore(MemoryStore(clock=cookie_house.clock))
    node = cookie_house.node(parts={"revocation_store": store}).blocking
    token = begin(node, principal="42")
    session = node.open(token)
    session.rotate()
    store.follow([fault])
    if fault is Fault.AFTER:
        fresh = node.commit(session).token or ""
        assert (outcome(node, token), outcome(node, fresh)) == ("unknown", "loaded")
    else:
        with pytest.raises(SessionUnavailableError):
            node.commit(session)
        assert outcome(node, token) == "loaded"


def test_r39_a_rotation_whose_reply_was_lost_does_not_take_a_logout_for_its_own(cookie_house: House) -> None:
    store = FaultyStore(MemoryStore(clock=cookie_house.clock))
    node = cookie_house.node(parts={"revocation_store": store}).blocking
    other = cookie_house.node(parts={"revocation_store": store.inner}).blocking
    session = node.open(begin(node, principal="42"))
    session.rotate()

    def plan(called: str) -> Fault:
        if called == "create":
            other.revoke(session._state.record.id)  # type: ignore[union-attr]
            return Fault.BEFORE
        return Fault.NONE

    store.follow(plan)
    assert node.commit(session).action.value == "keep"


def test_r39_a_cookie_that_is_too_large_for_the_new_id_leaves_the_session_alone(node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    session = node.open(token)
    session.data.note = "x" * 4000
    session.rotate()
    with pytest.raises(CookieTooLargeError):
        node.commit(session)
    assert outcome(node, token) == "loaded"


def test_r39_an_outage_of_the_index_puts_off_a_touch_and_refuses_a_write(cookie_house: House) -> None:
    store = FaultyStore(MemoryStore(clock=cookie_house.clock))
    node = cookie_house.node(parts={"revocation_store": store}).blocking
    token = begin(node, principal="42")
    touching, writing = node.open(token), node.open(token)
    touching.touch()
    writing.data.note = "new"
    store.follow(lambda _: Fault.BEFORE)
    assert node.commit(touching).action.value == "keep"
    with pytest.raises(SessionUnavailableError):
        node.commit(writing)


def test_r39_a_revoked_cookie_is_reported_with_its_id(cookie_house: House, node: BlockingManager[Any]) -> None:
    token = begin(node, principal="42")
    id_ = node.open(token).id
    assert node.revoke(id_)
    assert not node.revoke(id_), "it is over already"
    outcome(node, token)
    event = cookie_house.observer.events[-1]
    assert (event.name, event.reason, event.id) == ("rejected", "unknown", id_)


def test_r39_whoever_ends_a_rotated_session_says_under_which_id_it_went_on(
    cookie_house: House, node: BlockingManager[Any]
) -> None:
    token = begin(node, principal="42")
    old = node.open(token).id
    new = node.open(rotate(node, token)).id
    assert node.revoke(old)
    event = cookie_house.observer.events[-1]
    assert (event.name, event.id, event.reason) == ("deleted", new, "revoked")


class Ahead:
    """The clock of a node that is as far ahead as is tolerated."""

    def __init__(self, clock: Any) -> None:
        self.monotonic = clock.monotonic
        self.time: Callable[[], float] = lambda: clock.time() + 60.0


@pytest.fixture
def ahead(cookie_house: House, index: Callable[[], Store]) -> BlockingManager[Any]:
    """Return a node whose clock is 60 seconds ahead."""
    clock: Any = Ahead(cookie_house.clock)
    settings = {"secret": cookie_house.secret, "encrypt": True}
    return make_manager(cookie_house.store(), clock=clock, settings=settings, revocation_store=index()).blocking


def test_r39_revoke_all_ends_sessions_that_began_on_a_node_that_is_ahead(
    node: BlockingManager[Any], ahead: BlockingManager[Any]
) -> None:
    token = begin(ahead, principal="42")
    node.revoke_all("42")
    assert (outcome(node, token), outcome(ahead, token)) == ("unknown", "unknown")


def test_r39_who_logs_in_after_revoke_all_is_logged_in_whatever_the_clocks_say(
    node: BlockingManager[Any], ahead: BlockingManager[Any]
) -> None:
    ahead.revoke_all("42")
    token = begin(node, principal="42")
    anonymous = begin(node)
    session = node.open(anonymous)
    session.login("42")
    other = node.commit(session).token or ""
    assert [outcome(node, one) for one in (token, other)] == ["loaded", "loaded"]
    node.revoke_all("42")
    assert [outcome(node, one) for one in (token, other)] == ["unknown", "unknown"]


def test_r39_an_entry_lasts_as_long_as_the_cookie_where_the_clock_of_the_index_is_ahead(cookie_house: House) -> None:
    parts = {"revocation_store": MemoryStore(clock=Ahead(cookie_house.clock))}
    node = cookie_house.node(parts=parts, idle_timeout="24h").blocking
    token = begin(node, principal="42")
    session = node.open(token)
    session.logout()
    node.commit(session)
    cookie_house.clock.advance(24 * 3600 - 1)
    assert outcome(node, token) == "unknown"


def test_r39_who_is_spared_stays_so_through_rotations_before_and_after(
    cookie_house: House, node: BlockingManager[Any]
) -> None:
    token, other = begin(node, principal="42"), begin(node, principal="42")
    first = node.open(token).id
    token = rotate(node, token) or ""
    node.revoke_all("42", except_id=first)
    for _ in range(3):
        token = rotate(node, token) or ""
        assert (outcome(node, token), outcome(node, other)) == ("loaded", "unknown")
        cookie_house.clock.advance(100)
    node.revoke_all("42", except_id=first)
    assert outcome(node, token) == "loaded"
    node.revoke_all("42")
    assert outcome(node, token) == "unknown"
