"""Whatever was sealed opens only where it was sealed for, unchanged (SECURITY R24, R25, R33)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore
from sojourn.crypto import decode_bytes, encode_bytes, new_token, token_id
from sojourn.crypto.ciphers import BUILTIN_CIPHERS
from sojourn.crypto.keys import new_secret
from sojourn.manager import run_blocking
from sojourn.testing import FakeClock
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from tests.core.models import make_manager
from tests.packed import pack, unpack
from tests.security.houses import House, begin, copy_of, outcome
from tests.servers import RedisServer

SUITES = [cipher.name for cipher in BUILTIN_CIPHERS]
REFUSED = {"corrupt", "future"}  # an envelope that names another key or format is "future": read-only, no session
SLOW = settings(
    max_examples=min(settings().max_examples, 400), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def damages(size: int) -> st.SearchStrategy[tuple[str, int, int]]:
    """Return one flipped, inserted, removed or cut byte somewhere in *size* bytes."""
    return st.tuples(
        st.sampled_from(["flip", "insert", "remove", "cut"]), st.integers(0, size - 1), st.integers(1, 255)
    )


def damage(raw: bytes, how: tuple[str, int, int]) -> bytes:
    step, place, value = how
    match step:
        case "flip":
            return raw[:place] + bytes((raw[place] ^ value,)) + raw[place + 1 :]
        case "insert":
            return raw[:place] + bytes((value,)) + raw[place:]
        case "remove":
            return raw[:place] + raw[place + 1 :]
        case _:
            return raw[:place]


@pytest.mark.parametrize("suite", SUITES)
def test_r24_any_damaged_byte_of_a_stored_session_is_refused(server_house: House, suite: str) -> None:
    node = server_house.node(cipher=next(one for one in BUILTIN_CIPHERS if one.name == suite).name).blocking
    token = begin(node, principal="42")
    id = token_id(token)
    genuine = server_house.raw(id)

    @SLOW
    @given(damages(len(genuine)))
    def refused(how: tuple[str, int, int]) -> None:
        damaged = damage(genuine, how)
        server_house.write_raw(id, damaged)
        # nothing at all is what a rotation leaves of a session
        assert outcome(node, token) in (REFUSED if damaged else {"unknown"}) or damaged == genuine
        assert server_house.raw(id) == damaged, "the bytes are kept (FAILURES F3)"

    refused()
    server_house.write_raw(id, genuine)
    assert outcome(node, token) == "loaded"


@pytest.mark.parametrize("suite", SUITES)
def test_r24_any_damaged_byte_of_a_cookie_is_refused(cookie_house: House, suite: str) -> None:
    node = cookie_house.node(cipher=suite).blocking
    token = begin(node, principal="42")
    raw = decode_bytes(token)

    @SLOW
    @given(damages(len(raw)))
    def refused(how: tuple[str, int, int]) -> None:
        damaged = damage(raw, how)
        assert damaged == raw or outcome(node, encode_bytes(damaged)) != "loaded"

    @SLOW
    @given(damages(len(token)))
    def refused_as_text(how: tuple[str, int, int]) -> None:
        damaged = damage(token.encode(), how).decode("latin-1")
        assert damaged == token or outcome(node, damaged) != "loaded"

    refused()
    refused_as_text()
    assert outcome(node, token) == "loaded"


def test_r24_every_refusal_looks_the_same(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node)
    genuine = server_house.raw(token_id(token))
    told: set[tuple[str, str | None]] = set()
    for place in range(15, len(genuine)):
        server_house.write_raw(token_id(token), damage(genuine, ("flip", place, 1)))
        server_house.observer.clear()
        assert outcome(node, token) == "corrupt"
        told.update((event.name, event.reason) for event in server_house.observer.events)
    assert told == {("rejected", "corrupt")}


def test_r25_a_record_moved_to_another_id_is_refused(server_house: House) -> None:
    node = server_house.node().blocking
    mine, theirs = begin(node, note="mine"), begin(node, principal="admin", note="theirs")
    own = server_house.raw(token_id(mine))
    server_house.write_raw(token_id(mine), server_house.raw(token_id(theirs)), source=token_id(theirs))
    assert outcome(node, mine) == "corrupt"
    server_house.write_raw(token_id(mine), own, source=token_id(mine))
    invented = new_token()
    server_house.write_raw(token_id(invented), own, source=token_id(mine))
    assert outcome(node, invented) == "corrupt"


def test_r25_two_payloads_that_change_places_are_refused(server_house: House) -> None:
    node = server_house.node().blocking
    one, two = token_id(first := begin(node, note="one")), token_id(second := begin(node, note="two"))
    payloads = server_house.raw(one), server_house.raw(two)
    server_house.write_raw(one, payloads[1])
    server_house.write_raw(two, payloads[0])
    assert (outcome(node, first), outcome(node, second)) == ("corrupt", "corrupt")


def test_r25_an_older_payload_under_a_newer_version_is_refused(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, note="rich")
    older = server_house.raw(token_id(token))
    session = node.open(token)
    session.data.note = "poor"
    node.commit(session)
    server_house.write_raw(token_id(token), older)
    assert outcome(node, token) == "corrupt"


def test_r25_the_absolute_deadline_cannot_be_moved(server_house: House) -> None:
    node = server_house.node()
    token = begin(node.blocking)
    id = token_id(token)
    store = node.engine.store.server
    record = run_blocking(store.load(id))
    assert record is not None
    run_blocking(store.delete(id))
    longer = copy_of(record, absolute_deadline=record.absolute_deadline + 1e6, idle_deadline=record.idle_deadline + 1e6)
    run_blocking(store.create(longer, write_id=bytes(8)))
    assert outcome(node.blocking, token) == "corrupt"


def test_r25_a_session_of_another_namespace_or_deployment_is_refused(server_house: House) -> None:
    ours = server_house.node().blocking
    token = begin(ours)
    other_namespace = server_house.node(namespace="other", store=server_house.store()).blocking
    assert outcome(other_namespace, token) == "corrupt"
    other_secret = server_house.node(secret=None, secrets=[House("memory", None).secret]).blocking
    assert outcome(other_secret, token) == "future"


def test_r25_a_cookie_under_another_name_namespace_or_secret_is_refused(cookie_house: House) -> None:
    token = begin(cookie_house.node().blocking, principal="42")
    assert outcome(cookie_house.node(cookie_name="admin_session").blocking, token) == "corrupt"
    assert outcome(cookie_house.node(namespace="other").blocking, token) == "corrupt"
    assert outcome(cookie_house.node(secret=None, secrets=[House("memory", None).secret]).blocking, token) == "corrupt"


def test_r25_a_stored_session_does_not_open_as_a_cookie_nor_a_cookie_in_a_store(server_house: House) -> None:
    cookies = House("cookie", None)
    cookies.secret, cookies.clock = server_house.secret, server_house.clock
    server, browser = server_house.node(), cookies.node().blocking
    stored = begin(server.blocking, principal="42")
    record = run_blocking(server.engine.store.server.load(token_id(stored)))
    assert record is not None
    assert outcome(browser, pack(record)) == "corrupt"
    cookie = unpack(begin(browser, principal="42"))
    assert cookie is not None
    server_house.write_raw(token_id(stored), cookie.payload)
    assert outcome(server.blocking, stored) == "corrupt"


def test_r25_every_claim_of_a_cookie_is_bound(cookie_house: House) -> None:
    node = cookie_house.node().blocking
    record = unpack(begin(node))
    assert record is not None
    other_id = unpack(begin(node))
    assert other_id is not None
    for changes in (
        {"idle_deadline": record.idle_deadline + 1},
        {"absolute_deadline": record.absolute_deadline + 1},
        {"version": record.version + 1},
        {"id": other_id.id},
        {"payload": other_id.payload},
    ):
        assert outcome(node, pack(copy_of(record, **changes))) == "corrupt", changes


def test_r33_what_cannot_be_opened_is_never_overwritten_and_the_visitor_begins_anew(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    id = token_id(token)
    damaged = damage(server_house.raw(id), ("flip", 40, 1))
    server_house.write_raw(id, damaged)
    session = node.open(token)
    session.data.note = "new"
    fresh = node.commit(session).token
    assert fresh not in {None, token}
    assert server_house.raw(id) == damaged
    assert node.open(fresh).principal is None


@pytest.mark.parametrize("plain", [b"\x93\xc4\x02{}" + b"\xcb\x7f\xf8" + bytes(6), b"\x91" * 5000, b"\xa1\xff", b""])
def test_r33_junk_in_an_unsealed_store_is_no_session_and_no_error(server_house: House, plain: bytes) -> None:
    node = server_house.node(encrypt=False).blocking
    token = begin(node, principal="42")
    genuine = server_house.raw(token_id(token))
    server_house.write_raw(token_id(token), genuine[:15] + plain)
    assert outcome(node, token) == "corrupt"


def test_r33_extras_that_do_not_decode_are_no_session_and_no_error(server_house: House) -> None:
    from sojourn.session.payload import Payload, encode_payload

    node = server_house.node(encrypt=False).blocking
    token = begin(node)
    genuine = server_house.raw(token_id(token))
    for extras in (b"\x81\xa1\xff\xc0", b"\x91\xc0", b"\x81\xa1k" + b"\x91" * 5000, b""):
        content = Payload(data=b"{}", created_at=1.0, issued_at=1.0, extras=extras)
        server_house.write_raw(token_id(token), genuine[:15] + encode_payload(content))
        assert outcome(node, token) == "corrupt"
        content = Payload(data=b"{}", created_at=1.0, issued_at=1.0, flash=extras)
        server_house.write_raw(token_id(token), genuine[:15] + encode_payload(content))
        assert outcome(node, token) == "corrupt"


@pytest.mark.parametrize("namespaces", [("staging", "production"), ("a:b", "c"), ("", "shop")])
def test_r42_a_record_that_is_copied_to_another_namespace_of_a_server_does_not_open(
    namespaces: tuple[str, str],
) -> None:
    class Shared(MemoryStore):
        encrypt = True

        def __init__(self, namespace: str, clock: FakeClock) -> None:
            super().__init__(clock=clock)
            self.namespace = namespace

    clock, secret = FakeClock(), new_secret()
    from_, to = (Shared(name, clock) for name in namespaces)
    sites = [make_manager(store, clock=clock, settings={"secret": secret}).blocking for store in (from_, to)]
    session = sites[0].open(None)
    session.login("administrator")
    token = sites[0].commit(session).token
    assert token is not None
    to._blobs.update(from_._blobs)
    assert sites[0].open(token).principal == "administrator"
    copied = sites[1].open(token)
    assert (copied.outcome, copied.principal) == (LoadOutcome.CORRUPT, None)


@pytest.mark.server
@pytest.mark.parametrize("name", ["redis", "clustered-redis"])
def test_r42_nor_does_one_that_is_copied_on_a_real_server(name: str, redis_server: RedisServer) -> None:
    secret, clock = new_secret(), FakeClock()
    kind: Any = {"redis": RedisStore, "clustered-redis": ClusteredRedisStore}[name]
    stores = [kind.from_url(redis_server.url, namespace=place, clock=clock) for place in ("staging", "production")]
    settings = {"secret": secret, "encrypt": True}
    staging, production = (make_manager(store, clock=clock, settings=settings).blocking for store in stores)
    token = begin(staging, principal="administrator")
    with redis_server.client() as client:
        client.copy(f"staging:session:{token_id(token)}", f"production:session:{token_id(token)}")
    assert outcome(staging, token) == "loaded"
    assert outcome(production, token) == "corrupt"
    for store in stores:
        asyncio.run(store.aclose())


@given(st.binary(min_size=59, max_size=120))
def test_r33_any_value_in_redis_is_a_record_or_none(value: bytes) -> None:
    import math

    from sojourn_store_redis.records import unpack as unpack_redis

    for raw in (value, b"\x01" + value[1:], b"\x01\x00" + value[2:]):
        record = unpack_redis("an id", raw)
        assert record is None or (record.version >= 0 and math.isfinite(record.deadline))


def test_r33_a_label_in_redis_that_is_no_text_is_no_outage() -> None:
    from sojourn.testing import make_record
    from sojourn_store_redis.records import pack as pack_redis
    from sojourn_store_redis.records import unpack as unpack_redis

    value = bytearray(pack_redis(make_record(index_label="a label"), bytes(8)))
    value[60] = 0xFF
    assert unpack_redis("an id", bytes(value)) is not None
