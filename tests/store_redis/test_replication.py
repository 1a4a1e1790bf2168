"""What ends a session waits for replicas, dedicated from everything else, and is reported when they are silent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from sojourn.errors import ConfigurationError, StoreTimeoutError, StoreUnavailableError
from sojourn.manager import run_blocking
from sojourn.stores import ConfirmingStore, Deadline, DeadlineScope, Deleted, Replaced, StoreIO
from sojourn.testing import RecordingMetrics, RecordingObserver, make_id, make_label, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_store_redis.errors import is_refusal
from sojourn_store_redis.replication import Durability
from sojourn_store_redis.scripts import Script
from tests.beats import lasts
from tests.core.models import make_manager
from tests.servers import ClusterSetup, RedisServer, SentinelSetup, engines, wait_until

LONG = 5.0
"""Seconds for a call, on a machine that is busy with others."""


class Sent:
    """A transport that notes what it is asked for; the next answers are planned."""

    io = StoreIO.BLOCKING
    address = "nowhere"

    def __init__(self, *answers: tuple[Any, int] | BaseException, shares: bool = True) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int, int]] = []
        self.plain: list[str] = []
        self.made: list[Sent] = []
        self.closed = 0
        self._shares = shares

    def dedicated(self) -> Sent:
        if not self._shares:
            return self
        self.made.append(Sent(shares=False))
        self.made[-1].answers = self.answers
        return self.made[-1]

    async def eval(self, script: Script, keys: Any, arguments: Any) -> Any:
        self.plain.append(script.name)
        return 1

    async def eval_and_wait(
        self, script: Script, keys: Any, arguments: Any, replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        self.asked.append((script.name, replicas, milliseconds))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def execute(self, *command: Any) -> Any:
        return b"maxmemory_policy:noeviction\r\n"

    async def execute_many(self, commands: Any) -> list[Any]:
        return []

    async def aclose(self) -> None:
        self.closed += 1


def store_over(transport: Any, replicas: int = 1, seconds: float = 0.2) -> tuple[RedisStore, list[tuple[str, int]]]:
    store = RedisStore(transport, durability=Durability(replicas=replicas, seconds=seconds))
    heard: list[tuple[str, int]] = []
    store.on_unconfirmed(lambda id, confirmed: heard.append((id, confirmed)))
    return store, heard


def test_only_what_ends_a_session_waits_and_apart_from_the_rest() -> None:
    main = Sent(*[(1, 1)] * 2)
    store, heard = store_over(main)
    record = make_record("a", index_label=make_label())
    run_blocking(store.create(record, write_id=make_write_id(1)))
    run_blocking(store.replace(replace(record, version=2), expected=1, write_id=make_write_id(2)))
    run_blocking(store.touch("a", record.idle_deadline))
    assert main.plain == ["create", "replace", "touch"]
    end = replace(record, version=3, payload=b"", index_label=None)
    assert run_blocking(store.replace(end, expected=2, write_id=make_write_id(3))) is Replaced.OK
    assert run_blocking(store.delete("a")) is Deleted.OK
    assert len(main.made) == 1
    assert main.made[0].asked == [("replace", 1, 200), ("delete", 1, 200)]
    assert heard == []
    run_blocking(store.aclose())
    assert (main.closed, main.made[0].closed) == (1, 1)


def test_where_calls_share_no_connection_there_is_no_second_one() -> None:
    main = Sent((1, 2), shares=False)
    store, heard = store_over(main, replicas=2)
    assert run_blocking(store.delete("a")) is Deleted.OK
    assert main.asked == [("delete", 2, 200)]
    assert heard == []
    run_blocking(store.aclose())
    assert main.closed == 1


@pytest.mark.parametrize(("reply", "told"), [(1, [1]), (2, [0]), (0, []), (-1, [])])
def test_what_ended_and_was_not_confirmed_is_reported_and_nothing_else(
    reply: int, told: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    main = Sent((reply, 1), (reply, 1), shares=False)
    store, heard = store_over(main, replicas=2)
    with caplog.at_level(logging.WARNING, "sojourn_store_redis"):
        answer = run_blocking(store.delete("a"))
    assert answer is {0: Deleted.GONE, -1: Deleted.CONFLICT}.get(reply, Deleted.OK)
    assert heard == [("a", confirmed) for confirmed in told]
    assert caplog.text.count("replicas: a failover") == len(told)


def test_a_call_that_finds_its_work_done_before_has_waited_for_nothing_and_is_not_taken_for_confirmed() -> None:
    store, heard = store_over(Sent((2, 2), shares=False), replicas=2)
    assert run_blocking(store.delete("a")) is Deleted.OK
    assert heard == [("a", 0)]


LOST = StoreTimeoutError("the reply was lost")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([LOST, (0, 0), (0, 0)], [("a", 0)]),
        ([LOST, (0, 1), (0, 0)], [("a", 0)]),
        ([LOST, LOST, (0, 0)], [("a", 0)]),
        ([LOST, (1, 0), (0, 0)], [("a", 0)]),
        ([LOST, (-1, 0), (-1, 0)], []),
        ([(0, 0), LOST, (0, 0)], [("a", 0)]),
    ],
)
def test_an_end_whose_reply_was_lost_is_reported_by_the_call_that_finds_the_session_gone(
    answers: list[Any], told: list[tuple[str, int]]
) -> None:
    store, heard = store_over(Sent(*answers, shares=False))
    for _ in answers:
        with suppress(StoreTimeoutError):
            run_blocking(store.delete("a"))
    assert heard == told


def test_only_so_many_doubtful_ends_are_remembered_and_the_youngest_ones() -> None:
    ids = [str(number) for number in range(1_030)]
    store, heard = store_over(Sent(*[LOST] * len(ids), *[(0, 0)] * len(ids), shares=False))
    for id in ids:
        with pytest.raises(StoreTimeoutError):
            run_blocking(store.delete(id))
    for id in ids:
        run_blocking(store.delete(id))
    assert [id for id, _ in heard] == ids[-1_024:]


def test_after_a_silence_deletions_ask_and_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sojourn_store_redis.replication.time.monotonic", lambda: now)
    main = Sent((1, 0), (1, 0), (1, 1), (1, 1), shares=False)
    store, heard = store_over(main)
    for seconds in (0.0, 0.9, 0.9, 1.0):
        now += seconds
        run_blocking(store.delete("a"))
    assert [milliseconds for _, _, milliseconds in main.asked] == [200, 1, 1, 200]
    assert len(heard) == 2


def test_nobody_waits_longer_than_the_request_has_left_and_never_for_ever() -> None:
    main = Sent((1, 1), (1, 1), shares=False)
    store, _ = store_over(main)
    for patience in (0.05, 0.0001):
        with DeadlineScope(Deadline(patience)):
            run_blocking(store.delete("a"))
    assert [milliseconds for _, _, milliseconds in main.asked] == [50, 1]


class Slow(Sent):
    """Answers when it is told to."""

    io = StoreIO.ASYNC

    def dedicated(self) -> Slow:
        self.made.append(Slow())
        return self.made[-1]  # type: ignore[return-value]

    async def eval_and_wait(
        self, script: Script, keys: Any, arguments: Any, replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        self.asked.append((script.name, replicas, milliseconds))
        await asyncio.sleep(0)
        return 1, 1


@pytest.mark.anyio
async def test_no_connection_is_waited_on_twice_at_once_and_a_crowd_does_not_wait(anyio_backend: str) -> None:
    main = Slow()
    store, heard = store_over(main)
    await asyncio.gather(*(store.delete(f"{n}") for n in range(6)))
    assert [len(each.asked) for each in main.made] == [1] * 4
    assert main.plain == ["delete"] * 2
    assert sorted(heard) == [("4", 0), ("5", 0)]
    await asyncio.gather(*(store.delete(f"{n}") for n in range(4)))
    assert len(main.made) == 4


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"wait_replicas": -1}, "WAIT_REPLICAS"),
        ({"wait_replicas": 1, "wait_timeout": 0.0}, "WAIT_TIMEOUT"),
        ({"wait_replicas": 1, "wait_timeout": 0.5}, "WAIT_TIMEOUT"),
    ],
)
def test_a_time_that_the_call_does_not_have_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SOJOURN_REDIS_{name}"):
        RedisStore.from_url("redis://localhost", **options)
    RedisStore.from_url("redis://localhost", wait_timeout=7.0)  # nobody waits


def test_without_the_setting_nobody_is_asked() -> None:
    store = RedisStore.from_url("redis://localhost")
    assert isinstance(store, ConfirmingStore)
    store.on_unconfirmed(lambda *_: None)()
    assert store._confirmed is None


# -- real servers -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=engines())
def setup(request: pytest.FixtureRequest) -> Iterator[SentinelSetup]:
    with SentinelSetup(engine=str(request.param), down_after=60.0) as setup:
        yield setup


def addresses(setup: SentinelSetup) -> dict[str, str]:
    return {"plain": setup.master.url, "sentinel": setup.url}


KINDS = [(kind, place) for kind in ("shared", "blocking", "clustered") for place in ("plain", "sentinel")]


@pytest.mark.parametrize(("kind", "place"), [*KINDS, ("pool", "plain")])
def test_a_replica_that_lives_confirms_and_one_that_is_frozen_is_reported(
    setup: SentinelSetup, kind: str, place: str
) -> None:
    setup.replicas[0].thaw()
    setup.wait_for_replicas()
    url = addresses(setup)[place]
    options: dict[str, Any] = {"timeout": LONG, "connect_timeout": LONG, "wait_replicas": 1, "wait_timeout": 1.0}
    if kind == "pool":
        options["mode"] = "pool"
    make = ClusteredRedisStore.from_url if kind == "clustered" else RedisStore.from_url
    metrics, observer = RecordingMetrics(), RecordingObserver()
    built = make(url, namespace=f"{kind}-{place}", **options)
    store: Any = built.blocking_twin() if kind == "blocking" else built

    async def live() -> None:
        manager = make_manager(built, clock=time, metrics=metrics, observers=[observer])  # type: ignore[arg-type]
        for turn, unconfirmed in enumerate((0, 1)):
            if unconfirmed:
                setup.replicas[0].freeze()
            record = make_record(make_id(str(turn)), now=time.time(), index_label=make_label())
            await store.create(record, write_id=make_write_id(turn))
            with lasts(**({"at_least": 0.9, "at_most": 30.0} if unconfirmed else {"at_most": 0.8})):
                assert await store.delete(record.id) is Deleted.OK
            assert await store.load(record.id) is None
            assert metrics.counts["session.unconfirmed"] == unconfirmed
        assert [(one.id, one.reason) for one in observer.events if one.name == "unconfirmed"] == [
            (make_id("1"), "0 replicas")
        ]
        await end_twice()
        await manager.aclose()

    async def end_twice() -> None:
        """Repeat what a frozen replica cannot have, over a connection for which the server has nothing to wait for."""
        record, heard = make_record(make_id("twice"), now=time.time()), list[str]()
        await store.create(record, write_id=make_write_id(10))
        ended, dedicated = replace(record, version=2, payload=b""), make(url, namespace=f"{kind}-{place}", **options)
        dedicated.on_unconfirmed(lambda id, confirmed: heard.append(id))
        again: Any = dedicated.blocking_twin() if kind == "blocking" else dedicated
        assert await store.replace(ended, expected=1, write_id=make_write_id(11)) is Replaced.OK
        assert await again.replace(ended, expected=1, write_id=make_write_id(11)) is Replaced.OK
        await again.aclose()
        assert heard == [record.id]

    try:
        asyncio.run(live())
    finally:
        setup.replicas[0].thaw()


def test_a_wait_holds_up_nobody_else(setup: SentinelSetup) -> None:
    setup.replicas[0].thaw()
    setup.wait_for_replicas()

    async def live() -> None:
        store = RedisStore.from_url(
            setup.url, namespace="crowd", timeout=60.0, connect_timeout=60.0, wait_replicas=1, wait_timeout=30.0
        )
        record = make_record(make_id("a"), now=time.time())
        await store.create(record, write_id=make_write_id(1))
        setup.replicas[0].freeze()
        ending = asyncio.create_task(store.delete(record.id))
        while await store.load(record.id) is not None:
            await asyncio.sleep(0.01)
        for _ in range(20):
            await store.load(record.id)
        assert not ending.done()
        setup.replicas[0].thaw()
        assert await ending is Deleted.OK
        await store.aclose()

    try:
        asyncio.run(live())
    finally:
        setup.replicas[0].thaw()


def test_a_server_without_the_right_to_wait_deletes_and_reports(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "hasty", "on", ">word", "~*", "&*", "+@all", "-wait")
    url = redis_server.url.replace("redis://", "redis://hasty:word@")
    try:
        store = RedisStore.from_url(url, namespace="hasty", wait_replicas=1, wait_timeout=0.1, timeout=LONG)
        twin: Any = store.blocking_twin()
        heard: list[int] = []
        store.on_unconfirmed(lambda _id, confirmed: heard.append(confirmed))
        record = make_record(make_id("a"), now=time.time())
        run_blocking(twin.create(record, write_id=make_write_id(1)))
        assert run_blocking(twin.delete(record.id)) is Deleted.OK
        assert heard == [0]
        run_blocking(twin.aclose())
    finally:
        redis_server.command("ACL", "DELUSER", "hasty")


def test_f13_a_server_that_is_a_replica_deletes_nothing_and_says_so(setup: SentinelSetup) -> None:
    setup.replicas[0].thaw()
    setup.wait_for_replicas()
    options: dict[str, Any] = {"namespace": "deposed", "wait_replicas": 1, "wait_timeout": 0.1, "timeout": LONG}
    master: Any = RedisStore.from_url(setup.master.url, **options).blocking_twin()
    replica: Any = RedisStore.from_url(setup.replicas[0].url, **options).blocking_twin()
    record = make_record(make_id("a"), now=time.time())
    run_blocking(master.create(record, write_id=make_write_id(1)))
    wait_until(lambda: run_blocking(replica.load(record.id)) is not None, "the record is not replicated")
    with pytest.raises(StoreUnavailableError, match="(?i)readonly"):
        run_blocking(replica.delete(record.id))
    assert run_blocking(master.load(record.id)) is not None
    for store in (master, replica):
        run_blocking(store.aclose())


def test_f13_a_refusal_of_the_wait_itself_is_a_refusal_of_the_deletion() -> None:
    refused = ResponseError("WAIT cannot be used with replica instances. Please also note that")
    assert is_refusal([ReadOnlyError("READONLY"), refused])
    assert not is_refusal([b"label", refused])


def test_in_a_redis_cluster_the_replica_of_the_slot_confirms() -> None:
    with ClusterSetup() as cluster:
        options: dict[str, Any] = {"timeout": LONG, "connect_timeout": LONG, "wait_replicas": 1, "wait_timeout": 2.0}

        async def live() -> None:
            store = RedisStore.from_url(cluster.cluster_url, namespace="slots", **options)
            twin: Any = store.blocking_twin()
            heard: list[int] = []
            store.on_unconfirmed(lambda _id, confirmed: heard.append(confirmed))
            for turn in range(8):
                record = make_record(make_id(str(turn)), now=time.time(), index_label=make_label())
                side = twin if turn % 2 else store
                await side.create(record, write_id=make_write_id(turn))
                assert await side.delete(record.id) is Deleted.OK
                assert await side.load(record.id) is None
            assert heard == []
            await store.aclose()

        asyncio.run(live())
