"""The way to a master through sentinels: what its URL says, whom the route trusts, and what a deposed master costs."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.stores import Created, StoreIO
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import Address, RedisStore
from sojourn_store_redis.sentinel import MasterListener, SentinelRoute, new_master
from sojourn_store_redis.threads import ProcessThread
from sojourn_store_redis.urls import SentinelGroup
from sojourn_testing.bench import Driver, drive
from tests.beats import lasts
from tests.servers import RedisServer, SentinelSetup, engines, wait_until

W1 = make_write_id(1)
NOW = 1_900_000_000.0
A, B = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
S1, S2, S3 = ("s1", 26379), ("s2", 26379), ("s3", 26379)


@pytest.mark.parametrize(
    ("url", "nodes", "name", "server_url"),
    [
        ("redis+sentinel://h/m", (("h", 26379),), "m", "redis://master:6379/0"),
        ("redis+sentinel://h:1,i:2,j/m/3", (("h", 1), ("i", 2), ("j", 26379)), "m", "redis://master:6379/3"),
        ("redis+sentinel://u:p%40@[::1]:5,h/m", (("::1", 5), ("h", 26379)), "m", "redis://u:p%40@master:6379/0"),
        ("rediss+sentinel://:p@h/my%2Fm/?ssl_cert_reqs=none", (("h", 26379),), "my/m", None),
    ],
)
def test_the_url_of_a_group_is_read(url: str, nodes: Any, name: str, server_url: str | None) -> None:
    group = SentinelGroup.parse(url)
    assert (group.nodes, group.name) == (nodes, name)
    assert group.server_url == (server_url or "rediss://:p@master:6379/0?ssl_cert_reqs=none")


def test_the_sentinels_have_credentials_of_their_own() -> None:
    group = SentinelGroup.parse("redis+sentinel://u:p@h/m?sentinel_username=w&sentinel_password=x%26y&health=1")
    assert (group.username, group.password) == ("w", "x&y")
    assert group.server_url == "redis://u:p@master:6379/0?health=1"
    assert "x&y" not in repr(group)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret-word@h",
        "redis+sentinel://:secret-word@/m",
        "redis+sentinel://:secret-word@h:port/m",
        "redis+sentinel://:secret-word@h,/m",
        "redis+sentinel://:secret-word@h/m/x",
        "redis+sentinel://:secret-word@h/m?colour=blue",
        "redis+sentinel://:secret-word@h/m?socket_timeout=soon",
        "redis+sentinel://:secret-word@h/m?nothing",
    ],
)
def test_r6_a_url_that_cannot_be_used_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_URL") as caught:
        RedisStore.from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-word" not in str(error)
        error = error.__cause__ or error.__context__


def test_r6_neither_store_nor_address_shows_a_password() -> None:
    url = "redis+sentinel://:secret-word@h:1/m?sentinel_password=secret-word"
    store = RedisStore.from_url(url)
    assert "m of the sentinels at h:1" in repr(store)
    for thing in (store, Address(url=url), store.blocking_twin()):
        assert "secret-word" not in repr(thing)


def test_a_pool_knows_no_sentinels() -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_TRANSPORT"):
        RedisStore.from_url("redis+sentinel://h/m", mode="pool")


class Network:
    """Who answers what; a name that is missing refuses connections."""

    def __init__(self) -> None:
        self.sentinels: dict[Any, Any] = {S1: A, S2: A, S3: A}
        self.roles: dict[Any, bytes] = {A: b"master", B: b"slave"}
        self.open: list[Connection] = []
        self.asked: list[Any] = []
        self.on_role: list[Any] = []

    def route(self) -> SentinelRoute:
        route = SentinelRoute(
            name="m",
            nodes=[S1, S2, S3],
            address="m",
            make_server=lambda *node: Connection(self, node),
            make_sentinel=lambda *node: Connection(self, node),
            make_listener=lambda *node: Connection(self, node),
        )
        route._watch.start = lambda: None  # type: ignore[method-assign]
        return route


class Connection:
    """A blocking connection, as far as a route uses one."""

    def __init__(self, network: Network, node: Any) -> None:
        self.network = network
        self.node = node

    def connect(self) -> None:
        self.network.asked.append(self.node)
        if self.node not in self.network.sentinels and self.node not in self.network.roles:
            raise redis.ConnectionError("refused")
        self.network.open.append(self)

    def send_command(self, *words: str) -> None:
        self.is_role = words == ("ROLE",)

    def read_response(self) -> Any:
        if self.is_role:
            for hook in self.network.on_role:
                hook()
            return [self.network.roles[self.node]]
        master = self.network.sentinels[self.node]
        return None if master is None else [master[0].encode(), str(master[1]).encode()]

    def disconnect(self, nowait: bool, /) -> None:
        if self in self.network.open:
            self.network.open.remove(self)


def _connect(route: SentinelRoute) -> Any:
    return drive(route.connect(), StoreIO.BLOCKING).node


def test_the_first_sentinel_that_answers_names_the_master() -> None:
    network = Network()
    del network.sentinels[S1]
    route = network.route()
    assert _connect(route) == A
    assert network.asked == [S1, S2, A]
    assert _connect(route) == A
    assert network.asked[3:] == [S2, A], "a sentinel that was down is asked last"
    assert {connection.node for connection in network.open} == {A}


def test_a_sentinel_that_does_not_know_the_name_is_passed_over() -> None:
    network = Network()
    network.sentinels.update({S1: None, S2: None})
    assert _connect(network.route()) == A
    network.sentinels[S3] = None
    with pytest.raises(redis.ConnectionError, match="called 'm'"):
        _connect(network.route())


def test_f13_a_server_that_is_no_master_any_more_is_not_used() -> None:
    network = Network()
    network.roles = {A: b"slave", B: b"master"}
    route = network.route()
    with pytest.raises(redis.ConnectionError, match="not the master"):
        _connect(route)
    assert network.open == []
    assert network.asked.count(A) == 1, "three sentinels name it, once is enough"
    network.sentinels[S3] = B
    assert _connect(route) == B


def test_f13_news_of_another_master_ends_the_generation_once() -> None:
    network = Network()
    route = network.route()
    assert _connect(route) == A
    generation = route.generation
    route.note_master(S2, A)
    assert route.generation == generation
    network.sentinels[S2] = B
    network.roles = {A: b"master", B: b"master"}  # the deposed one has not heard of it
    route.note_master(S2, B)
    assert route.generation == generation + 1
    assert _connect(route) == B, "the sentinel that brought the news is asked first"
    route.note_master(S1, B)
    route.note_master(S3, B)
    assert route.generation == generation + 1


def test_f13_news_that_come_while_a_connection_is_made_are_not_missed() -> None:
    network = Network()
    network.roles = {A: b"master", B: b"master"}
    route = network.route()

    def switch() -> None:
        network.on_role.clear()
        network.sentinels[S3] = B
        route.note_master(S3, B)

    network.on_role.append(switch)
    assert _connect(route) == B
    assert [connection.node for connection in network.open] == [B]


def test_f13_a_connection_that_finds_another_master_before_its_news_come_ends_the_generation_of_the_others() -> None:
    network = Network()
    route = network.route()
    assert _connect(route) == A
    generation = route.generation
    network.sentinels = dict.fromkeys(network.sentinels, B)
    network.roles = {A: b"master", B: b"master"}  # the deposed one was frozen, say, and has not heard of it
    assert _connect(route) == B
    assert route.generation == generation + 1, "what is open still leads to the deposed master"
    route.note_master(S1, B)
    assert _connect(route) == B
    assert route.generation == generation + 1
    route.leave(route.generation)
    assert _connect(route) == B
    assert route.generation == generation + 2, "a master that refused may be the same one again"


def test_f13_a_refusal_ends_the_generation_in_which_it_came() -> None:
    route = Network().route()
    route.leave(0)
    assert route.generation == 1
    route.leave(0)
    assert route.generation == 1


class Heard:
    def __init__(self) -> None:
        self.masters: list[Any] = []

    def hear(self, node: Any, master: Any) -> None:
        self.masters.append(master)


@pytest.fixture
def sentinel() -> Iterator[RedisServer]:
    with RedisServer(sentinel=True) as sentinel:
        sentinel.command("SENTINEL", "MONITOR", "m", "127.0.0.1", 1, 2)
        yield sentinel


def _watch(sentinel: RedisServer, heard: Heard, interval: float = 0.2) -> ProcessThread[MasterListener]:
    def listener(host: str, port: int) -> Any:
        return redis.asyncio.Connection(host=host, port=port, protocol=2, socket_timeout=0.2)

    listening = MasterListener(
        name="m", nodes=[("127.0.0.1", sentinel.port)], make_listener=listener, on_master=heard.hear, interval=interval
    )
    return ProcessThread(lambda: listening, name="sojourn sentinel watch")


@pytest.mark.parametrize(
    ("message", "master"),
    [
        (b"m 10.0.0.1 6379 10.0.0.2 6380", ("10.0.0.2", 6380)),
        (b"other 10.0.0.1 6379 10.0.0.2 6380", None),
        (b"m 10.0.0.1 6379", None),
        (b"", None),
        (b"m \xff 1 \xff 2", ("\ufffd", 2)),
    ],
)
def test_the_news_of_a_sentinel_are_read(message: bytes, master: Any) -> None:
    assert new_master(message, "m") == master


def test_the_watch_asks_again_after_it_was_cut_off(sentinel: RedisServer) -> None:
    heard = Heard()
    watch = _watch(sentinel, heard)
    watch.start()
    watch.start()
    wait_until(lambda: heard.masters == [("127.0.0.1", 1)], "the first answer")
    assert sentinel.command("CLIENT", "KILL", "TYPE", "pubsub") == 1
    wait_until(lambda: len(heard.masters) == 2, "an answer after the link was cut")
    watch.stop(30.0)
    watch.stop(30.0)
    assert "sojourn sentinel watch" not in {thread.name for thread in threading.enumerate()}


def test_the_watch_notices_that_a_sentinel_is_frozen(sentinel: RedisServer) -> None:
    heard = Heard()
    watch = _watch(sentinel, heard)
    watch.start()
    wait_until(lambda: len(heard.masters) == 1, "the first answer")
    sentinel.freeze()
    time.sleep(0.8)
    sentinel.thaw()
    wait_until(lambda: len(heard.masters) == 2, "an answer after the thaw")
    watch.stop(30.0)


def test_the_watch_ends_when_nobody_wants_to_hear_any_more(sentinel: RedisServer) -> None:
    def listen_and_forget() -> threading.Thread:
        heard = Heard()
        watch = _watch(sentinel, heard)
        watch.start()
        wait_until(lambda: len(heard.masters) == 1, "the first answer")
        assert watch._thread is not None
        return watch._thread._thread

    thread = listen_and_forget()
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("engine", engines())
def test_f13_a_store_over_sentinels_serves_both_kinds(engine: str) -> None:
    with SentinelSetup(engine=engine) as setup, Driver() as driver:
        store = RedisStore.from_url(setup.url, timeout=2.0)
        twin = store.blocking_twin()
        assert driver.run(store.create(make_record(now=NOW), write_id=W1)) is Created.OK
        assert drive(twin.load(make_id()), twin.io) is not None
        driver.run(store.aclose())


def test_sentinels_that_are_all_gone_are_an_outage_that_ends_in_time() -> None:
    with RedisServer(sentinel=True) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port},127.0.0.1:1/m"
        store = RedisStore.from_url(url, timeout=1.0)
        twin = store.blocking_twin()
        with Driver() as driver:
            for freeze in (False, True):
                if freeze:
                    sentinel.freeze()
                for each in (store, twin):
                    # less than twice the time-out: the second sentinel gets what the first one left
                    with lasts(at_most=1.7), pytest.raises(StoreUnavailableError, match="m of the sentinels"):
                        driver.run(each.load(make_id()), each.io)
            sentinel.thaw()
            driver.run(store.aclose())
