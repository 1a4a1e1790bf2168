"""The held connection over real sockets, plain and TLS: full buffers, slow peers, signals; and the transport around it."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.stores import CURRENT_DEADLINE, Deadline, StoreIO
from sojourn_store_redis import Address
from sojourn_store_redis.deadlines import BlockingBounds, ThreadDeadline
from sojourn_store_redis.transport.blocking import BlockingConnection, BlockingTransport
from sojourn_testing.bench import drive
from tests.beats import lasts
from tests.faults.certificates import write_certificate
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import LOOPBACK, RedisServer

GENEROUS = 10.0
"""Seconds that no call takes which ends at its deadline, however busy the machine."""
OK = b"+OK\r\n"


class Peer:
    """As much of a connection of redis-py as a held one needs."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def disconnect(self) -> None:
        self._sock.close()


class Pair:
    """A held connection, and the socket of its peer, which *serve* uses in a thread."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.held = BlockingConnection(Peer(near), 0)
        self._far = far
        self._threads: list[threading.Thread] = []
        self.stopped = threading.Event()

    def serve(self, work: Callable[[socket.socket], None]) -> None:
        """Let the peer do *work* when it has done what it was told before: two threads garble what goes over TLS."""
        before = self._threads[-1:]

        def run() -> None:
            for thread in before:
                thread.join()
            with suppress(OSError):
                work(self._far)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def ask(self, packed: bytes, seconds: float) -> Any:
        return self.held.ask(packed, None, time.monotonic() + seconds)

    def hurry(self) -> None:
        """Leave on the socket what a call with very little time does."""
        self.held._timeout = 0.05
        self.near.settimeout(0.05)

    def close(self) -> None:
        self.stopped.set()
        self.held.close()
        for thread in self._threads:
            thread.join()
        self._far.close()


@pytest.fixture(params=["unix", "tcp", "tls"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    if request.param == "unix":
        near, far = socket.socketpair()
    else:
        near, far = _over_tcp()
    if request.param == "tls":
        near, far = _over_tls(near, far, tmp_path)
    far.settimeout(GENEROUS)
    pair = Pair(near, far)
    yield pair
    pair.close()


def _over_tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def _over_tls(near: socket.socket, far: socket.socket, folder: Path) -> tuple[socket.socket, socket.socket]:
    certificate, server = write_certificate(folder)
    client = ssl.create_default_context(cafile=str(certificate))
    wrapped: list[socket.socket] = []
    thread = threading.Thread(target=lambda: wrapped.append(server.wrap_socket(far, server_side=True)))
    thread.start()
    near = client.wrap_socket(near, server_hostname=LOOPBACK)
    thread.join()
    return near, wrapped[0]


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], object], first: float, again: float = 0.0) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, first, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _read_slowly(
    got: bytearray, wanted: int, stopped: threading.Event, pause: float
) -> Callable[[socket.socket], None]:
    def work(far: socket.socket) -> None:
        while len(got) < wanted and not stopped.wait(pause):
            got.extend(far.recv(65_536))
        far.sendall(OK)

    return work


def test_a_command_that_does_not_fit_is_sent_in_pieces_in_order(pair: Pair) -> None:
    pair.hurry()
    command = b"".join(b"%08d" % n for n in range(1_000_000))
    got = bytearray()

    def work(far: socket.socket) -> None:
        pair.stopped.wait(0.4)  # longer than the time-out that the hurry left
        _read_slowly(got, len(command), pair.stopped, 0.0)(far)

    pair.serve(work)
    assert pair.ask(command, 60.0) == b"OK"
    assert got == command


@pytest.mark.parametrize("pause", [None, 0.1])
def test_a_peer_that_takes_nothing_or_little_does_not_stretch_the_deadline(pair: Pair, pause: float | None) -> None:
    pair.hurry()
    got = bytearray()
    if pause is not None:
        pair.serve(_read_slowly(got, 1 << 40, pair.stopped, pause))
    with lasts(at_least=0.5, at_most=GENEROUS), pytest.raises(TimeoutError):
        pair.ask(bytes(64_000_000), 0.5)
    assert pair.near.fileno() == -1, "half a command was sent"


def test_a_reply_in_many_small_pieces_is_put_together_or_ends_at_the_deadline(pair: Pair) -> None:
    pair.hurry()

    def dribble(reply: bytes) -> Callable[[socket.socket], None]:
        def work(far: socket.socket) -> None:
            far.recv(100)
            for n in range(len(reply)):
                far.sendall(reply[n : n + 1])
                pair.stopped.wait(0.02)

        return work

    pair.serve(dribble(b"$20\r\n01234567890123456789\r\n"))
    assert pair.ask(b"GET\r\n", 60.0) == b"01234567890123456789"
    pair.serve(dribble(b"$9000\r\n" + b"x" * 9000 + b"\r\n"))
    with lasts(at_least=0.5, at_most=GENEROUS), pytest.raises(TimeoutError):
        pair.ask(b"GET\r\n", 0.5)
    assert pair.near.fileno() == -1


def test_a_large_reply_is_put_together(pair: Pair) -> None:
    value = b"".join(b"%08d" % n for n in range(500_000))

    def work(far: socket.socket) -> None:
        far.recv(100)
        far.sendall(b"$%d\r\n%s\r\n" % (len(value), value))

    pair.serve(work)
    assert pair.ask(b"GET\r\n", 60.0) == value


def test_signals_neither_break_a_call_nor_stretch_its_deadline(pair: Pair) -> None:
    rung: list[int] = []

    def work(far: socket.socket) -> None:
        far.recv(100)
        pair.stopped.wait(0.3)
        far.sendall(OK)

    pair.serve(work)
    with _signals(lambda *_: rung.append(1), 0.005, 0.005):
        assert pair.ask(b"GET\r\n", 60.0) == b"OK"
        assert len(rung) > 5
        with lasts(at_least=0.5, at_most=GENEROUS), pytest.raises(TimeoutError):
            pair.ask(b"GET\r\n", 0.5)


class _BrokenOff(BaseException):
    """As what a worker's time limit raises in the midst of anything."""


def _break_off(*_: object) -> None:
    raise _BrokenOff


def test_f17_a_signal_that_raises_closes_the_connection(pair: Pair) -> None:
    with pytest.raises(_BrokenOff), _signals(_break_off, 0.1):
        pair.ask(b"GET\r\n", 60.0)
    assert pair.near.fileno() == -1


@pytest.fixture(params=["poll", "select"])
def look(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a system tells whether a connection that was quiet is as good as new; Windows has no poll, nor has eventlet."""
    if request.param == "select":
        monkeypatch.delattr(select, "poll")
    return str(request.param)


def test_a_connection_that_was_quiet_is_used_again_unless_something_happened_on_it(pair: Pair, look: str) -> None:
    del look
    pair.serve(lambda far: far.sendall(OK if far.recv(100) else b""))
    assert pair.ask(b"PING", GENEROUS) == b"OK"
    pair.held.used -= 1.0
    assert pair.held.is_usable()
    pair.serve(lambda far: far.sendall(OK))
    assert _waits(pair.near), "the reply that nobody asked for came"
    assert not pair.held.is_usable()


def test_a_connection_whose_server_left_is_not_used_again(pair: Pair, look: str) -> None:
    del look
    pair.held.used -= 1.0
    pair.serve(lambda far: far.close())
    assert _waits(pair.near), "the end came"
    assert not pair.held.is_usable()


def test_a_connection_beyond_what_select_can_look_at_is_replaced_and_poll_sees_it(look: str) -> None:
    near, far = socket.socketpair()
    with near, far, _many_descriptors(), socket.socket(fileno=fcntl.fcntl(near.fileno(), fcntl.F_DUPFD, 1024)) as high:
        held = BlockingConnection(Peer(high), 0)
        assert held.is_usable(), "it was used just now"
        held.used -= 1.0
        assert held.is_usable() is (look == "poll")


def test_a_transport_leaves_connections_that_the_server_closed(clean_redis: RedisServer, look: str) -> None:
    del look
    with _transport(clean_redis.url) as transport:
        first = _ask(transport, "CLIENT", "ID")
        for held in transport._idle:
            held.used -= 1.0
        assert _ask(transport, "CLIENT", "ID") == first
        _ask(transport, "CLIENT", "KILL", "ID", first, "SKIPME", "no")  # it ends after this reply
        for held in transport._idle:
            assert _waits(held._socket), "the end came"
            held.used -= 1.0
        assert _ask(transport, "CLIENT", "ID") != first


EVENTLET = """
import eventlet
eventlet.monkey_patch()
import select, sys
from dataclasses import dataclass
from sojourn import SessionManager

@dataclass
class Visit:
    count: int = 0

assert not hasattr(select, "poll"), "eventlet leaves poll alone now: look for another witness"
sessions = SessionManager.from_env(Visit).blocking

def visit(number):
    session, token = sessions.open(None), None
    for _ in range(3):
        session.data.count += 1
        token = sessions.commit(session).token or token
        eventlet.sleep(0.1)  # longer than a connection may be quiet without being looked at
        session = sessions.open(token)
    return session.data.count

print(list(eventlet.GreenPool().imap(visit, range(5))))
"""


def test_an_application_patched_by_eventlet_keeps_its_sessions_in_redis(clean_redis: RedisServer) -> None:
    settings = {"SOJOURN_PRESET": "testing", "SOJOURN_STORE": "redis", "SOJOURN_REDIS_URL": clean_redis.url}
    done = subprocess.run(
        [sys.executable, "-c", EVENTLET], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("[3, 3, 3, 3, 3]\n", 0), done.stderr


def _waits(connected: socket.socket) -> bool:
    return bool(select.select([connected], [], [], GENEROUS)[0])


@contextmanager
def _many_descriptors() -> Iterator[None]:
    """Allow descriptors beyond 1024, as a server with many connections does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def proxy(clean_redis: RedisServer) -> Iterator[FaultProxy]:
    clean_redis.command("SET", "a", "of a")
    clean_redis.command("SET", "b", "of b")
    with FaultProxy(clean_redis.port) as proxy:
        yield proxy


@contextmanager
def _transport(url: str, **options: Any) -> Iterator[BlockingTransport]:
    transport = Address(url=url, **{"timeout": GENEROUS, "connect_timeout": GENEROUS, **options}).transport(
        StoreIO.BLOCKING
    )
    assert isinstance(transport, BlockingTransport)
    yield transport
    drive(transport.aclose(), transport.io)


def _ask(transport: BlockingTransport, *command: Any) -> Any:
    return drive(transport.execute(*command), transport.io)


def test_f10_little_patience_of_one_request_is_not_that_of_the_next(proxy: FaultProxy) -> None:
    with _transport(proxy.url) as transport:
        _ask(transport, "PING")
        token = CURRENT_DEADLINE.set(Deadline(1.0))
        assert _ask(transport, "GET", "a") == b"of a"
        CURRENT_DEADLINE.reset(token)
        proxy.pause = 1.2
        proxy.fault = Fault.DELAY
        assert _ask(transport, "GET", "b") == b"of b"
        assert proxy.connections == 1


def test_f17_calls_that_are_broken_off_leave_neither_replies_nor_fewer_connections(proxy: FaultProxy) -> None:
    with _transport(proxy.url, max_connections=2) as transport:
        proxy.pause = 3.0
        for _ in range(5):
            assert _ask(transport, "GET", "a") == b"of a"
            proxy.fault_next(Fault.DELAY, matching=b"GET")
            with pytest.raises(_BrokenOff), _signals(_break_off, 0.05):
                _ask(transport, "GET", "b")
        assert _ask(transport, "GET", "a") == b"of a"


def test_the_connection_that_was_used_last_is_used_first(clean_redis: RedisServer) -> None:
    with _transport(clean_redis.url) as transport:
        threads = [threading.Thread(target=_ask, args=(transport, "BLPOP", "nothing", "0.2")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({_ask(transport, "CLIENT", "ID") for _ in range(20)}) == 1


def test_a_call_that_cannot_connect_leaves_its_deadline_to_no_other(proxy: FaultProxy) -> None:
    with _transport(proxy.url, timeout=0.5, connect_timeout=0.5) as transport:
        proxy.fault = Fault.BLACKHOLE
        with pytest.raises(StoreTimeoutError):
            _ask(transport, "GET", "a")
        proxy.fault = Fault.REFUSE
        with pytest.raises(StoreUnavailableError):
            _ask(transport, "GET", "a")
        proxy.heal()
        assert _ask(transport, "GET", "a") == b"of a"


def test_the_deadline_is_that_of_the_opening_alone_and_ends_with_it() -> None:
    deadline = ThreadDeadline()
    bounds = BlockingBounds(seconds=1.0, slots=1, deadline=deadline)
    until = bounds.enter()
    assert deadline.remaining() is None
    with pytest.raises(_BrokenOff), bounds.opening(until):
        left = deadline.remaining()
        assert left is not None
        assert 0.0 < left <= 1.0
        raise _BrokenOff
    assert deadline.remaining() is None
    token = CURRENT_DEADLINE.set(Deadline(0.0))
    with pytest.raises(TimeoutError, match="no connection became free"):
        bounds.enter()
    CURRENT_DEADLINE.reset(token)
    bounds.leave()
    assert bounds.enter() > until
