"""A user with exactly the rights that docs/operations.md lists can do all that the stores do, and is refused nothing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from redis.crc import key_slot

from sojourn import SessionManager
from sojourn.errors import StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.stores import CachingStore, Created, Deleted, Replaced, StoreIO
from sojourn.testing import make_id, make_label, make_record, make_write_id
from sojourn_store_redis import sojourn_create_store
from sojourn_store_redis.records import KeyNames
from sojourn_testing.bench import Driver
from tests.core.models import Visit
from tests.docs.pages import blocks, page, section
from tests.servers import ClusterSetup, RedisServer, SentinelSetup, engines, wait_until
from tests.store_redis.cluster.move import Move

SECTION = section(page("docs/operations.md"), "A user of its own")
ON_SERVERS, ON_SENTINELS = (line for block in blocks(SECTION, "text") for line in block.splitlines())
BESIDE: dict[str, str] = dict(re.findall(r"^- (?:for|from) ([^:]+): `([^`]+)`", SECTION, re.MULTILINE))
NEWER, DATABASE, WAIT, SENTINELS, CLUSTER, CLUSTERED, CLUSTERED_ON_CLUSTER = BESIDE
NAMESPACE = "shop"
KEYS = KeyNames.of(NAMESPACE)


@dataclass
class Site:
    """Servers on which the user ``shop`` may do what the page says, and nothing else."""

    url: str
    servers: list[RedisServer]
    beside: list[str]
    sentinels: list[RedisServer] = field(default_factory=list)
    cluster: ClusterSetup | None = None
    rights: set[str] = field(default_factory=set)
    """The commands that the page allows on the servers."""

    @property
    def has_replicas(self) -> bool:
        return len(self.servers) > 1

    def allow(self, *beside: str) -> None:
        """Empty the servers and make the user anew, with what the page wants beside for these."""
        newer = [BESIDE[NEWER]] if self._is_new() else []
        words = " ".join([ON_SERVERS, *newer, *(BESIDE[name] for name in (*self.beside, *beside))]).split()
        self.rights = {word[1:] for word in words if word.startswith("+")}
        for server in self.servers:
            if _info(server, "replication")["role"] == "master":
                server.flush()
            server.command("CONFIG", "RESETSTAT")
            server.command(*words)
        for sentinel in self.sentinels:
            sentinel.command(*ON_SENTINELS.split(), *newer)
        for server in (*self.servers, *self.sentinels):
            server.command("ACL", "LOG", "RESET")

    def refused(self) -> list[str]:
        """Return what any server has refused."""
        found: list[str] = []
        for server in (*self.servers, *self.sentinels):
            with server.client() as client:
                found += [f"{server.port}: {entry['object']} ({entry['reason']})" for entry in client.acl_log()]
        return found

    def unused(self) -> set[str]:
        """Return the rights of which nobody made use since the user was made."""
        names = {name.removeprefix("cmdstat_") for server in self.servers for name in _info(server, "commandstats")}
        return self.rights - names

    def _is_new(self) -> bool:
        return "valkey_version" in (server := _info(self.servers[0], "server")) or server["redis_version"] >= "7.2"


def _info(server: RedisServer, part: str) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.info(part))


def _as_user(url: str, database: int = 0) -> str:
    return url.replace("://", "://shop:password@", 1).removesuffix("0") + (str(database) if url.endswith("0") else "")


SITES = [f"{engine} {database}" for engine in engines() for database in (0, 3)]
SITES += ["sentinels 0", "sentinels 3", "cluster 0"]


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    kind, _, number = request.param.partition(" ")
    database = int(number)
    beside = [DATABASE] if database else []
    with ExitStack() as stack:
        if kind == "sentinels":
            setup = stack.enter_context(SentinelSetup())
            url = _as_user(setup.url, database) + "?sentinel_username=shop&sentinel_password=password"
            yield Site(url, setup.data_servers, [SENTINELS, *beside], setup.sentinels)
        elif kind == "cluster":
            cluster = stack.enter_context(ClusterSetup())
            yield Site(_as_user(cluster.cluster_url), cluster.nodes, [CLUSTER], cluster=cluster)
        else:
            server = stack.enter_context(RedisServer(engine=kind))
            yield Site(_as_user(server.url, database), [server], beside)


class Application:
    """A store of the wanted kind, and the sessions in it, with plain calls."""

    def __init__(self, driver: Driver, name: str, io: StoreIO) -> None:
        settings = SessionSettings()
        whole: Any = sojourn_create_store(name, settings)
        self.driver = driver
        self.io = io
        self.whole = whole
        self.store: Any = whole if io is StoreIO.ASYNC else whole.blocking_twin()
        self.sessions: SessionManager[Visit] = SessionManager(Visit, self.store, settings=settings)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.store, name)
        return lambda *arguments, **options: self.driver.run(method(*arguments, **options), self.io)

    def ask(self, name: str, *arguments: Any) -> Any:
        if self.io is StoreIO.ASYNC:
            return self.driver.run(getattr(self.sessions, name)(*arguments))
        return getattr(self.sessions.blocking, name)(*arguments)

    def scan(self) -> list[str]:
        return self.driver.collect(self.store.scan(), self.io)

    def close(self) -> None:
        self.driver.run(self.whole.aclose())

    def is_linked(self) -> bool:
        self.driver.run(asyncio.sleep(0.02))
        return bool(self.store.cache_stats()["lease"])


@pytest.mark.parametrize("io", [StoreIO.ASYNC, StoreIO.BLOCKING], ids=["asyncio", "blocking"])
@pytest.mark.parametrize("waits", [False, True], ids=["", "waits for replicas"])
@pytest.mark.parametrize("name", ["redis", "clustered-redis"])
def test_the_documented_rights_are_all_that_a_store_asks_for_and_no_more(
    monkeypatch: pytest.MonkeyPatch, site: Site, name: str, io: StoreIO, *, waits: bool
) -> None:
    beside = [WAIT] * waits
    if name == "clustered-redis":
        beside += [CLUSTERED] + [CLUSTERED_ON_CLUSTER] * (site.cluster is not None)
    site.allow(*beside)
    _set(monkeypatch, redis_url=site.url, redis_wait_replicas=str(int(waits)))
    _set(monkeypatch, redis_wait_timeout="5s" if site.has_replicas else "1ms")
    with Driver() as driver, closing(Application(driver, name, io)) as application:
        if name == "clustered-redis":
            application.load(make_id("nothing"))
            wait_until(application.is_linked, "the invalidation link does not come up")
        _do_all_that_a_store_does(application)
        if site.cluster is not None:
            _do_what_moves_bring(application, site.cluster)
            _do_what_time_brings(application, monkeypatch)
        _do_all_that_a_manager_does(application)
    assert site.refused() == []
    assert site.unused() == set()


def test_a_user_that_may_not_name_its_connections_is_refused_everything_unless_they_have_no_name(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    site = Site(_as_user(redis_server.url), [redis_server], [])
    site.allow()
    redis_server.command("ACL", "SETUSER", "shop", "-client|setname")
    _set(monkeypatch, redis_url=site.url)
    with Driver() as driver, closing(Application(driver, "redis", StoreIO.ASYNC)) as application:
        with pytest.raises(StoreUnavailableError, match="NoPermissionError"):
            application.load(make_id("one"))
        assert any("setname" in refused for refused in site.refused())
    _set(monkeypatch, redis_client_name="none")
    with Driver() as driver, closing(Application(driver, "redis", StoreIO.ASYNC)) as application:
        assert application.load(make_id("one")) is None


def _set(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    patient = {"redis_timeout": "10s", "redis_connect_timeout": "10s"}
    for name, value in {"preset": "testing", "namespace": NAMESPACE, **patient, **settings}.items():
        monkeypatch.setenv(f"SOJOURN_{name.upper()}", value)


def _do_all_that_a_store_does(store: Application) -> None:
    label, other = make_label("one"), make_label("other")
    record = make_record(make_id("one"), now=time.time(), index_label=label)
    assert store.create(record, write_id=make_write_id(1)) is Created.OK
    assert store.create(record, write_id=make_write_id(1)) is Created.OK
    assert store.create(record, write_id=make_write_id(2)) is Created.EXISTS
    longer = replace(record, version=2, absolute_deadline=record.absolute_deadline + 60)
    assert store.replace(longer, expected=1, write_id=make_write_id(3)) is Replaced.OK
    moved = replace(longer, version=3, index_label=other)
    assert store.replace(moved, expected=2, write_id=make_write_id(4)) is Replaced.OK
    assert store.replace(moved, expected=2, write_id=make_write_id(5)) is Replaced.CONFLICT
    assert store.touch(record.id, record.idle_deadline + 60)
    assert store.load(record.id).version == 3
    assert store.ids_of(label) == []
    assert store.ids_of(other) == [record.id]
    assert store.scan() == [record.id]
    assert store.count() == 1
    assert store.delete(record.id, expected=3) is Deleted.OK
    assert store.delete(record.id) is Deleted.GONE
    assert store.load(record.id) is None
    large = make_record(make_id("large"), now=time.time(), payload=bytes(100_000))
    assert store.create(large, write_id=make_write_id(6)) is Created.OK
    if isinstance(store.store, CachingStore):
        store.evict(large.id)
    assert store.load(large.id).payload == large.payload
    for number in range(5):
        plain = make_record(make_id(number), now=time.time(), index_label=label)
        store.create(plain, write_id=make_write_id(f"plain {number}"))
    store.clear()
    assert store.count() == 0


def _do_what_moves_bring(store: Application, cluster: ClusterSetup) -> None:
    """Make a record where its slot goes: the server that has it so far sends us there."""
    with Move(cluster, KEYS.session_key(make_id("one"))) as move:
        move.begin()
        there = next(id for id in map(make_id, range(100_000)) if key_slot(KEYS.session_key(id)) == move.slot)
        assert store.create(make_record(there, now=time.time()), write_id=make_write_id(1)) is Created.OK
        assert move.target.command("CLUSTER", "COUNTKEYSINSLOT", move.slot) == 1
        assert store.load(there) is not None
        assert store.delete(there) is Deleted.OK


def _do_what_time_brings(store: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a session that ended some time ago: its id leaves the index, which is on another server."""
    label = make_label("old")
    store.create(make_record(make_id("old"), now=time.time(), index_label=label), write_id=make_write_id(1))
    store.delete(make_id("old"))
    later = time.time() + 600
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: later)
        assert store.ids_of(label) == []


def _do_all_that_a_manager_does(application: Application) -> None:
    ask = application.ask
    assert ask("healthy")
    tokens = []
    for number in range(3):
        session = ask("open", None)
        session.data.count = number
        tokens.append(ask("commit", session).token)
        session = ask("open", tokens[-1])
        session.login("ada")
        tokens[-1] = ask("commit", session).token
    session = ask("open", tokens[0])
    assert (session.principal, session.data.count) == ("ada", 0)
    session.data.count += 1
    session.rotate()
    tokens[0] = ask("commit", session).token
    assert len(ask("list", "ada")) == 3
    assert ask("count") >= 3
    assert ask("reseal") == 0, "all are sealed with the one key"
    assert ask("revoke", ask("list", "ada")[0].id)
    session = ask("open", tokens[0])
    session.logout()
    ask("commit", session)
    assert ask("revoke_all", "ada") in {1, 2}
    assert ask("list", "ada") == []
    ask("clear")
