"""What a manager does with all sessions, when they lie on several primaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from sojourn import SessionManager
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Replaced
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis.records import KeyNames
from tests.servers import ClusterSetup
from tests.store_redis.cluster.conftest import Site

KEYS = KeyNames.of("sojourn")
SESSIONS = 40


@dataclass
class Visitor:
    number: int = 0


def test_each_session_counts_and_revoke_all_go_over_all_primaries_and_tell_how_far_they_are(
    setup: ClusterSetup, site: Site
) -> None:
    settings = SessionSettings(preset="testing")
    sessions = SessionManager(Visitor, site.store, settings=settings, clock=site.store._clock)
    for number in range(SESSIONS):
        session = site.run(sessions.open(None))
        session.data.number = number
        session.login("odd" if number % 2 else "even")
        site.run(sessions.commit(session))
    ids = site.run(sessions.all_session_ids())
    assert {setup.primary_of(KEYS.session_key(id)) for id in ids} == set(setup.primaries())
    seen: list[Any] = site.driver.collect(sessions.each_session(), site.store.io)
    assert {session.data.number for session in seen} == set(range(SESSIONS))
    told: list[int] = []
    assert site.run(sessions.count(progress=told.append)) == SESSIONS
    assert told == list(range(1, SESSIONS + 1))
    told.clear()
    assert site.run(sessions.revoke_all("odd", progress=told.append)) == SESSIONS // 2
    assert told == list(range(1, SESSIONS // 2 + 1))
    assert site.run(sessions.list("odd")) == []
    assert site.run(sessions.bulk_delete(lambda session: session.data.number < 10, progress=told.append)) == 5
    assert site.run(sessions.count()) == SESSIONS // 2 - 5


def test_f25_large_records_on_every_primary_are_read_and_written_whole(setup: ClusterSetup, site: Site) -> None:
    payload, first_write, second_write = b"x" * 990_000, make_write_id(1), make_write_id(2)
    for name in "abcdef":
        record = make_record(make_id(name), payload=payload)
        assert site.run(site.store.create(record, write_id=first_write)) is Created.OK
        record = replace(record, version=2, payload=payload[::-1])
        assert site.run(site.store.replace(record, expected=1, write_id=second_write)) is Replaced.OK
        found = site.run(site.store.load(record.id))
        assert (found.version, found.payload) == (2, record.payload)
    assert {setup.primary_of(KEYS.session_key(make_id(name))) for name in "abcdef"} == set(setup.primaries())
