"""When sessions end, and who ends them (SECURITY R1, R3, R8-R10, R12-R15)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn.binding import Client
from sojourn.crypto import is_token, new_token, token_id
from sojourn.errors import ConfigurationError, SessionReadOnlyError, TooManySessionsError
from sojourn.testing import Fault, FaultyStore
from tests.security.houses import House, begin, outcome
from tests.servers import RedisServer

HOUR, DAY = 3600.0, 86_400.0
EVERY = settings(
    max_examples=min(settings().max_examples, 400), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EVERY
@given(steps=st.lists(st.floats(1, 2 * HOUR), min_size=1, max_size=60), writes=st.lists(st.booleans(), min_size=60))
def test_r10_no_activity_moves_the_absolute_deadline(house: House, steps: list[float], writes: list[bool]) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    begun, used = house.clock.time(), house.clock.time()
    for pause, write in zip(steps, writes, strict=False):
        house.clock.advance(pause)
        now = house.clock.time()
        session = node.open(token)
        opened = session.outcome.value == "loaded"
        assert not opened or (now - used < HOUR and now - begun < DAY)
        # a touch may lag by a tenth of the idle timeout, so a session that was used lives at least the rest of it
        assert opened or now - used >= 0.9 * HOUR or now - begun >= DAY
        if not opened:
            return
        assert session.expires_at.timestamp() <= begun + DAY
        if write:
            session.data.count += 1
        else:
            session.touch()
        token = node.commit(session).token or token
        used = now


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_r10_a_record_past_its_absolute_deadline_is_no_session_even_if_the_store_has_it(
    house: House, late: float
) -> None:
    node = house.node(idle_timeout="24h").blocking
    token = begin(node, principal="42")
    house.clock.advance(DAY - 1)
    assert outcome(node, token) == "loaded"
    house.clock.advance(1 + late)
    assert outcome(node, token) in {"expired", "unknown"}


def test_r10_a_store_that_forgets_to_expire_gives_no_session(house: House) -> None:
    node = house.node()
    token = begin(node.blocking)
    store: Any = node.engine.store.store
    if not house.is_client_side:
        store._clock = type(house.clock)(house.clock.time())
    house.clock.advance(2 * HOUR)
    assert outcome(node.blocking, token) == "expired"


def test_r12_a_second_login_resets_both_clocks_and_rotates(house: House) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    for _ in range(45):
        house.clock.advance(HOUR / 2)
        session = node.open(token)
        session.data.count += 1
        token = node.commit(session).token or token
    session = node.open(token)
    before = session.id
    session.login("42")
    change = node.commit(session)
    assert change.token not in {None, token}
    assert change.max_age == DAY
    session = node.open(change.token)
    assert session.id != before
    assert session.created_at == session.authenticated_at
    assert session.created_at.timestamp() == house.clock.time()
    assert session.data.count == 45
    house.clock.advance(HOUR - 1)
    assert outcome(node, str(change.token)) == "loaded"


def test_r8_after_a_login_the_old_token_is_refused_by_every_node(server_house: House) -> None:
    node, other = server_house.node().blocking, server_house.node().blocking
    old = begin(node)
    assert outcome(other, old) == "loaded"
    session = node.open(old)
    session.login("42")
    fresh = str(node.commit(session).token)
    assert (outcome(other, old), outcome(other, fresh)) == ("unknown", "loaded")


def test_r9_a_renewed_token_works_for_the_grace_leads_to_the_new_record_and_extends_nothing(
    server_house: House,
) -> None:
    node = server_house.node(renew_after="10m", renew_grace="30s").blocking
    old = begin(node, principal="42")
    server_house.clock.advance(601)
    first, second = node.open(old), node.open(old)
    assert (first.data.note, second.data.note) == ("a note", "a note")
    answers = [node.commit(session) for session in (first, second)]
    assert answers[0] == answers[1], "concurrent renewals send the same cookie"
    fresh = str(answers[0].token)
    for _ in range(2):
        server_house.clock.advance(14)
        session = node.open(old)
        session.data.count += 1
        assert node.commit(session).token == fresh
        assert session.id == token_id(fresh)
    server_house.clock.advance(3)
    assert outcome(node, old) == "unknown"
    assert node.open(fresh).data.count == 2


def test_r9_a_successor_cannot_be_worked_out_without_the_key(server_house: House) -> None:
    node = server_house.node(renew_after="10m").blocking
    stranger = House("memory", None).node(renew_after="10m").engine
    old = begin(node)
    server_house.clock.advance(601)
    session = node.open(old)
    assert session.data.note
    fresh = node.commit(session).token
    derived = stranger.successor(old)
    assert derived is not None
    assert fresh not in {None, derived[0]}


@EVERY
@given(st.binary(min_size=32, max_size=32))
def test_r3_a_token_that_the_store_does_not_know_never_becomes_a_session(server_house: House, raw: bytes) -> None:
    from sojourn.crypto import encode_bytes

    node = server_house.node().blocking
    chosen = encode_bytes(raw)
    session = node.open(chosen)
    assert session.outcome.value == "unknown"
    session.login("victim")
    given_out = node.commit(session).token
    assert given_out not in {None, chosen}
    assert is_token(str(given_out))
    assert outcome(node, chosen) == "unknown"


def test_r14_the_list_shows_who_when_and_where_and_never_a_token(server_house: House) -> None:
    node = server_house.node().blocking
    tokens = []
    for agent in ("Mozilla/5.0 (X11; Linux) Firefox/140.0", "curl/8.0", None):
        session = node.open(None, Client("192.0.2.1", agent))
        session.login("42")
        tokens.append(str(node.commit(session).token))
        server_house.clock.advance(60)
    begin(node, principal="43")
    listed = node.list("42")
    assert [info.id for info in listed] == [token_id(token) for token in reversed(tokens)]
    assert [info.client for info in listed] == ["unknown client", "curl", "Firefox on Linux"]
    assert all(info.created_at == info.last_seen for info in listed)
    for token in tokens:
        assert token not in repr(listed)
        assert is_token(token)
    server_house.clock.advance(600)
    session = node.open(tokens[0])
    assert session.data is not None
    node.commit(session)
    assert node.list("42")[0].id == token_id(tokens[0])
    assert node.list("nobody") == []


def test_r14_revoke_and_revoke_all_end_sessions_for_every_node(server_house: House) -> None:
    node, other = server_house.node().blocking, server_house.node().blocking
    tokens = [begin(node, principal="42") for _ in range(4)]
    theirs = begin(node, principal="43")
    assert other.revoke(token_id(tokens[0])) is True
    assert other.revoke(token_id(tokens[0])) is False
    assert outcome(node, tokens[0]) == "unknown"
    assert other.revoke_all("42", except_id=token_id(tokens[1])) == 2
    assert [outcome(node, token) for token in tokens] == ["unknown", "loaded", "unknown", "unknown"]
    assert outcome(node, theirs) == "loaded"
    assert [info.id for info in node.list("42")] == [token_id(tokens[1])]


def test_r14_a_request_in_flight_does_not_bring_back_what_was_revoked(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    session = node.open(token)
    session.data.count = 9
    node.revoke_all("42")
    assert node.commit(session).action.value == "keep"
    assert outcome(node, token) == "unknown"
    assert node.list("42") == []


def test_r15_with_reject_the_session_too_many_is_refused_and_the_others_stay(server_house: House) -> None:
    node = server_house.node(max_sessions=2, max_sessions_policy="reject").blocking
    tokens = [begin(node, principal="42") for _ in range(2)]
    session = node.open(None)
    session.login("42")
    with pytest.raises(TooManySessionsError):
        node.commit(session)
    assert [outcome(node, token) for token in tokens] == ["loaded", "loaded"]
    assert len(node.list("42")) == 2
    begin(node, principal="43")
    again = node.open(tokens[0])
    again.login("42")
    assert node.commit(again).action.value == "set", "logging in anew is not one more"
    node.revoke(token_id(tokens[1]))
    begin(node, principal="42")


def test_r15_with_evict_oldest_the_one_used_longest_ago_goes(server_house: House) -> None:
    node = server_house.node(max_sessions=2, max_sessions_policy="evict_oldest").blocking
    first = begin(node, principal="42")
    server_house.clock.advance(60)
    second = begin(node, principal="42")
    server_house.clock.advance(600)
    session = node.open(first)
    assert session.data is not None
    node.commit(session)
    third = begin(node, principal="42")
    assert [outcome(node, token) for token in (first, second, third)] == ["loaded", "unknown", "loaded"]
    assert ("deleted", "max_sessions") in {(event.name, event.reason) for event in server_house.observer.events}


def test_r15_an_anonymous_session_becomes_one_of_the_principals_at_login(server_house: House) -> None:
    node = server_house.node(max_sessions=1, max_sessions_policy="evict_oldest").blocking
    first, anonymous = begin(node, principal="42"), begin(node)
    assert outcome(node, first) == "loaded"
    session = node.open(anonymous)
    session.login("42")
    fresh = str(node.commit(session).token)
    assert [outcome(node, token) for token in (first, anonymous, fresh)] == ["unknown", "unknown", "loaded"]


def test_r15_the_bound_holds_across_rotated_secrets(server_house: House) -> None:
    from sojourn import new_secret

    a, b = new_secret(), new_secret()
    first = begin(server_house.node(secrets=[a]).blocking, principal="42")
    node = server_house.node(secrets=[b, a], max_sessions=1).blocking
    second = begin(node, principal="42")
    assert [outcome(node, token) for token in (first, second)] == ["unknown", "loaded"]


def test_r15_a_store_without_an_index_refuses_the_setting(cookie_house: House) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_MAX_SESSIONS"):
        cookie_house.node(max_sessions=1)


def test_r13_logout_deletes_the_record_before_the_head_and_only_it_clears_the_cookie(server_house: House) -> None:
    node = server_house.node(binding="reject").blocking
    here = Client("192.0.2.1", "x")
    session = node.open(None, here)
    session.login("42")
    token = str(node.commit(session).token)
    raw = server_house.raw(token_id(token))
    for sent, client in ((token, Client("198.51.100.9", "y")), (new_token(), here)):
        stranger = node.open(sent, client)
        assert stranger.outcome.value in {"binding", "unknown"}
        assert node.commit(stranger).action.value == "keep"
    server_house.write_raw(token_id(token), raw[:-1] + bytes((raw[-1] ^ 1,)))
    damaged = node.open(token, here)
    assert (damaged.outcome.value, node.commit(damaged).action.value) == ("corrupt", "keep")
    server_house.write_raw(token_id(token), raw)
    leaving, slow = node.open(token, here), node.open(token, here)
    slow.data.count = 1
    leaving.logout()
    assert node.commit(leaving).action.value == "clear"
    assert outcome(node, token) == "unknown"
    assert node.commit(slow).action.value == "keep", "a slow request leaves the cookie alone"
    server_house.clock.advance(2 * DAY)
    expired = node.open(token, here)
    assert node.commit(expired).action.value == "keep"


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_r33_during_an_outage_nobody_is_anybody(server_house: House, fault: Fault) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    token = begin(node, principal="42")
    store.follow(lambda _: fault)
    session = node.open(token)
    assert (session.outcome.value, session.principal, session.data.note) == ("unavailable", None, "")
    with pytest.raises(SessionReadOnlyError):
        session.login("42")
    assert node.commit(session).action.value == "keep"
    store.follow(())
    assert outcome(node, token) == "loaded"


def _make(error: type[Exception], method: str) -> Exception:
    return error(f"a message of {method}")


def test_r33_whatever_a_store_raises_is_an_outage(server_house: House) -> None:
    for error in (ValueError, KeyError, OSError, RuntimeError, UnicodeError):
        store = FaultyStore(server_house.store(), error=partial(_make, error))
        node = server_house.node(store=store).blocking
        token = begin(node, principal="42")
        store.follow(lambda _: Fault.BEFORE)
        assert outcome(node, token) == "unavailable"


def test_r11_remember_may_be_longer_than_the_timeout_within_the_bound(server_house: House) -> None:
    node = server_house.node().blocking
    session = node.open(None)
    session.login("42", remember=timedelta(days=14))
    change = node.commit(session)
    assert change.max_age == 14 * DAY
    server_house.clock.advance(13 * DAY)
    assert outcome(node, str(change.token)) == "loaded"
    server_house.clock.advance(DAY)
    assert outcome(node, str(change.token)) in {"expired", "unknown"}


@pytest.mark.parametrize("knows_sessions", [True, False])
def test_r40_what_a_rotation_or_a_renewal_leaves_counts_as_no_session(
    server_house: House, knows_sessions: bool
) -> None:
    store = server_house.store()
    if not knows_sessions:
        store = FaultyStore(store)
        del store.scan_sessions
    node = server_house.node(store=store, renew_after=60.0, max_sessions=5).blocking
    token, other = begin(node, principal="42"), begin(node)
    for rotates in [True, False] * 3:
        server_house.clock.advance(61.0)
        session = node.open(token)
        session.data.count += 1
        if rotates:
            session.rotate()
        token = node.commit(session).token or ""
    session = node.open(token)
    session.login("42")
    token = node.commit(session).token or ""
    expected = sorted([token_id(token), token_id(other)])
    told: list[int] = []
    assert sorted(node.all_session_ids()) == expected
    assert sorted(each.id for each in node.each_session()) == expected
    assert (node.count(), node.count(progress=told.append), told) == (2, 2, [1, 2])


@pytest.mark.server
def test_sessions_are_counted_in_redis_without_loading_their_records(redis_server: RedisServer) -> None:
    house = House("redis", redis_server)
    node = house.node().blocking
    for _ in range(10):
        begin(node, principal="42", note="n" * 10_000)
    with redis_server.client() as client:
        client.config_resetstat()
        assert (node.count(), len(node.all_session_ids())) == (10, 10)
        info = client.info("commandstats")
        read = client.info("stats")["total_net_output_bytes"]
    house.close()
    called = {name.removeprefix("cmdstat_") for name in info}
    assert called & {"get", "mget", "eval", "evalsha"} == set()
    assert info["cmdstat_getrange"]["calls"] == 20
    assert read < 20_000
