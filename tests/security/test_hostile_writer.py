"""Somebody may write to the server of the store: what they leave there is damage, and no exception (SECURITY R50)."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sojourn import LoadOutcome, SessionManager
from sojourn.crypto import encode_bytes, token_id
from sojourn.errors import SessionConflictError, SessionUnavailableError
from sojourn.manager import BlockingManager
from sojourn.session.payload import EMPTY, decode_payload, encode_payload
from sojourn.testing import FakeClock, RecordingObserver
from sojourn_store_redis import ClusteredRedisStore, RedisStore, records
from tests.core.models import make_manager
from tests.security.houses import House, begin
from tests.servers import ClusterSetup, RedisServer

pytestmark = pytest.mark.server
EVERY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

moments = (
    st.sampled_from([math.inf, -math.inf, math.nan, 0.0, -1.0, 1e12, 2.0**53, 253_402_300_800.0, -1e300]) | st.floats()
)
versions = st.sampled_from([-1, 0, 1, 2**62, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
maps = st.binary(max_size=20) | st.dictionaries(st.text(max_size=3), st.text(max_size=3)).map(msgspec.msgpack.encode)


@pytest.fixture
def redis_house(redis_server: RedisServer) -> Iterator[House]:
    house = House("redis", redis_server)
    yield house
    house.close()


def use_everything(node: BlockingManager[Any], token: str) -> None:
    """Call whatever meets a record; none of it may raise."""
    session = node.open(token)
    assert node.inspect(token).outcome in {session.outcome, LoadOutcome.LOADED}
    if session.outcome is LoadOutcome.FUTURE:
        return  # by chance what is shifted looks like a record under another key, which is left as it is (FAILURES F4)
    assert session.outcome in {LoadOutcome.LOADED, LoadOutcome.EXPIRED, LoadOutcome.UNKNOWN, LoadOutcome.CORRUPT}
    _ = session.data, session.principal, session.created_at, session.authenticated_at, session.decisions
    assert session.time_until_expiry.total_seconds() >= 0
    assert session.expires_at.year < 10_000
    session.verify_csrf(session.csrf_token())
    _ = dict(session), dict(session.flash)
    session.touch()
    session["mine"] = 1
    node.commit(session)
    for info in node.list("42"):
        assert info.expires_at >= info.created_at
    for found in node.find_by(lambda each: each.data.note == "a note"):
        _ = found.expires_at, found.last_seen
    assert node.count() >= len(node.all_session_ids()) - 1
    node.reseal()
    node.revoke_all("42")
    node.revoke(token_id(token))


# The label of this length ends within a character of the payload.
@example(encrypt=False, form=1, version=None, idle=None, absolute=math.inf, count=None, length=26, cut=400)
@EVERY
@given(
    encrypt=st.booleans(),
    form=st.sampled_from([0, records.FORMAT, 255]),
    version=st.none() | versions,
    idle=st.none() | moments,
    absolute=st.none() | moments,
    count=st.none() | st.integers(0, 255),
    length=st.none() | st.integers(0, 255),
    cut=st.integers(0, 400),
)
def test_r50_no_head_of_a_record_is_an_exception(
    redis_house: House, encrypt: bool, form: int, cut: int, **written: float | None
) -> None:
    node = redis_house.node(encrypt=encrypt).blocking
    token = begin(node, principal="42")
    key = f"sojourn:session:{token_id(token)}"
    assert redis_house.server is not None
    with redis_house.server.client() as client:
        value: bytes = client.get(key)
        names = ("version", "idle", "absolute", "count", "slots", "length")
        head = dict(zip(names, records._HEAD.unpack_from(value)[1:], strict=True))
        head.update((name, new) for name, new in written.items() if new is not None)
        packed = records._HEAD.pack(form, *head.values()) + value[records.HEAD_BYTES :]
        client.set(key, packed if cut > 300 else packed[: len(packed) - cut])
    use_everything(node, token)


@EVERY
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "csrf": st.none() | st.binary(max_size=70),
            "fingerprint": st.binary(max_size=40),
            "principal": st.text(max_size=3),
            "client": st.text(max_size=300),
            "model": st.binary(max_size=9),
            "data": st.binary(max_size=20),
            "extras": maps,
            "flash": maps,
            **dict.fromkeys(["created_at", "issued_at", "authenticated_at", "lifetime", "outlives"], moments),
        },
    )
)
def test_r50_no_payload_in_the_clear_is_an_exception(redis_house: House, changes: dict[str, Any]) -> None:
    node = redis_house.node(encrypt=False, binding="observe").blocking
    token = begin(node, principal="42")
    raw = redis_house.raw(token_id(token))
    payload = msgspec.structs.replace(decode_payload(raw[3:]), **changes)
    redis_house.write_raw(token_id(token), raw[:3] + encode_payload(payload))
    use_everything(node, token)


@EVERY
@given(head=st.binary(max_size=15), day=st.none() | st.integers(0, 2**32 - 1), encrypt=st.booleans())
def test_r50_no_head_of_an_envelope_is_an_exception(
    redis_house: House, head: bytes, day: int | None, encrypt: bool
) -> None:
    node = redis_house.node(encrypt=encrypt).blocking
    token = begin(node, principal="42")
    raw = redis_house.raw(token_id(token))
    written = head + raw[len(head) :] if day is None else raw[:3] + day.to_bytes(4) + raw[7:]
    redis_house.write_raw(token_id(token), written)
    assert node.keys_in_use()
    use_everything(node, token)


def test_r50_a_csrf_secret_of_another_length_is_damage(redis_house: House) -> None:
    node = redis_house.node(encrypt=False).blocking
    token = begin(node)
    raw = redis_house.raw(token_id(token))
    short = msgspec.structs.replace(decode_payload(raw[3:]), csrf=b"short")
    redis_house.write_raw(token_id(token), raw[:3] + encode_payload(short))
    assert node.open(token).outcome is LoadOutcome.CORRUPT
    assert short.extras == EMPTY


def test_r50_a_session_that_never_idles_is_damage_and_hides_nobody_else_in_the_list(redis_house: House) -> None:
    node = redis_house.node().blocking
    token, other = begin(node, principal="42"), begin(node, principal="42")
    key = f"sojourn:session:{token_id(token)}"
    assert redis_house.server is not None
    with redis_house.server.client() as client:
        value: bytes = client.get(key)
        client.set(key, value[:9] + records.pack_time(math.inf) + value[17:])
    assert node.open(token).outcome is LoadOutcome.CORRUPT
    assert [info.id for info in node.list("42")] == [token_id(other)]


@EVERY
@given(name=st.binary(min_size=1, max_size=8), score=moments.filter(lambda each: not math.isnan(each)))
def test_r50_no_name_in_redis_is_an_exception(redis_house: House, name: bytes, score: float) -> None:
    node = redis_house.node()
    token = begin(node.blocking, principal="42")
    label = node.engine.label("42")
    assert redis_house.server is not None
    with redis_house.server.client() as client:
        client.set(b"sojourn:session:" + name, b"\x01" * 80)
        client.zadd(f"sojourn:index:{label}", {name: score})
    assert token_id(token) in [info.id for info in node.blocking.list("42")]
    assert node.blocking.revoke_all("42") >= 1
    use_everything(node.blocking, begin(node.blocking, principal="42"))


@dataclass
class Place:
    """A store in Redis that a manager uses, and whoever else may write there."""

    store: Any
    clock: FakeClock
    client_of: Callable[[str], Any]
    """Returns a client of the server that holds a key."""
    flush: Callable[[], object]


PLACES: dict[str, Any] = {
    "redis": RedisStore,
    "clustered-redis": ClusteredRedisStore,
    "redis on a cluster": RedisStore,
    "clustered-redis on a cluster": ClusteredRedisStore,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSetup]:
    with ClusterSetup() as setup:
        yield setup


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Yield each store that is built from an address, on one server and on a Redis Cluster."""
    kind: str = request.param
    server: RedisServer | ClusterSetup
    if "on a cluster" in kind:
        setup: ClusterSetup = request.getfixturevalue("cluster")
        url, server, client_of = setup.cluster_url, setup, lambda key: setup.primary_of(key).client()
    else:
        single: RedisServer = request.getfixturevalue("shared_redis_server")
        single.start_if_stopped()
        url, server, client_of = single.url, single, lambda _: single.client()
    clock = FakeClock()
    whole = PLACES[kind].from_url(url, clock=clock, timeout=20.0, connect_timeout=20.0)
    yield Place(whole.blocking_twin(), clock, client_of, server.flush)
    asyncio.run(whole.aclose())


junk = st.binary(max_size=90) | st.binary(max_size=90).map(lambda rest: bytes((records.FORMAT,)) + rest)
"""Strings that somebody wrote, the second half with the first byte of our records."""
TYPES: dict[str, Callable[[Any, str, bytes], object]] = {
    "string": lambda client, key, value: client.set(key, value),
    "list": lambda client, key, value: client.rpush(key, value, b"more"),
    "set": lambda client, key, value: client.sadd(key, value),
    "sorted set": lambda client, key, value: client.zadd(key, {value: 1.0}),
    "hash": lambda client, key, value: client.hset(key, value, value),
    "stream": lambda client, key, value: client.xadd(key, {b"field": value}),
    "hyperloglog": lambda client, key, value: client.pfadd(key, value),
    "place": lambda client, key, value: client.geoadd(key, (1.0, 2.0, value)),
}
KEYS = ("record", "anonymous record", "trail", "redirect", "roll", "index", "stranger")


def keys_of(node: SessionManager[Any], ids: dict[str, str]) -> dict[str, str]:
    """Return the keys of everything that a manager keeps in Redis, by kind."""
    label = node.engine.label("42")
    roll = encode_bytes(hashlib.sha256(f"roll:{label}".encode()).digest())
    found = {kind: f"sojourn:session:{id}" for kind, id in {**ids, "roll": roll, "stranger": "s" * 43}.items()}
    return {**found, "index": f"sojourn:index:{label}"}


@settings(EVERY, max_examples=settings().max_examples * 3 // 8)  # on four places
@given(
    written=st.dictionaries(st.sampled_from(KEYS), st.tuples(st.sampled_from(sorted(TYPES)), junk), min_size=1),
    in_flight=st.sampled_from(["change", "touch", "rotate", "login", "logout", "clear"]),
)
def test_r50_no_key_of_any_type_is_an_exception(
    place: Place, written: dict[str, tuple[str, bytes]], in_flight: str
) -> None:
    place.flush()
    observer = RecordingObserver()
    limits = {"max_sessions": 4, "renew_after": 60.0, "retry_attempts": 0, "encrypt": True}
    manager = make_manager(place.store, clock=place.clock, settings=limits, observers=[observer])
    node = manager.blocking

    def moved(principal: str | None, *, renews: bool = False) -> tuple[str, str]:
        former = token = begin(node, principal=principal)
        place.clock.advance(61.0 if renews else 1.0)
        session = node.open(token)
        session.data.count += 1
        if not renews:
            session.rotate()
        token = node.commit(session).token or ""
        assert token != former
        return former, token

    tokens = {"record": begin(node, principal="42"), "anonymous record": begin(node)}
    tokens["trail"], rotated = moved("42")
    tokens["redirect"], renewed = moved("42", renews=True)
    keys = keys_of(manager, {kind: token_id(token) for kind, token in tokens.items()})
    held = node.open(tokens["record"])
    for kind, (type_, value) in written.items():
        with place.client_of(keys[kind]) as client:
            client.delete(keys[kind])
            TYPES[type_](client, keys[kind], value)
    observer.events.clear()
    # Nobody is in a session that was written over, and there is one event for each; everybody else is in theirs.
    for kind, token in tokens.items():
        session = node.open(token, fresh=True)
        reached = {"trail": False, "redirect": "redirect" not in written}.get(kind, kind not in written)
        assert (session.outcome is LoadOutcome.LOADED) is reached
        if not reached:
            assert session.outcome is not LoadOutcome.UNAVAILABLE
            assert (session.principal, session.data.note) == (None, "")
            assert "rejected" in observer.names or "expired" in observer.names
            if written.get(kind, ("string",))[0] not in {"string", "hyperloglog"}:
                assert session.outcome is LoadOutcome.CORRUPT
    alive = {rotated: "42", renewed: "42"} | {
        token: "42" if kind == "record" else None
        for kind, token in tokens.items()
        if kind in {"record", "anonymous record"} and kind not in written
    }
    for token, principal in alive.items():
        assert node.open(token, fresh=True).principal == principal
    assert {info.id for info in node.list("42")} <= {token_id(token) for token in alive}
    # The request in flight is told of an outage or a conflict at worst, as by any other damage.
    try:
        match in_flight:
            case "change":
                held.data.count += 1
            case "login":
                held.login("42")
            case _:
                getattr(held, in_flight)()
        node.commit(held)
    except (SessionUnavailableError, SessionConflictError):
        pass
    # Logins count, and are listed; whatever goes over all sessions gets through.
    mine = begin(node, principal="42")
    assert token_id(mine) in [info.id for info in node.list("42")]
    named = node.all_session_ids()
    assert {token_id(token) for token in (mine, rotated)} <= set(named)
    assert node.count() == len(named)
    node.reseal()
    assert "42" in [each.principal for each in node.each_session()]
    for kind in ("trail", "redirect", "record"):
        node.revoke(keys[kind].removeprefix("sojourn:session:"))
    node.revoke_all("42", except_id=token_id(mine))
    assert node.open(mine, fresh=True).principal == "42"
    node.revoke_all("42")
    assert node.open(mine, fresh=True).outcome is LoadOutcome.UNKNOWN
    node.clear()
    assert node.count() == 0
