"""Whatever listens on the port of Redis and is none, such as a web server: an outage, and never a session (SECURITY R33)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn import LoadOutcome
from sojourn.crypto import new_token
from sojourn.errors import SessionUnavailableError
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from tests.core.models import make_manager

ANSWERS: dict[str, bytes] = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "nothing": b"",
    "zeros": b"\0" * 4096,
    "a string without end": b"$536870912\r\n" + b"x" * 4096,
    "an array without end": b"*1000\r\n" * 4,
    "a negative length": b"$-9\r\n",
    "a number for everything": b":1\r\n" * 64,
    "nulls for everything": b"$-1\r\n" * 64,
    "lists for everything": b"*2\r\n:1\r\n$1\r\nx\r\n" * 64,
    "maps for everything": b"%1\r\n+server\r\n+redis\r\n" * 64,
    "errors for everything": b"-ERR \xff\xfe\r\n" * 64,
    "no permission for anything": b"-NOPERM no\r\n" * 64,
    "the wrong type for everything": b"-WRONGTYPE no\r\n" * 64,
}


@contextmanager
def peer(answer: bytes) -> Iterator[int]:
    """Listen on a port and answer every connection at once with the same bytes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.settimeout(0.2)
                    connection.recv(65_536)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@contextmanager
def stores(url: str) -> Iterator[list[Any]]:
    """Yield a store over each kind of client; none of them waits long."""
    made = [kind.from_url(url, timeout=0.1, connect_timeout=0.1) for kind in (RedisStore, ClusteredRedisStore)]
    clients = [redis.Redis.from_url(url, socket_timeout=0.1, socket_connect_timeout=0.1)]
    yield [*(one.blocking_twin() for one in made), *(RedisStore(client) for client in clients)]
    for one in made:
        asyncio.run(one.aclose())
    for client in clients:
        client.close()


def use(store: Any) -> None:
    """Do what requests do: somebody has a cookie, somebody begins, somebody ends it all."""
    manager = make_manager(store, settings={"retry_attempts": 0, "breaker": False}).blocking
    session = manager.open(new_token())
    assert session.outcome in {LoadOutcome.UNAVAILABLE, LoadOutcome.UNKNOWN, LoadOutcome.CORRUPT}
    assert session.principal is None
    fresh = manager.open(None)
    fresh.data.note = "mine"
    fresh.login("42")
    for work in (
        lambda: manager.commit(fresh),
        lambda: manager.list("42"),
        lambda: manager.revoke("x" * 43),
        manager.count,
        manager.all_session_ids,
        manager.clear,
        manager.reseal,
        lambda: list(manager.each_session()),
    ):
        with suppress(SessionUnavailableError):
            work()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_r33_a_peer_that_is_no_redis_is_an_outage(answer: bytes) -> None:
    with peer(answer) as port, stores(f"redis://127.0.0.1:{port}/0") as made:
        for store in made:
            use(store)


@settings(max_examples=10)
@given(
    st.lists(
        st.sampled_from([b"+OK\r\n", b":2\r\n", b"$-1\r\n", b"*0\r\n", b"$3\r\nabc\r\n", b"-x\r\n", b"_\r\n"]),
        max_size=40,
    )
)
def test_r33_a_peer_that_answers_at_random_is_an_outage(replies: list[bytes]) -> None:
    with peer(b"".join(replies)) as port, stores(f"redis://127.0.0.1:{port}/0") as made:
        for store in made:
            use(store)
