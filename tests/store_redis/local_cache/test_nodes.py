"""Managers on different nodes: what one ends the others hear of, and what a lost link is counted as."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn import SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn.stores import StoreIO
from sojourn.testing import RecordingMetrics, RecordingObserver
from sojourn_store_redis import ClusteredRedisStore
from sojourn_testing.bench import Driver
from tests.core.models import Visit
from tests.servers import RedisServer

SECRET = new_secret()


class Node:
    """A manager as an application has it, by asyncio or in threads."""

    def __init__(self, driver: Driver, server: RedisServer, *, blocking: bool, name: str) -> None:
        self.driver = driver
        self.metrics = RecordingMetrics()
        self.observer = RecordingObserver()
        store = ClusteredRedisStore.from_url(server.url, timeout=2.0, node_id=name)
        settings = SessionSettings(_env_file=None, preset="testing", secret=SECRET, node_id=name)
        self.whole: SessionManager[Visit] = SessionManager(
            Visit, store, settings=settings, metrics=self.metrics, observers=[self.observer]
        )
        self.sessions: Any = self.whole.blocking if blocking else self.whole
        self.ended: list[str] = []
        self.doubts: list[float] = []
        self.stop = self.sessions.on_revoked(self.ended.append, on_doubt=lambda: self.doubts.append(time.monotonic()))

    def run(self, work: Any) -> Any:
        return self.driver.run(work) if hasattr(work, "__await__") else work

    def begin(self, principal: str | None = None) -> tuple[str, str]:
        session = self.run(self.sessions.open(None))
        session.data.count = 1
        if principal is not None:
            session.login(principal)
        token = self.run(self.sessions.commit(session)).token
        return token, session.id

    def end(self, token: str, how: Callable[[Any], object]) -> None:
        session = self.run(self.sessions.open(token))
        how(session)
        self.run(self.sessions.commit(session))

    def has_lease(self) -> bool:
        return bool(self.sessions.cache_stats()["lease"])


class Nodes:
    def __init__(self, server: RedisServer, driver: Driver, *, blocking: bool) -> None:
        self.server = server
        self.driver = driver
        self.both = [Node(driver, server, blocking=blocking, name=name) for name in ("one", "two")]
        for node in self.both:
            node.run(node.sessions.open("0" * 43))
        self.wait_until(lambda: all(node.has_lease() and node.doubts for node in self.both))

    def wait_until(self, is_so: Callable[[], Any], seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < until, "it did not become so in time"
            self.driver.run(asyncio.sleep(0.01))


@pytest.fixture(params=[False, True], ids=["asyncio", "blocking"])
def nodes(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Nodes]:
    with Driver() as driver:
        nodes = Nodes(redis_server, driver, blocking=request.param)
        yield nodes
        redis_server.start_if_stopped()
        for node in nodes.both:
            driver.run(node.whole.aclose())


def test_every_node_hears_of_each_session_that_another_one_ends(nodes: Nodes) -> None:
    one, two = nodes.both
    _, revoked = one.begin()
    left_token, left = one.begin("42")
    gone_token, gone = one.begin("43")
    _, elsewhere = two.begin("44")
    before_token, before = one.begin()
    assert one.run(one.sessions.revoke(revoked))
    one.end(left_token, lambda session: session.logout())
    one.end(gone_token, lambda session: session.destroy())
    assert one.run(one.sessions.revoke_all("44")) == 1
    one.end(before_token, lambda session: session.login("45"))
    wanted = [revoked, left, gone, elsewhere, before]
    nodes.wait_until(lambda: all(set(wanted) <= set(node.ended) for node in nodes.both))
    for node in nodes.both:
        assert [id for id in dict.fromkeys(node.ended) if id in wanted] == wanted, "each, in order"


def test_a_clear_names_every_session_to_the_other_nodes(nodes: Nodes) -> None:
    one, _ = nodes.both
    ids = {one.begin()[1] for _ in range(3)}
    before = len(one.doubts)
    one.run(one.sessions.clear())
    nodes.wait_until(lambda: all(ids <= set(node.ended) for node in nodes.both))
    assert len(one.doubts) > before


def test_who_has_unsubscribed_hears_nothing(nodes: Nodes) -> None:
    one, two = nodes.both
    two.stop()
    _, id = one.begin()
    one.run(one.sessions.revoke(id))
    nodes.wait_until(lambda: id in one.ended)
    _, other = one.begin()
    one.run(one.sessions.revoke(other))
    nodes.wait_until(lambda: other in one.ended)
    assert id not in two.ended


def test_f12_a_link_that_is_killed_is_counted_and_whoever_subscribed_is_told_to_look(nodes: Nodes) -> None:
    doubts = [len(node.doubts) for node in nodes.both]
    with nodes.server.client() as client:
        links = [each for each in client.client_list() if "invalidations" in each["name"]]
        assert {each["name"] for each in links} == {"sojourn-invalidations-one", "sojourn-invalidations-two"}
        for each in links:
            client.client_kill_filter(_id=each["id"])
    nodes.wait_until(lambda: all(node.metrics.counts["session.link.restored"] for node in nodes.both))
    for node, before in zip(nodes.both, doubts, strict=True):
        assert node.metrics.counts["session.link.lost"] >= 1
        levels = [figure for name, figure, _ in node.metrics.calls if name == "session.link.down"]
        assert levels[:2] == [1, 0]
        assert [event.reason for event in node.observer.events if event.name == "link"][:2] == ["down", "up"]
        assert len(node.doubts) > before


def test_f12_while_the_server_is_away_the_link_is_down_once(nodes: Nodes) -> None:
    one, _ = nodes.both
    nodes.server.kill()
    nodes.wait_until(lambda: one.metrics.gauges.get("session.link.down") == 1)
    losses = one.metrics.counts["session.link.lost"]
    nodes.driver.run(asyncio.sleep(0.5))
    assert one.metrics.counts["session.link.lost"] == losses, "attempts that fail are no further losses"
    nodes.server.restart()
    nodes.wait_until(lambda: one.metrics.gauges.get("session.link.down") == 0)
    assert one.metrics.counts["session.link.restored"] >= 1


def test_events_name_the_node(nodes: Nodes) -> None:
    for node, name in zip(nodes.both, ("one", "two"), strict=True):
        node.begin()
        assert {event.node for event in node.observer.events} == {name}


def test_closing_is_no_loss(nodes: Nodes) -> None:
    one, _ = nodes.both
    before = one.metrics.counts["session.link.lost"]
    one.driver.run(one.whole.aclose())
    assert one.metrics.counts["session.link.lost"] == before


def test_a_subscription_alone_makes_a_node_listen(redis_server: RedisServer) -> None:
    with Driver() as driver:
        store = ClusteredRedisStore.from_url(redis_server.url, timeout=2.0)
        twin: Any = store.blocking_twin()
        assert twin.io is StoreIO.BLOCKING
        died: list[str] = []
        twin.on_dead(died.append)
        until = time.monotonic() + 30
        while not twin.cache_stats()["lease"]:
            assert time.monotonic() < until
            time.sleep(0.01)
        driver.run(store.aclose())
