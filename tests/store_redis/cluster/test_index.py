"""The index of a principal where it is on another server than the records, and everything that goes through all of them."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Created, Deleted, Replaced
from sojourn.testing import FakeClock, make_id, make_label, make_record, make_write_id
from sojourn_store_redis.index import score_of
from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.scripts import LEAST_AGE, STAMP_UNITS
from sojourn_store_redis.store import RedisStore
from tests.servers import ClusterSetup
from tests.store_redis.cluster.conftest import MakeSite, Site

KEYS = KeyNames.of("sojourn")
LABEL, OTHER = make_label(), make_label("other")


def elsewhere(setup: ClusterSetup, label: str = LABEL) -> str:
    """Return an id whose record is on another primary than the index."""
    home = setup.primary_of(KEYS.index_key(label))
    return next(id for id in map(make_id, range(100)) if setup.primary_of(KEYS.session_key(id)) is not home)


def members(setup: ClusterSetup, label: str = LABEL) -> set[str]:
    key = KEYS.index_key(label)
    found: Any = setup.primary_of(key).command("ZRANGE", key, 0, -1)
    return {member.decode() for member in found}


class DiedError(Exception):
    pass


def interrupt(site: Site, script: str) -> None:
    """Let the process die where it would send *script*."""
    eval_ = site.transport.eval

    async def refuse(wanted: Any, *rest: Any) -> Any:
        if wanted.name == script:
            raise DiedError
        return await eval_(wanted, *rest)

    site.transport.eval = refuse


def test_a_session_is_in_the_index_wherever_both_are(setup: ClusterSetup, site: Site) -> None:
    ids = [make_id(at) for at in range(60)]
    for at, id in enumerate(ids):
        assert site.create(make_record(id, index_label=LABEL), write_id=make_write_id(at)) is Created.OK
    assert len({setup.primary_of(KEYS.session_key(id)) for id in ids}) == 3
    assert set(site.ids_of(LABEL)) == set(ids)
    assert site.ids_of(OTHER) == []


def test_the_index_has_an_id_before_its_record_is_there(setup: ClusterSetup, site: Site) -> None:
    id = elsewhere(setup)
    interrupt(site, "create")
    with pytest.raises(DiedError):
        site.create(make_record(id, index_label=LABEL), write_id=make_write_id(1))
    assert members(setup) == {id}  # a member in vain, never a session without one
    assert site.ids_of(LABEL) == []


def test_a_create_whose_index_cannot_be_written_makes_no_record(setup: ClusterSetup, site: Site) -> None:
    id = elsewhere(setup)
    interrupt(site, "index add")
    with pytest.raises(DiedError):
        site.create(make_record(id, index_label=LABEL), write_id=make_write_id(1))
    assert site.load(id) is None


def test_the_index_has_an_id_before_its_record_gets_another_label(setup: ClusterSetup, site: Site) -> None:
    id = elsewhere(setup)
    site.create(make_record(id, index_label=LABEL), write_id=make_write_id(1))
    interrupt(site, "index add")
    with pytest.raises(DiedError):
        site.replace(make_record(id, version=2, index_label=OTHER), expected=1, write_id=make_write_id(2))
    assert site.load(id).index_label == LABEL
    assert site.ids_of(LABEL) == [id]


@pytest.mark.parametrize("before", [LABEL, None])
def test_a_record_that_gets_another_label_is_found_under_that_one(
    setup: ClusterSetup, site: Site, before: str | None
) -> None:
    id = elsewhere(setup, OTHER)
    site.create(make_record(id, index_label=before), write_id=make_write_id(1))
    record = make_record(id, version=2, index_label=OTHER)
    assert site.replace(record, expected=1, write_id=make_write_id(2)) is Replaced.OK
    assert site.replace(record, expected=1, write_id=make_write_id(2)) is Replaced.OK  # its reply was lost
    assert (site.ids_of(LABEL), site.ids_of(OTHER)) == ([], [id])
    assert site.replace(make_record(id, version=3), expected=2, write_id=make_write_id(3)) is Replaced.OK
    assert site.ids_of(OTHER) == []


def test_a_replace_that_changes_nothing_about_the_index_takes_one_step(setup: ClusterSetup, site: Site) -> None:
    id = elsewhere(setup)
    site.create(make_record(id, index_label=LABEL), write_id=make_write_id(1))
    interrupt(site, "index add")
    record = make_record(id, version=2, index_label=LABEL)
    assert site.replace(record, expected=1, write_id=make_write_id(2)) is Replaced.OK


def test_a_record_that_may_live_longer_is_found_as_long_as_it_does(setup: ClusterSetup, make_site: MakeSite) -> None:
    clock = FakeClock()
    site = make_site(setup.cluster_url, clock=clock)
    id = elsewhere(setup)
    site.create(make_record(id, index_label=LABEL, absolute=100.0, idle=100.0), write_id=make_write_id(1))
    longer = make_record(id, version=2, index_label=LABEL, absolute=9_000.0, idle=9_000.0)
    assert site.replace(longer, expected=1, write_id=make_write_id(2)) is Replaced.OK
    clock.advance(8_000.0)
    other = make_record(make_id("other"), index_label=LABEL, now=clock.time())
    site.create(other, write_id=make_write_id(3))  # trims what is past its deadline
    assert set(site.ids_of(LABEL)) == {id, other.id}


def test_nobody_takes_out_a_member_whose_record_may_be_on_its_way(setup: ClusterSetup, make_site: MakeSite) -> None:
    clock = FakeClock()
    site = make_site(setup.cluster_url, clock=clock)
    slow = make_site(setup.cluster_url, clock=clock)
    id = elsewhere(setup)
    gate = slow.transport.eval
    looked: list[Any] = []

    async def look_meanwhile(script: Any, *rest: Any) -> Any:
        if script.name == "create":
            looked.append(await site.store.ids_of(LABEL))
        return await gate(script, *rest)

    slow.transport.eval = look_meanwhile
    assert slow.create(make_record(id, index_label=LABEL), write_id=make_write_id(1)) is Created.OK
    assert looked == [[]]
    assert site.ids_of(LABEL) == [id]


def test_members_in_vain_leave_when_they_are_old_enough(setup: ClusterSetup, make_site: MakeSite) -> None:
    clock = FakeClock()
    site = make_site(setup.cluster_url, clock=clock)
    for name in ("dead", "live"):
        record = make_record(make_id(name), index_label=LABEL, now=clock.time(), idle=80_000.0)
        site.create(record, write_id=make_write_id(name))
    assert site.delete(make_id("dead")) is Deleted.OK
    assert members(setup) == {make_id("dead"), make_id("live")}
    clock.advance(LEAST_AGE + 1.0)
    assert site.ids_of(LABEL) == [make_id("live")]
    assert members(setup) == {make_id("live")}
    assert site.delete(make_id("live")) is Deleted.OK  # added long ago: it goes at once
    assert members(setup) == set()


def test_a_stamp_is_read_as_it_was_written_at_every_moment(setup: ClusterSetup, make_site: MakeSite) -> None:
    clock = FakeClock()
    site = make_site(setup.cluster_url, clock=clock)
    remote_index = site.store._remote_index
    start = clock.time() - clock.time() % STAMP_UNITS  # where the stamps begin anew
    for offset in (-LEAST_AGE - 2, -LEAST_AGE, -1, 0, 1, LEAST_AGE, LEAST_AGE + 2):
        added = start + offset
        for age, stays in (
            (0, True),
            (LEAST_AGE - 1, True),
            (-60, True),
            (LEAST_AGE, False),
            (STAMP_UNITS // 2, False),
        ):
            record = make_record(make_id("x"), index_label=LABEL, now=added, absolute=80_000.5)
            site.run(remote_index.add(record, added))
            site.run(remote_index.remove(LABEL, [record.id], added + age))
            assert (record.id in members(setup)) is stays, (offset, age)
            setup.flush()
    assert score_of(float("inf"), 5.0) == float("inf")
    assert score_of(2.0**32, 5.0) == 2.0**32
    assert score_of(1e9 + 0.5, 5.0) == 1e9 + 1 + 5 / STAMP_UNITS


def test_an_index_ends_with_its_last_member(setup: ClusterSetup, site: Site) -> None:
    id = elsewhere(setup)
    site.create(make_record(id, index_label=LABEL, absolute=3_600.0), write_id=make_write_id(1))
    key = KEYS.index_key(LABEL)
    left = setup.primary_of(key).command("PTTL", key)
    assert isinstance(left, int)
    assert 3_600_000 < left < 3_700_000


def test_scan_count_and_clear_reach_every_primary_and_one_namespace(setup: ClusterSetup, make_site: MakeSite) -> None:
    one, two = make_site(setup.cluster_url, namespace="one"), make_site(setup.cluster_url, namespace="one:session")
    ids = {make_id(at) for at in range(200)}
    for at, id in enumerate(sorted(ids)):
        for site in (one, two):
            site.create(make_record(id, index_label=LABEL), write_id=make_write_id(at))
    assert sorted(one.scan()) == sorted(ids)
    assert two.count() == 200
    one.clear()
    assert (one.count(), one.ids_of(LABEL)) == (0, [])
    assert set(two.ids_of(LABEL)) == set(two.scan()) == ids
    two.clear()
    assert [node.command("DBSIZE") for node in setup.primaries()] == [0, 0, 0]


def test_what_is_gone_through_while_keys_move_is_gone_through_again(setup: ClusterSetup, site: Site) -> None:
    ids = {make_id(at) for at in range(30)}
    for at, id in enumerate(sorted(ids)):
        site.create(make_record(id), write_id=make_write_id(at))
    servers, passes = site.transport.servers, []

    async def all_but_one_at_first() -> Any:
        passes.append(1)
        return (await servers())[len(passes) == 1 :]

    site.transport.servers = all_but_one_at_first

    async def collected() -> list[str]:
        items = []
        async for item in site.store.scan():
            items.append(item)
            if len(items) == 1:
                site.topology.generation += 1
        return items

    assert sorted(site.run(collected())) == sorted(ids)
    assert len(passes) == 2


def test_f1_an_index_that_cannot_be_reached_is_unavailable(setup: ClusterSetup, make_site: MakeSite) -> None:
    site = make_site("redis+cluster://127.0.0.1:1/")
    for call in (site.ids_of, lambda _: site.count(), lambda _: site.clear()):
        with pytest.raises(StoreUnavailableError, match="the cluster at 127.0.0.1:1"):
            call(LABEL)


def test_on_one_server_the_index_is_written_with_the_record(clean_redis: Any, driver: Any) -> None:
    store = RedisStore.from_url(clean_redis.url, clock=FakeClock())
    assert store._remote_index is None
    driver.run(store.create(make_record(index_label=LABEL), write_id=make_write_id(1)))
    calls = clean_redis.client().info("commandstats")
    assert "cmdstat_evalsha" in calls
    assert driver.run(store.ids_of(LABEL)) == [make_id()]
    driver.run(store.aclose())
