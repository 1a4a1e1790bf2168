"""What becomes of calls when the server is gone, frozen, unwilling or slow; every wait here is a real one."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.stores import Created, StoreIO
from sojourn.testing import make_id, make_label, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_store_redis.errors import mapped
from sojourn_testing.bench import drive
from tests.beats import lasts
from tests.servers import engines, wait_until

W1, W2 = make_write_id(1), make_write_id(2)
NOW = 1_800_000_000.0
OWN = ["own asyncio", "own blocking", "pool asyncio", "pool blocking"]

CALLS: dict[str, Callable[[Any], object]] = {
    "load": lambda store: store.load(make_id()),
    "create": lambda store: store.create(make_record(index_label=make_label()), write_id=W1),
    "replace": lambda store: store.replace(make_record(version=2), expected=1, write_id=W2),
    "touch": lambda store: store.touch(make_id(), NOW + 5),
    "delete": lambda store: store.delete(make_id()),
    "ids_of": lambda store: store.ids_of(make_label()),
    "scan": lambda store: store.scan(),
    "count": lambda store: store.count(),
    "clear": lambda store: store.clear(),
}


# Of what engine a server was that is gone cannot be told.
@pytest.mark.parametrize("any_redis_server", engines()[:1], indirect=True)
@pytest.mark.parametrize("call", CALLS)
def test_f1_a_server_that_is_gone_is_unavailable_until_it_is_back(store: Any, call: str) -> None:
    store.load(make_id())
    store.bench.server.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as caught:
            CALLS[call](store)
        assert f"127.0.0.1:{store.bench.server.port}" in str(caught.value)
        assert isinstance(caught.value.__cause__, redis.RedisError | OSError)
    store.bench.server.restart()
    store.create(make_record(), write_id=W1)
    assert store.load(make_id()) is not None


@pytest.mark.parametrize("kind", [*OWN, "handed asyncio"])
@pytest.mark.parametrize("is_connected", [True, False])
def test_a_frozen_server_is_given_up_in_time(make: Callable[..., Any], kind: str, is_connected: bool) -> None:
    store = make(timeout=0.3)
    if is_connected:
        store.load(make_id())
    store.bench.server.freeze()
    for name in ("load", "create", "touch", "delete"):
        with lasts(at_least=0.25, at_most=1.5), pytest.raises(StoreTimeoutError, match="did not answer"):
            CALLS[name](store)
    store.bench.server.thaw()
    again = make(timeout=20.0)
    again.create(make_record("after"), write_id=W1)
    assert again.load("after").payload == b"payload"

    def works() -> bool:
        try:
            return store.load("after") is not None
        except StoreUnavailableError:
            return False

    wait_until(works, "the store that had given up works again")


@pytest.mark.parametrize("kind", OWN)
def test_f6_a_write_whose_reply_was_lost_is_repeated_without_a_second_effect(make: Callable[..., Any]) -> None:
    store = make(timeout=0.2)
    store.load(make_id())
    store.bench.server.freeze()
    with pytest.raises(StoreTimeoutError):
        store.create(make_record(), write_id=W1)
    store.bench.server.thaw()
    again = make(timeout=20.0)
    assert again.create(make_record(), write_id=W1) is Created.OK
    assert again.load(make_id()).write_ids == (W1,)


@contextmanager
def _dribbling_server(reply: bytes, pause: float) -> Iterator[int]:
    """Serve a reply byte by byte to whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def serve() -> None:
            while not stopped.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        while connection.recv(65536):
                            for byte in reply:
                                connection.sendall(bytes((byte,)))
                                if stopped.wait(pause):
                                    break
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("kind", OWN)
def test_a_reply_that_dribbles_does_not_stretch_the_deadline(make: Callable[..., Any]) -> None:
    with _dribbling_server(b"$20\r\nxxxxxxxxxxxxxxxxxxxx\r\n", pause=0.1) as port:
        store = make(url=f"redis://127.0.0.1:{port}/0", timeout=0.4)
        with lasts(at_most=1.5), pytest.raises(StoreTimeoutError):
            store.load(make_id())
        store.aclose()


@pytest.mark.parametrize(
    ("setting", "value"), [("maxmemory", "1"), ("min-replicas-to-write", "1"), ("replicaof", "127.0.0.1 1")]
)
def test_f13_f14_a_server_that_refuses_writes_is_unavailable(store: Any, setting: str, value: str) -> None:
    server = store.bench.server
    store.load(make_id())
    undo = ("REPLICAOF", "NO", "ONE") if setting == "replicaof" else ("CONFIG", "SET", setting, "0")
    server.command(*(("REPLICAOF", "127.0.0.1", "1") if setting == "replicaof" else ("CONFIG", "SET", setting, value)))
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            CALLS["create"](store)
        assert not isinstance(caught.value, StoreTimeoutError)
    finally:
        server.command(*undo)
    assert store.create(make_record(), write_id=W1) is Created.OK


def test_a_server_that_has_forgotten_the_scripts_is_taught_them_again(store: Any) -> None:
    for n in range(3):
        store.bench.server.command("SCRIPT", "FLUSH")
        assert store.create(make_record(make_id(n)), write_id=W1) is Created.OK
    assert store.count() == 3


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl"])
def test_f14_an_evicting_server_is_reported_once(store: Any, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    server = store.bench.server
    server.command("CONFIG", "SET", "maxmemory-policy", policy)
    try:
        for _ in range(3):
            store.load(make_id())
            store.create(make_record(), write_id=W1)
    finally:
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (policy != "noeviction")
    assert all(policy in text and str(server.port) in text for text in warnings)


def test_f24_a_server_that_forbids_the_check_is_used_all_the_same(
    bench: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = bench.server
    server.command("ACL", "SETUSER", "limited", "on", ">secret-word", "~sojourn:*", "+@all", "-info", "-@admin")
    url = f"redis://limited:secret-word@127.0.0.1:{server.port}/0"
    store = bench.store(kind, url=url)
    assert bench.run(store.create(make_record(), write_id=W1), store.io) is Created.OK
    assert caplog.text == ""
    assert "secret-word" not in repr(store)
    server.command("ACL", "SETUSER", "limited", "resetkeys")
    with pytest.raises(StoreUnavailableError) as caught:
        bench.run(store.load(make_id()), store.io)
    assert "secret-word" not in str(caught.value)
    server.command("ACL", "DELUSER", "limited")


def test_r6_a_wrong_password_is_unavailable_and_not_repeated(bench: Any, kind: str) -> None:
    url = f"redis://nobody:secret-word@127.0.0.1:{bench.server.port}/0"
    store = bench.store(kind, url=url)
    with pytest.raises(StoreUnavailableError) as caught:
        bench.run(store.load(make_id()), store.io)
    assert "secret-word" not in str(caught.value)
    assert "nobody" not in str(caught.value)


def test_r6_a_reply_that_quotes_its_arguments_is_cut_to_its_code() -> None:
    error = redis.ResponseError("ERR unknown command 'EVALSHA', with args beginning with: 'the payload'")
    text = str(mapped(error, operation="create", address="host:1"))
    assert "payload" not in text
    assert "create" in text
    assert "ERR" in text
    assert "host:1" in text


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("gone"),
        redis.BusyLoadingError("loading"),
        redis.ReadOnlyError("replica"),
        redis.exceptions.OutOfMemoryError("full"),
        redis.exceptions.RedisClusterException("no slots"),
        redis.exceptions.ClusterDownError("down"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        ConnectionResetError("reset"),
    ],
)
def test_whatever_the_client_raises_is_unavailable(error: Exception) -> None:
    found = mapped(error, operation="load", address="host:1")
    assert type(found) is StoreUnavailableError
    assert "host:1" in str(found)


@pytest.mark.parametrize("error", [redis.TimeoutError("late"), TimeoutError("late")])
def test_a_timeout_says_that_the_effect_is_unknown(error: Exception) -> None:
    found = mapped(error, operation="load", address="host:1")
    assert type(found) is StoreTimeoutError
    assert "unknown" in str(found)


@pytest.mark.parametrize("kind", ["own asyncio", "pool asyncio", "handed asyncio"])
def test_f17_a_cancelled_call_never_leaves_its_reply_to_the_next_one(bench: Any, kind: str) -> None:
    store = bench.store(kind)

    async def hammer() -> None:
        for n in range(20):
            await store.create(make_record(make_id(n), payload=str(n).encode() * 2000), write_id=W1)
        for round_ in range(150):
            tasks = [asyncio.ensure_future(store.load(make_id(n % 20))) for n in range(8)]
            for _ in range(round_ % 9):
                await asyncio.sleep(0)
            await asyncio.sleep((round_ % 5) * 0.0002)
            for task in tasks[::2]:
                task.cancel()
            for n, answer in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                if isinstance(answer, BaseException):
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert answer.id == make_id(n % 20)
                    assert answer.payload == str(n % 20).encode() * 2000
            alone = await store.load(make_id(round_ % 20))
            assert alone.payload == str(round_ % 20).encode() * 2000

    bench.run(hammer())


@pytest.mark.parametrize("kind", ["own asyncio", "pool asyncio"])
def test_f17_a_call_cancelled_on_a_frozen_server_drops_its_connection(bench: Any, kind: str) -> None:
    store = bench.store(kind, timeout=20.0)

    async def cancel() -> None:
        await store.create(make_record(make_id("one"), payload=b"one"), write_id=W1)
        await store.create(make_record(make_id("two"), payload=b"two"), write_id=W1)
        bench.server.freeze()
        task = asyncio.ensure_future(store.load(make_id("one")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.server.thaw()
        assert (await store.load(make_id("two"))).payload == b"two"

    bench.run(cancel())


@pytest.mark.parametrize("kind", ["own asyncio", "pool asyncio"])
def test_more_tasks_than_connections_wait_for_their_turn(bench: Any, kind: str) -> None:
    store = bench.store(kind, max_connections=3, timeout=20.0)

    async def crowd() -> list[Any]:
        await store.create(make_record(), write_id=W1)
        return await asyncio.gather(*(store.load(make_id()) for _ in range(100)))

    assert all(record is not None for record in bench.run(crowd()))
    assert 0 < _connections(bench) <= 3


@pytest.mark.parametrize("kind", ["own blocking", "pool blocking"])
def test_more_threads_than_connections_wait_for_their_turn(bench: Any, kind: str) -> None:
    store = bench.store(kind, max_connections=3, timeout=20.0)
    drive(store.create(make_record(), write_id=W1), store.io)
    found: list[Any] = []

    def work() -> None:
        found.extend(drive(store.load(make_id()), store.io) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 240
    assert all(record is not None for record in found)
    assert 0 < _connections(bench) <= 3


@pytest.mark.parametrize("kind", OWN)
def test_waiting_for_a_free_connection_ends_in_time(bench: Any, kind: str) -> None:
    store = bench.store(kind, max_connections=1, timeout=0.3)
    bench.run(store.load(make_id()), store.io)
    bench.server.freeze()
    failures: list[BaseException] = []

    async def crowd() -> list[Any]:
        return await asyncio.gather(*(store.load(make_id()) for _ in range(3)), return_exceptions=True)

    def work() -> None:
        try:
            drive(store.load(make_id()), store.io)
        except StoreUnavailableError as error:
            failures.append(error)

    with lasts(at_most=2.0):
        if store.io is StoreIO.ASYNC:
            failures = bench.run(crowd())
        else:
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert [type(error) for error in failures] == [StoreTimeoutError] * 3


def _connections(bench: Any) -> int:
    with bench.server.client() as client:
        return sum(each["name"] == "sojourn" for each in client.client_list())


def _in_child(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status == 0


@pytest.mark.parametrize("kind", ["own blocking", "pool blocking", "handed blocking"])
def test_f21_a_forked_child_of_a_blocking_store_has_connections_of_its_own(bench: Any, kind: str) -> None:
    store = bench.store(kind)
    drive(store.create(make_record(), write_id=W1), store.io)

    def ids() -> bool:
        before = bench.server.command("INFO", "clients")
        record = drive(store.load(make_id()), store.io)
        after = bench.server.command("INFO", "clients")
        return record is not None and before["connected_clients"] + 1 == after["connected_clients"]

    for _ in range(2):
        assert _in_child(ids)
        assert drive(store.load(make_id()), store.io) is not None


@pytest.mark.parametrize("kind", ["own blocking", "pool blocking"])
def test_f21_a_forked_child_does_not_wait_for_connections_that_its_parent_uses(bench: Any, kind: str) -> None:
    store = bench.store(kind, max_connections=1, timeout=1.0)
    drive(store.create(make_record(), write_id=W1), store.io)
    transport = store._transport  # after its first call: nothing stands before it any more
    bounds = transport._bounds if kind == "own blocking" else transport._link().bounds()
    drive(bounds.__aenter__(), store.io)  # another thread is in the middle of a call
    assert _in_child(lambda: drive(store.load(make_id()), store.io) is not None)
    drive(bounds.__aexit__(None, None, None), store.io)


@pytest.mark.parametrize("kind", ["own asyncio", "pool asyncio", "handed asyncio"])
def test_f21_a_forked_child_of_an_asyncio_store_has_connections_of_its_own(bench: Any, kind: str) -> None:
    store = bench.store(kind)
    bench.run(store.create(make_record(), write_id=W1))

    def child() -> bool:
        asyncio.events._set_running_loop(None)

        async def work() -> bool:
            before = bench.server.command("INFO", "clients")
            record = await store.load(make_id())
            after = bench.server.command("INFO", "clients")
            return record is not None and before["connected_clients"] + 1 == after["connected_clients"]

        return asyncio.new_event_loop().run_until_complete(work())

    for _ in range(2):
        assert _in_child(child)
        assert bench.run(store.load(make_id())) is not None


@pytest.mark.parametrize("kind", ["own asyncio", "pool asyncio"])
def test_an_own_asyncio_store_follows_its_callers_from_loop_to_loop(bench: Any, kind: str) -> None:
    store = bench.store(kind)

    async def one_life() -> Any:
        await store.create(make_record(), write_id=W1)
        record = await store.load(make_id())
        await store.aclose()
        return record

    for _ in range(3):
        assert asyncio.run(one_life()) is not None
    assert bench.run(store.load(make_id())) is not None


@pytest.mark.parametrize("kind", ["own asyncio", "pool asyncio"])
def test_an_own_asyncio_store_serves_two_loops_in_turn(bench: Any, kind: str) -> None:
    store = bench.store(kind)
    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(store.create(make_record(), write_id=W1))
        for runner in (other, one, other, one):
            assert runner.run(store.load(make_id())) is not None
        assert _connections(bench) == 2
        other.run(store.aclose())
        assert one.run(store.load(make_id())) is not None
        one.run(store.aclose())


def test_nothing_is_connected_before_it_is_used() -> None:
    store = RedisStore.from_url("redis://127.0.0.1:1/0")
    twin = store.blocking_twin()
    with pytest.raises(StoreUnavailableError, match="127.0.0.1:1 could not do GET"):
        drive(twin.load(make_id()), twin.io)
