"""What a manager does with all sessions, when they lie on several primaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sojourn import SessionManager
from sojourn.settings import SessionSettings
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
