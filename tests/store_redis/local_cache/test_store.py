"""The clustered store on a real server: two nodes, of either kind, and everything that can happen to their links."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from sojourn import SessionManager, stores
from sojourn.errors import StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.stores import MOVED, CachingStore, Created, Deleted, IndexedStore, Replaced, ScannableStore, TwinnedStore
from sojourn.testing import make_id, make_label, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_store_redis.local_cache.cache import ENTRY_BYTES
from sojourn_testing.bench import Driver
from tests.core.models import Visit
from tests.servers import RedisServer
from tests.store_redis.local_cache.conftest import Cluster, Node
from tests.store_redis.local_cache.proxy import Proxy

X = 0.4
FAST = {"max_staleness": X}


def _limits(**options: Any) -> Any:
    from sojourn_store_redis import LocalCacheLimits

    return LocalCacheLimits(**{**FAST, **options})


def _commands(cluster: Cluster) -> dict[str, int]:
    with cluster.server.client() as client:
        stats = client.info("commandstats")
    return {name: figures["calls"] for name, figures in stats.items()}


def test_the_store_is_what_it_says(cluster: Cluster) -> None:
    node = cluster.node()
    for protocol in (IndexedStore, ScannableStore, CachingStore):
        assert isinstance(node.store, protocol)
    assert isinstance(node.whole, TwinnedStore)
    own = RedisStore.from_url(cluster.server.url)
    capabilities = [each for each in vars(stores).values() if getattr(each, "_is_runtime_protocol", False)]
    declared = {each.__name__ for each in capabilities if isinstance(own.blocking_twin(), each)}
    assert {"NamespacedStore", "RetainingStore", "AtRestStore"} <= declared
    assert declared <= {each.__name__ for each in capabilities if isinstance(node.store, each)}
    assert node.whole.blocking_twin() is node.whole.blocking_twin()


def test_a_hit_costs_no_command(cluster: Cluster) -> None:
    one, _ = cluster.pair(limits=_limits(max_staleness=20.0))
    record = one.create("a")
    before = _commands(cluster)
    for _ in range(50):
        assert one.load(record.id) == record
    after = _commands(cluster)
    changed = {name for name in after if after[name] != before.get(name, 0)}
    assert changed <= {"cmdstat_info", "cmdstat_hello", "cmdstat_client|setinfo"}  # those of the client that asks
    assert one.figure("hits") == 50


def test_100_reads_in_turns_over_two_nodes_give_97_hits(cluster: Cluster) -> None:
    # a lease and calls that a busy machine does not let run out
    one, two = cluster.pair(limits=_limits(max_staleness=20.0), timeout=20.0)
    record = one.create("a")
    for number in range(100):
        assert (one, two)[number % 2].load(record.id) is not None
    assert one.figure("hits") + two.figure("hits") >= 97


@pytest.mark.parametrize("kind", ["replace", "delete"])
def test_f12_what_one_node_writes_the_other_hears_of_within_the_staleness(cluster: Cluster, kind: str) -> None:
    one, two = cluster.pair(limits=_limits())
    one.create("a")
    cluster.wait_until(lambda: _version(two) == 1 and two.figure("hits"))
    assert one.replace("a", 2) is Replaced.OK if kind == "replace" else one.delete("a") is Deleted.OK
    acknowledged = time.monotonic()
    began = acknowledged
    while _version(two) == 1:
        assert began <= acknowledged + X
        began = time.monotonic()
    assert _version(two) == (2 if kind == "replace" else None)
    assert _version(one) == (2 if kind == "replace" else None)


def _version(node: Node, name: object = "a") -> int | None:
    record = node.load(make_id(name))
    return None if record is None else record.version


def test_an_own_write_is_seen_at_once(cluster: Cluster) -> None:
    one, _ = cluster.pair()
    one.create("a")
    for version in range(2, 30):
        assert one.replace("a", version) is Replaced.OK
        assert _version(one) == version
    assert one.delete("a") is Deleted.OK
    assert _version(one) is None


def test_a_copy_that_was_found_in_time_but_held_up_is_not_handed_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = cluster.pair()
    one.create("a")
    cluster.wait_until(lambda: _version(two) == 1 and two.figure("hits"))
    gets, hits = (_gets(cluster), two.figure("hits"))
    now = two.whole._local.monotonic()
    times = iter([now, now + 1.0, now + 1.0, now + 1.0])
    monkeypatch.setattr(two.store, "_monotonic", lambda: next(times))
    assert _version(two) == 1
    assert two.whole._local.coherence.figures(now)["hits"] == hits + 1
    assert _gets(cluster) == gets + 1
    monkeypatch.undo()


def _gets(cluster: Cluster) -> int:
    done = _commands(cluster)
    return done.get("cmdstat_get", 0) + done.get("cmdstat_getrange", 0)


def test_absence_is_not_cached(cluster: Cluster) -> None:
    one, two = cluster.pair()
    assert two.load(make_id("a")) is None
    one.create("a")
    assert two.load(make_id("a")) is not None


def test_a_touch_is_announced_to_nobody_and_seen_here(cluster: Cluster) -> None:
    one, two = cluster.pair()
    record = one.create("a", idle=100.0)
    two.load(record.id)
    cluster.wait_until(lambda: two.figure("announcements") == 1)
    assert one.run(one.store.touch(record.id, record.idle_deadline + 50)) is True
    one.create("b")
    cluster.wait_until(lambda: two.figure("announcements") > 1)
    assert two.figure("announcements") == 2  # in order, on one link: a touch would have come before
    seen = one.load(record.id)
    assert seen is not None
    assert seen.idle_deadline == record.idle_deadline + 50
    assert one.run(one.store.touch(make_id("none"), record.idle_deadline)) is False


def test_a_copy_past_its_idle_deadline_is_read_again_in_case_another_node_touched_it(cluster: Cluster) -> None:
    one, two = cluster.pair()
    record = one.create("a", idle=0.4)
    two.load(record.id)
    assert one.run(one.store.touch(record.id, record.idle_deadline + 50)) is True
    cluster.wait(0.5)
    seen = two.load(record.id)
    assert seen is not None
    assert seen.idle_deadline == record.idle_deadline + 50


def test_load_fresh_and_evict_go_past_the_cache(cluster: Cluster) -> None:
    one, _ = cluster.pair()
    record = one.create("a")
    cluster.wait_until(lambda: _version(one) == 1 and one.figure("hits"))
    hits = one.figure("hits")
    assert one.run(one.store.load_fresh(record.id)).payload == record.payload
    assert one.figure("hits") == hits
    one.run(one.store.evict(record.id))
    assert one.figure("size") == 0


def test_a_walk_over_all_sessions_neither_fills_the_cache_nor_evicts_from_it(cluster: Cluster) -> None:
    one, two = cluster.pair(limits=_limits(max_size=4, max_staleness=20.0))
    held = [one.create(f"held {number}") for number in range(4)]
    others = [two.create(f"other {number}") for number in range(12)]
    cluster.wait_until(lambda: one.figure("lease") and all(one.load(record.id) for record in held))
    before = one.figure("size"), one.figure("evictions")
    settings = SessionSettings(_env_file=None, preset="testing")
    sessions = SessionManager(Visit, one.store, settings=settings)
    one.run(sessions.find_by(lambda _: True))
    one.run(sessions.list("42"))
    for record in (*held, *others):
        one.run(sessions.read(record.id))
    assert (one.figure("size"), one.figure("evictions")) == before
    hits = one.figure("hits")
    assert all(one.load(record.id) for record in held)
    assert one.figure("hits") == hits + 4


def test_a_repeated_write_is_ok_and_keeps_nothing(cluster: Cluster) -> None:
    one, two = cluster.pair()
    record = one.create("a")
    assert two.replace("a", 2) is Replaced.OK
    cluster.wait_until(lambda: _version(one) == 2)
    one.run(one.store.evict(record.id))
    assert one.run(one.store.create(record, write_id=make_write_id(f"{id(one)} 1"))).value == "ok"
    assert one.figure("size") == 0
    assert _version(one) == 2


def test_f12_a_killed_link_is_noticed_and_comes_back(cluster: Cluster) -> None:
    one, two = cluster.pair(limits=_limits())
    for name in range(3):
        one.create(name)
        assert _version(two, name) == 1
        epochs = [node.figure("epochs") for node in (one, two)]
        assert cluster.kill_links() == 2
        assert one.replace(name, 2) is Replaced.OK
        for node, epoch in zip((one, two), epochs, strict=True):
            cluster.wait_until(partial(_has_left, node, epoch))
        cluster.wait_until(lambda: one.figure("lease") and two.figure("lease"))
        hits = two.figure("hits")
        assert _version(two, name) == 2
        cluster.wait_until(lambda: _version(two, name) == 2 and two.figure("hits") > hits)  # noqa: B023 - called at once


def _has_left(node: Node, epoch: float) -> bool:
    return node.figure("epochs") > epoch


def test_f12_a_blackholed_link_stops_the_cache_within_the_staleness(cluster: Cluster) -> None:
    with Proxy(cluster.server.port) as proxy:
        one = cluster.node()
        two = cluster.node(proxy.url, limits=_limits(), timeout=0.3)
        one.create("a")
        cluster.wait_until(lambda: (two.load(make_id("a")), two.figure("hits"))[1])
        proxy.is_blackhole = True
        one.replace("a", 2)
        acknowledged = time.monotonic()
        while time.monotonic() < acknowledged + 3 * X:
            began = time.monotonic()
            try:
                version = _version(two)
            except StoreUnavailableError:
                continue
            assert version == 2 or began <= acknowledged + X
            cluster.wait(0.01)
        assert two.figure("lease") == 0
        proxy.is_blackhole = False
        proxy.cut()
        cluster.wait_until(lambda: two.figure("lease"))
        assert two.figure("watchdog") >= 1
        assert _version(two) == 2
        two.close()


def test_a_link_that_is_always_late_never_serves_beyond_the_staleness(cluster: Cluster) -> None:
    with Proxy(cluster.server.port) as proxy:
        one = cluster.node()
        two = cluster.node(proxy.url, limits=_limits(), timeout=5.0)
        proxy.delay = X / 2
        one.create("a")
        cluster.wait_until(lambda: (two.load(make_id("a")), two.figure("hits"))[1])
        for version in range(2, 6):
            one.replace("a", version)
            acknowledged = time.monotonic()
            while time.monotonic() < acknowledged + 1.5 * X:
                began = time.monotonic()
                assert _version(two) == version or began <= acknowledged + X
                cluster.wait(0.01)
        two.close()


def test_f12_a_frozen_server_is_survived(cluster: Cluster) -> None:
    one, two = cluster.pair(limits=_limits(), timeout=0.3)
    one.create("a")
    two.load(make_id("a"))
    cluster.server.freeze()
    cluster.wait(X + 0.05)
    with pytest.raises(StoreUnavailableError):
        two.load(make_id("a"))
    cluster.wait(2 * X)
    cluster.server.thaw()
    cluster.wait_until(lambda: one.figure("lease") and two.figure("lease"))
    assert two.figure("watchdog") >= 1
    hits = two.figure("hits")
    cluster.wait_until(lambda: _version(two) == 1 and two.figure("hits") > hits)


def test_f12_a_restarted_server_has_nothing_and_neither_has_the_cache(cluster: Cluster) -> None:
    one, two = cluster.pair(limits=_limits(), timeout=1.0)
    one.create("a")
    two.load(make_id("a"))
    cluster.server.kill()
    cluster.server.restart()
    for node in (one, two):
        cluster.wait_until(lambda: node.figure("losses") and node.figure("lease"))  # noqa: B023 - called at once
        with suppress(StoreUnavailableError):  # a connection that was just in use may only now be found dead
            node.load(make_id("nothing"))
        assert node.load(make_id("a")) is None


def test_two_namespaces_never_hear_of_each_other(cluster: Cluster) -> None:
    one, two = cluster.pair()
    others = [cluster.node(namespace=name) for name in ("other", "sojourn:invalidations", "sojourn*")]
    for other in others:
        assert other.load(make_id("a")) is None
        other.create("a")
    cluster.wait_until(lambda: all(other.figure("lease") for other in others))
    dead: list[list[str]] = [[] for _ in others]
    for other, heard in zip(others, dead, strict=True):
        other.store.on_dead(heard.append)
    one.create("a")
    one.delete("a")
    one.run(one.store.clear())
    cluster.wait_until(lambda: two.figure("announcements") >= 2)
    for other in others:
        other.delete("last")
    cluster.wait_until(lambda: all(dead))
    assert dead == [[make_id("last")]] * len(others)  # in order, on one link: the other's would have come before
    assert all(other.load(make_id("a")) is not None for other in others)


def test_a_channel_of_ones_own_carries_the_announcements(cluster: Cluster) -> None:
    one, two = cluster.pair(channel="shop:news")
    other = cluster.node(channel="other")
    other.load(make_id("nothing"))
    cluster.wait_until(lambda: other.figure("lease"))
    one.create("a")
    assert one.delete("a") is Deleted.OK
    cluster.wait_until(lambda: two.figure("announcements") == 2)
    other.create("last")
    cluster.wait_until(lambda: other.figure("announcements") == 1)
    with cluster.server.client() as client:
        assert dict(client.pubsub_numsub("shop:news", "other")) == {b"shop:news": 2, b"other": 1}


def test_f12_a_node_that_hears_too_slowly_is_cut_off_and_keeps_nothing(redis_server: RedisServer) -> None:
    with Driver() as driver, Driver() as elsewhere:
        slow, quick = (Cluster(redis_server, each, blocking=False) for each in (driver, elsewhere))
        two = slow.node(limits=_limits())
        one = quick.node(limits=_limits())
        one.create("a")
        slow.wait_until(lambda: _version(two) == 1 and two.figure("hits"))
        before = redis_server.command("CONFIG", "GET", "client-output-buffer-limit")
        redis_server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 65536 0")
        try:
            assert one.replace("a", 2) is Replaced.OK
            with redis_server.client() as client:  # the event loop of the slow node stands still meanwhile
                until = time.monotonic() + 30
                while client.publish("sojourn:invalidations", bytes(1_000_000)):
                    assert time.monotonic() < until, "the server never cut the slow node off"
            time.sleep(X)
            assert _version(two) == 2
            slow.wait_until(lambda: two.figure("losses") >= 1)
        finally:
            redis_server.command("CONFIG", "SET", "client-output-buffer-limit", _text(before))
        hits = two.figure("hits")
        slow.wait_until(lambda: _version(two) == 2 and two.figure("hits") > hits)
        for each in (slow, quick):
            each.close()


def _text(reply: Any) -> str:
    """Return the value in the reply to CONFIG GET."""
    value = reply[b"client-output-buffer-limit"] if isinstance(reply, dict) else reply[1]
    return str(value.decode() if isinstance(value, bytes) else value)


def test_clear_is_heard_everywhere(cluster: Cluster) -> None:
    one, two = cluster.pair()
    for name in range(5):
        one.create(name, index_label=make_label())
        two.load(make_id(name))
    one.run(one.store.clear())
    assert one.figure("size") == 0
    cluster.wait_until(lambda: two.figure("size") == 0)
    assert [two.load(make_id(name)) for name in range(5)] == [None] * 5


def test_every_node_is_told_of_the_dead(cluster: Cluster) -> None:
    one, two = cluster.pair()
    told: list[str] = []
    doubts: list[str] = []

    def tell(id: str) -> None:
        told.append(id)
        raise RuntimeError("a callback may fail")

    end = [node.store.on_dead(tell, on_doubt=lambda: doubts.append("doubt")) for node in (one, two)]
    one.create("a")
    one.replace("a", 2)
    two.delete("a")
    cluster.wait_until(lambda: len(told) == 2)
    assert told == [make_id("a")] * 2
    cluster.kill_links()
    cluster.wait_until(lambda: len(doubts) == 2)
    for each in end:
        each()
        each()
    one.delete("b")
    cluster.wait(0.1)
    assert len(told) == 2


@pytest.mark.parametrize("payload", [b"", bytes((2, 1, MOVED)) + b"sealed"], ids=["a login", "a rotation"])
def test_what_is_left_of_a_session_is_announced_as_a_death_also_when_it_is_written_again(
    cluster: Cluster, payload: bytes
) -> None:
    one, two = cluster.pair()
    told: list[str] = []
    two.store.on_dead(told.append)
    begun = one.create("a", index_label=None if payload else make_label())
    assert two.load(make_id("a")) is not None
    end = replace(begun, version=2, payload=payload, index_label=None)
    for _ in range(2):
        write = one.store.replace(end, expected=begun.version, write_id=make_write_id("end"))
        assert one.run(write) is Replaced.OK
    one.delete("last")
    cluster.wait_until(lambda: make_id("last") in told)
    assert list(dict.fromkeys(told)) == [make_id("a"), make_id("last")]
    left = two.load(make_id("a"))
    assert left is not None
    assert left.is_end


def test_of_an_end_no_copy_is_kept_since_what_comes_in_its_place_may_have_a_lower_version(cluster: Cluster) -> None:
    one, two = cluster.pair(limits=_limits(max_staleness=20.0))
    end = make_record(make_id("a"), version=9, payload=b"", now=time.time())
    assert one.run(one.store.create(end, write_id=make_write_id("end"))) is Created.OK
    assert two.load(end.id) is not None
    begun = replace(end, version=1, payload=b"anew")
    assert one.run(one.store.replace(begun, expected=9, write_id=make_write_id("anew"))) is Replaced.OK
    cluster.wait_until(lambda: two.store.copy_age(end.id) is None)
    for node in (one, two):
        found = node.load(end.id)
        assert found is not None
        assert found.payload == b"anew"


def test_a_store_without_a_cache_announces_and_keeps_nothing(cluster: Cluster) -> None:
    one, two = cluster.pair()
    without = cluster.node(limits=_limits(enabled=False), node_id="without")
    without.create("a")
    assert one.load(make_id("a")) is not None
    without.delete("a")
    cluster.wait_until(lambda: one.load(make_id("a")) is None)
    assert without.load(make_id("a")) is None
    assert without.figure("size") == 0
    with cluster.server.client() as client:
        assert not [each for each in client.client_list() if each["name"].endswith("without")]
    without.store.on_dead(lambda id: None)
    without.load(make_id("a"))
    cluster.wait_until(lambda: without.figure("lease"))
    assert two.figure("lease")


def test_the_bounds_hold(cluster: Cluster) -> None:
    node = cluster.node(limits=_limits(max_size=5, max_bytes=4 * ENTRY_BYTES, ttl=60.0))
    node.load(make_id("nothing"))
    cluster.wait_until(lambda: node.figure("lease"))
    for name in range(20):
        node.create(name)
    assert node.figure("size") == 3
    assert node.figure("bytes") <= 4 * ENTRY_BYTES
    assert node.figure("evictions") == 17


def test_a_copy_is_read_again_after_its_time(cluster: Cluster) -> None:
    node = cluster.node(limits=_limits(ttl=0.1))
    node.load(make_id("nothing"))
    cluster.wait_until(lambda: node.figure("lease"))
    node.create("a")
    cluster.wait(0.12)
    assert node.load(make_id("a")) is not None
    cluster.wait_until(lambda: _version(node) == 1 and node.figure("expirations"))


def test_aclose_drops_the_copies_and_the_next_call_begins_anew(cluster: Cluster) -> None:
    node = cluster.node(node_id="closing")
    node.create("a")
    for _ in range(2):
        cluster.wait_until(lambda: (node.load(make_id("a")), node.figure("size"))[1])
        node.close()
        node.close()
        assert node.figure("size") == 0

        def is_gone() -> bool:
            with cluster.server.client() as client:
                return not [each for each in client.client_list() if each["name"].endswith("closing")]

        cluster.wait_until(is_gone)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_f21_a_forked_child_has_a_link_of_its_own_and_no_copies(cluster: Cluster) -> None:
    one, two = cluster.pair(limits=_limits())
    one.create("a")
    cluster.wait_until(lambda: _version(one) == 1 and one.figure("size") == 1)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _child(one)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert one.figure("size") == 1
    assert one.figure("losses") == 0
    two.replace("a", 2)
    cluster.wait_until(lambda: _version(one) == 2)


def _child(node: Node) -> int:
    node.driver = Driver()  # an event loop belongs to its process
    bypasses = node.figure("bypasses")
    if _version(node) != 1 or node.figure("bypasses") != bypasses + 1:
        return 2
    until = time.monotonic() + 30
    while not node.figure("lease"):
        if time.monotonic() > until:
            return 3
        node.driver.run(asyncio.sleep(0.01))
    hits = node.figure("hits")
    _version(node)
    _version(node)
    return 0 if node.figure("hits") > hits else 4


def test_a_new_link_is_pinged_again_long_before_the_lease_is_over(cluster: Cluster) -> None:
    node = cluster.node(limits=_limits(max_staleness=8.0))
    node.load(make_id("nothing"))
    cluster.wait_until(lambda: node.figure("pings") >= 2)
    assert node.figure("losses") == 0
