"""Commands that come to the wrong node: slots that moved, that are moving, and whose node is not there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.stores import Created, Deleted, Replaced, StoreIO
from sojourn.testing import make_id, make_label, make_record, make_write_id
from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.transport.connection import pack
from tests.beats import lasts
from tests.servers import ClusterSetup, wait_until
from tests.store_redis.cluster.conftest import MakeSite, Site, other_than
from tests.store_redis.cluster.move import Move

KEYS = KeyNames.of("sojourn")


def key_of(name: object = "one") -> bytes:
    return KEYS.session_key(make_id(name))


def owner_known_to(site: Site, key: bytes) -> Any:
    slots = site.topology.slots
    return None if slots is None else slots.owner_of_key(key)


def test_f13_a_slot_that_moved_is_found_within_the_same_call_and_the_map_learns_it(
    setup: ClusterSetup, site: Site
) -> None:
    site.create(make_record(make_id("one")), write_id=make_write_id(1))
    generation = site.topology.generation
    with Move(setup, key_of()) as move:
        move.whole()
        assert site.load(make_id("one")) is not None
        record = make_record(make_id("one"), version=2)
        assert site.replace(record, expected=1, write_id=make_write_id(2)) is Replaced.OK
        assert site.touch(make_id("one"), record.idle_deadline + 10)
        wait_until(lambda: owner_known_to(site, key_of()) == ("127.0.0.1", move.target.port), "the map is old")
        assert site.topology.generation > generation
        assert site.delete(make_id("one")) is Deleted.OK


def test_f13_a_slot_that_is_moving_is_asked_for_where_each_key_is(setup: ClusterSetup, site: Site) -> None:
    here = make_id("one")
    there = next(make_id(name) for name in range(100_000) if key_slot(key_of(name)) == key_slot(key_of()))
    site.create(make_record(here), write_id=make_write_id(1))
    with Move(setup, key_of()) as move:
        move.begin()
        assert site.load(here) is not None
        assert site.load(there) is None
        assert site.create(make_record(there), write_id=make_write_id(3)) is Created.OK
        assert move.target.command("CLUSTER", "COUNTKEYSINSLOT", move.slot) == 1  # it is made where the slot goes
        assert move.move_keys() == 1
        record = make_record(here, version=2)
        assert site.load(here) is not None
        assert site.replace(record, expected=1, write_id=make_write_id(2)) is Replaced.OK
        assert site.replace(record, expected=1, write_id=make_write_id(2)) is Replaced.OK
        assert site.create(record, write_id=make_write_id(9)) is Created.EXISTS
        assert owner_known_to(site, key_of()) == ("127.0.0.1", move.source.port)
        move.end()
        assert site.delete(here) is Deleted.OK
        assert site.load(here) is None


def test_f13_many_keys_are_found_while_one_of_their_slots_moves(setup: ClusterSetup, site: Site) -> None:
    label = make_label()
    ids = [make_id(name) for name in ("one", *range(40))]
    for at, id in enumerate(ids):
        site.create(make_record(id, index_label=label), write_id=make_write_id(at))
    with Move(setup, key_of()) as move:
        move.begin()
        move.move_keys()
        assert set(site.ids_of(label)) == set(ids)
        move.end()
        assert set(site.ids_of(label)) == set(ids)
        assert set(site.scan()) == set(ids)


def test_a_script_is_taught_to_every_node_that_does_not_know_it(setup: ClusterSetup, site: Site) -> None:
    for at in range(12):
        assert site.create(make_record(make_id(at)), write_id=make_write_id(at)) is Created.OK
    for node in setup.nodes:
        node.command("SCRIPT", "FLUSH")
    for at in range(12):
        record = make_record(make_id(at), version=2)
        assert site.replace(record, expected=1, write_id=make_write_id(100 + at)) is Replaced.OK


def test_f13_a_cluster_that_is_down_is_unavailable_and_back_when_it_is(
    setup: ClusterSetup, make_site: MakeSite
) -> None:
    site = make_site(setup.cluster_url)
    site.create(make_record(make_id("one")), write_id=make_write_id(1))
    owner, lost = setup.primary_of(key_of()), (key_slot(key_of()) + 1) % setup.slots
    loser = setup.server_of(lost, owner)
    assert loser is not None
    loser.command("CLUSTER", "DELSLOTS", lost)
    try:
        wait_until(lambda: setup.is_down(loser), "a slot that nobody serves is no matter")
        if owner is not loser:
            owner.command("CLUSTER", "DELSLOTS", lost)
        wait_until(lambda: setup.is_down(owner), "a slot that nobody serves is no matter")
        with pytest.raises(StoreUnavailableError, match="ClusterDownError"):
            site.load(make_id("one"))
    finally:
        loser.command("CLUSTER", "ADDSLOTS", lost)
        setup.wait_until_whole()
    assert site.load(make_id("one")) is not None


@pytest.mark.parametrize("fault", ["frozen", "moved to a frozen node"])
def test_f13_the_deadline_holds_for_the_whole_call(fault: str, setup: ClusterSetup, make_site: MakeSite) -> None:
    site = make_site(setup.cluster_url, timeout=0.6, connect_timeout=0.5)
    site.create(make_record(make_id("one")), write_id=make_write_id(1))
    with Move(setup, key_of()) as move:
        if fault != "frozen":
            move.whole()
        frozen = move.source if fault == "frozen" else move.target
        frozen.freeze()
        try:
            with lasts(at_most=5.0), pytest.raises(StoreTimeoutError):
                site.load(make_id("one"))
        finally:
            frozen.thaw()


def test_a_plain_url_of_a_node_of_a_cluster_says_what_to_write_instead(
    setup: ClusterSetup, make_site: MakeSite
) -> None:
    other = other_than(setup, setup.primary_of(key_of()))
    with pytest.raises(StoreUnavailableError, match="redis\\+cluster://"):
        make_site(other.url).load(make_id("one"))


def test_f13_who_is_a_primary_no_more_is_left_with_all_that_is_under_way_there(
    setup: ClusterSetup, make_site: MakeSite
) -> None:
    site = make_site(setup.cluster_url)
    for name in range(20):
        site.load(make_id(name))
    nodes = site.transport._nodes
    former = ("127.0.0.1", setup.primary_of(key_of()).port)
    left = nodes._transports[former]
    known = site.topology.slots
    heir = next(node for node in known.primaries if node != former)
    ranges = tuple((first, last, heir if node == former else node) for first, last, node in known.ranges)
    is_async = site.store.io is StoreIO.ASYNC
    wire: Any = left._current if is_async else None
    late: Any = wire.send(pack(("WAIT", 9, 0))) if is_async else None  # there are not so many replicas
    assert site.topology.offer(replace(known, ranges=ranges, epoch=known.epoch + 1))
    site.load(make_id("another"))
    assert nodes._transports.get(former) is not left  # though a pointer may lead there again
    if is_async:
        site.run(asyncio.wait([late]))
        assert isinstance(late.result(), redis.ConnectionError)
        assert wire.is_over
    else:
        assert not left._idle
