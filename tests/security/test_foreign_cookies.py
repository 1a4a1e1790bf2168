"""Cookies of our name that somebody else put into the browser, where sessions live in cookies (SECURITY R45)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore, new_secret
from sojourn.crypto import decode_bytes, encode_bytes
from sojourn.manager import BlockingManager
from sojourn.testing import Fault, FaultyStore
from sojourn_store_cookie import OVERHEAD_BYTES
from tests.security.houses import House, begin, outcome

EVERY = settings(
    max_examples=min(settings().max_examples, 400), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def told(node: BlockingManager[Any], *cookies: str) -> tuple[str, str | None]:
    """Return outcome and principal of a request with these cookies, of which ours has its name."""
    name = node.settings.cookie_name
    session = node.begin(None, "; ".join(f"{name}={cookie}" for cookie in cookies)).session
    return session.outcome.value, session.principal


def forged(cookie: str, place: int, change: int) -> str:
    """Return the cookie with a byte of the envelope changed: 0 is the format, from 7 on the id of the key."""
    raw = bytearray(decode_bytes(cookie))
    raw[OVERHEAD_BYTES + place] ^= change
    return encode_bytes(bytes(raw))


forgeries = st.tuples(st.integers(0, 60), st.integers(1, 255))


@pytest.mark.slow
@EVERY
@given(changes=st.lists(forgeries, min_size=1, max_size=7, unique=True), at=st.integers(0, 7), data=st.data())
def test_r45_what_is_forged_does_not_put_our_cookie_out_of_use(
    cookie_house: House, changes: list[tuple[int, int]], at: int, data: st.DataObject
) -> None:
    node = cookie_house.node(parts={"revocation_store": MemoryStore(clock=cookie_house.clock)}).blocking
    genuine = begin(node, principal="42")
    foreign = begin(cookie_house.node(secret=new_secret()).blocking, principal="1")
    cookies = [forged(data.draw(st.sampled_from([genuine, foreign])), *change) for change in changes]
    assert told(node, *cookies)[0] in {"unknown", "corrupt"}
    cookies.insert(at, genuine)
    assert told(node, *cookies) == ("loaded", "42")


def test_r45_of_two_cookies_that_were_sealed_here_one_counts_if_it_alone_leads_to_a_session(
    cookie_house: House,
) -> None:
    node = cookie_house.node(parts={"revocation_store": MemoryStore(clock=cookie_house.clock)}).blocking
    mine, theirs = begin(node, principal="42"), begin(node, principal="1")
    junk = [forged(mine, 40, change) for change in range(1, 6)]
    assert told(node, mine, theirs, *junk)[0] == "unknown"
    session = node.open(theirs)
    session.logout()
    node.commit(session)
    assert told(node, *junk, theirs, mine) == ("loaded", "42")
    third, fourth = begin(node, principal="3"), begin(node, principal="4")
    assert told(node, theirs, third, fourth)[0] == "unknown", "at most two are looked up"


def test_r45_nothing_is_looked_up_for_a_cookie_that_is_not_ours(cookie_house: House) -> None:
    index = FaultyStore(MemoryStore(clock=cookie_house.clock))
    node = cookie_house.node(parts={"revocation_store": index}).blocking
    genuine = begin(node)
    junk = [forged(genuine, 40, change) for change in range(1, 9)]
    index.calls.clear()
    assert told(node, *junk)[0] == "unknown"
    assert index.calls == []
    assert told(node, *junk, genuine)[0] == "none", "with nine none is believed, and none is authenticated"
    assert index.calls == []
    index.follow(lambda _method: Fault.BEFORE)
    assert told(node, *junk[:2])[0] == "unknown", "no outage is met for what an outsider sends"


@pytest.mark.parametrize("place", [0, 1, *range(7, 15)])
def test_r45_a_cookie_under_a_key_or_format_that_nobody_has_refuses_no_write(cookie_house: House, place: int) -> None:
    node = cookie_house.node().blocking
    cookie = forged(begin(node, principal="42"), place, 7)
    session = node.open(cookie)
    assert session.outcome is LoadOutcome.CORRUPT
    session.data.note = "written all the same"
    assert node.commit(session).token is not None
    session = node.open(cookie)
    session.logout()
    assert node.commit(session).action.value == "clear"


def test_r45_a_coming_key_that_every_node_has_as_a_retired_one_loses_nobody(cookie_house: House) -> None:
    old, new = new_secret(), new_secret()
    steps: list[dict[str, Any]] = [
        {"secrets": [old]},
        {"secrets": [old], "retired_secrets": [new]},
        {"secrets": [new], "retired_secrets": [old]},
    ]
    cookies: list[str] = []
    for pair in pairwise(steps):
        nodes = [cookie_house.node(**step).blocking for step in pair]
        cookies += [begin(node, principal="42") for node in nodes]
        assert {outcome(node, cookie) for node in nodes for cookie in cookies} == {"loaded"}
