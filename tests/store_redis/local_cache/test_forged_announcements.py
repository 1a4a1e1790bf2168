"""Everybody who may publish can announce that a session died; only the record says so (SECURITY R43)."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.testing import make_id
from sojourn_store_redis.local_cache import listener
from tests.store_redis.local_cache.conftest import Cluster


def forge(cluster: Cluster, *names: str) -> None:
    with cluster.server.client() as client:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.publish("sojourn:invalidations", f"{make_id(name)}:DEAD")
        pipe.execute()


def test_r43_a_forged_death_is_told_to_nobody_and_does_not_hide_the_real_one(cluster: Cluster) -> None:
    one, two = cluster.pair()
    told: list[str] = []
    two.store.on_dead(told.append)
    for name in ("living", "dying"):
        one.create(name)
        assert two.load(make_id(name)) is not None
    announced = two.figure("announcements")
    forge(cluster, "living", "living", "dying")
    cluster.wait_until(lambda: two.figure("announcements") >= announced + 3)
    assert two.load(make_id("living")) is not None, "a tombstone refuses no record that the primary has"
    one.delete("dying")
    cluster.wait_until(lambda: make_id("dying") in told)
    assert make_id("living") not in told, "it was announced before, so it was looked up by now"
    one.delete("living")
    cluster.wait_until(lambda: make_id("living") in told)


def test_r43_only_what_somebody_waits_for_is_looked_up_and_a_flood_of_one_id_is_one_question(cluster: Cluster) -> None:
    one, two = cluster.pair()
    told: list[str] = []
    two.store.on_dead(told.append, only=lambda id: id in {make_id("watched"), make_id("last")})
    one.create("watched")
    reads = _gets(cluster)
    forge(cluster, *(f"stranger {number}" for number in range(200)), *["watched"] * 200)
    one.delete("last")
    cluster.wait_until(lambda: make_id("last") in told)
    assert told == [make_id("last")]
    assert _gets(cluster) - reads <= 60, "of 400 announcements few were worth a question"


def test_r43_what_was_announced_in_an_outage_is_looked_up_after_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "LONGEST_PAUSE", 0.05)
    one, two = cluster.pair()
    told: list[str] = []
    two.store.on_dead(told.append)
    one.create("a")
    failures: list[int] = []
    ask = listener._reply

    async def fail(connection: Any) -> Any:
        if len(failures) < 3:
            failures.append(1)
            raise ConnectionError("the server is gone")
        return await ask(connection)

    monkeypatch.setattr(listener, "_reply", fail)
    one.delete("a")
    cluster.wait_until(lambda: make_id("a") in told)
    assert len(failures) == 3


def test_r43_too_many_deaths_to_remember_are_a_doubt(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MOST_SUSPECTS", 5)
    monkeypatch.setattr(listener, "LOOK_UPS_A_SECOND", 1.0)
    _, two = cluster.pair()
    doubts: list[int] = []
    two.store.on_dead(str, on_doubt=lambda: doubts.append(1))
    forge(cluster, *(f"stranger {number}" for number in range(300)))
    cluster.wait_until(lambda: len(doubts) > 0)


def _gets(cluster: Cluster) -> int:
    with cluster.server.client() as client:
        found: Any = client.info("commandstats")
    return sum(int(found.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("get", "getrange"))
