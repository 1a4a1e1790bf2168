"""Somebody may write to the server of the store: what they leave there is damage, and no exception (SECURITY R50)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import LoadOutcome
from sojourn.crypto import token_id
from sojourn.manager import BlockingManager
from sojourn.session import EMPTY, decode_payload, encode_payload
from sojourn_store_redis import records
from tests.security.houses import House, begin
from tests.servers import RedisServer

pytestmark = pytest.mark.server
EVERY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

moments = (
    st.sampled_from([math.inf, -math.inf, math.nan, 0.0, -1.0, 1e12, 2.0**53, 253_402_300_800.0, -1e300]) | st.floats()
)
versions = st.sampled_from([-1, 0, 1, 2**62, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)
maps = st.binary(max_size=20) | st.dictionaries(st.text(max_size=3), st.text(max_size=3)).map(msgspec.msgpack.encode)


@pytest.fixture
def redis_house(redis_server: RedisServer) -> Iterator[House]:
    redis_server.start_if_stopped()
    redis_server.flush()
    house = House("redis", redis_server)
    yield house
    house.close()


def use_everything(node: BlockingManager[Any], token: str) -> None:
    """Call whatever meets a record; none of it may raise."""
    session = node.open(token)
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
        _ = found.expires_at, found.csrf_token()
    assert node.count() >= len(node.all_session_ids()) - 1
    node.reseal()
    node.revoke_all("42")
    node.revoke(token_id(token))


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
