"""The fault proxy, in front of a server that counts what reaches it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from tests.beats import lasts
from tests.faults.proxy import Fault, FaultProxy, schedule

SILENCE = 0.3


class Echo:
    """Answer every chunk by itself, and remember all that came."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accepted: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._accepted.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    self.received.append(data)
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._accepted:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(30)

    def wait_for(self, data: bytes) -> bool:
        until = time.monotonic() + 30.0
        while time.monotonic() < until:
            if b"".join(self.received) == data:
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port, pause=0.01) as proxy:
        yield proxy


def _client(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=2.0)


def _all(client: socket.socket) -> bytes:
    """Receive until the other end closes."""
    received = b""
    try:
        while data := client.recv(100):
            received += data
    except ConnectionResetError:
        pass
    return received


def _ask(client: socket.socket, request: bytes) -> bytes:
    client.sendall(request)
    received = b""
    while len(received) < len(request):
        data = client.recv(100)
        if not data:
            break
        received += data
    return received


def _is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE)
    try:
        return client.recv(100) is None
    except TimeoutError:
        return True


def test_without_a_fault_everything_passes(proxy: FaultProxy) -> None:
    with _client(proxy) as one, _client(proxy) as other:
        assert _ask(one, b"first") == b"first"
        assert _ask(other, b"x" * 500_000) == b"x" * 500_000
        assert _ask(one, b"again") == b"again"
    assert proxy.connections == 2


def test_a_delayed_request_arrives_later(proxy: FaultProxy) -> None:
    proxy.pause = 0.2
    proxy.fault = Fault.DELAY
    with _client(proxy) as client, lasts(at_least=0.2, at_most=60.0):
        assert _ask(client, b"slow") == b"slow"


def test_a_dropped_request_never_reaches_the_server(proxy: FaultProxy, echo: Echo) -> None:
    proxy.fault = Fault.DROP
    with _client(proxy) as client:
        client.sendall(b"request")
        assert _all(client) == b""
    assert echo.received == []


def test_a_lost_reply_belongs_to_a_request_that_the_server_applied(proxy: FaultProxy, echo: Echo) -> None:
    proxy.fault = Fault.LOSE_REPLY
    with _client(proxy) as client:
        client.sendall(b"request")
        assert _all(client) == b""
    assert echo.wait_for(b"request")


def test_a_muted_connection_stays_open_and_silent(proxy: FaultProxy, echo: Echo) -> None:
    proxy.fault_next(Fault.MUTE)
    with _client(proxy) as client:
        client.sendall(b"one")
        assert echo.wait_for(b"one")
        client.sendall(b"two")
        assert echo.wait_for(b"onetwo")
        assert _is_silent(client)


def test_a_cut_request_reaches_the_server_by_half(proxy: FaultProxy, echo: Echo) -> None:
    proxy.fault = Fault.CUT_REQUEST
    with _client(proxy) as client:
        client.sendall(b"0123456789")
        _all(client)
    assert echo.wait_for(b"01234")


def test_a_cut_reply_reaches_the_client_by_half(proxy: FaultProxy, echo: Echo) -> None:
    proxy.fault = Fault.CUT_REPLY
    with _client(proxy) as client:
        client.sendall(b"0123456789")
        assert _all(client) == b"01234"
    assert echo.wait_for(b"0123456789")


def test_a_dribbled_reply_comes_byte_by_byte(proxy: FaultProxy) -> None:
    proxy.fault = Fault.DRIBBLE
    with _client(proxy) as client:
        client.sendall(b"0123456789")
        with lasts(at_least=0.02, at_most=60.0):
            assert [client.recv(100) for _ in range(3)] == [b"0", b"1", b"2"]


def test_a_black_hole_accepts_and_swallows(proxy: FaultProxy, echo: Echo) -> None:
    proxy.fault = Fault.BLACKHOLE
    with _client(proxy) as client:
        client.sendall(b"request")
        assert _is_silent(client)
    assert echo.received == []


def test_a_refused_connection_is_refused_and_the_port_comes_back(proxy: FaultProxy) -> None:
    with _client(proxy) as client:
        assert _ask(client, b"before") == b"before"
        proxy.fault = Fault.REFUSE
        assert _all(client) == b""
        with pytest.raises(ConnectionRefusedError):
            _client(proxy)
        proxy.heal()
    with _client(proxy) as client:
        assert _ask(client, b"after") == b"after"


def test_only_the_next_matching_requests_fail(proxy: FaultProxy) -> None:
    proxy.fault_next(Fault.DROP, times=2, matching=b"SET")
    with _client(proxy) as client:
        assert _ask(client, b"GET") == b"GET"
    for _ in range(2):
        with _client(proxy) as client:
            assert _ask(client, b"SET") == b""
    with _client(proxy) as client:
        assert _ask(client, b"SET") == b"SET"
    assert proxy.done[Fault.DROP] == 2


def test_disconnecting_closes_what_is_open_and_goes_on_listening(proxy: FaultProxy) -> None:
    with _client(proxy) as client:
        assert _ask(client, b"before") == b"before"
        proxy.disconnect()
        assert _all(client) == b""
    with _client(proxy) as client:
        assert _ask(client, b"after") == b"after"


def test_a_server_that_is_gone_closes_the_connection(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with FaultProxy(port) as proxy, _client(proxy) as client:
        assert _all(client) == b""


def test_a_schedule_repeats_itself_by_its_seed(proxy: FaultProxy) -> None:
    first, again, other = (list(itertools.islice(schedule(seed), 200)) for seed in (1, 1, 2))
    assert first == again != other
    assert Fault.REFUSE not in first
    assert 20 < sum(fault is not Fault.NONE for fault in first) < 100
    proxy.follow(iter([Fault.NONE, Fault.DROP]))
    with _client(proxy) as client:
        assert _ask(client, b"passes") == b"passes"
        assert _ask(client, b"drops") == b""
    with _client(proxy) as client:
        assert _ask(client, b"the schedule has ended") == b"the schedule has ended"


def test_asynchronous_clients_use_it_too(proxy: FaultProxy) -> None:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        answer = await reader.readexactly(5)
        writer.close()
        await writer.wait_closed()
        return answer

    assert asyncio.run(ask()) == b"hello"


def test_a_connection_that_was_accepted_when_the_proxy_refuses_is_closed_by_it(proxy: FaultProxy) -> None:
    """Others would find it open when garbage is collected, in whichever test that is."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        goes_on = threading.Event()
        proxy._loop.call_soon_threadsafe(goes_on.wait, 30.0)
        time.sleep(SILENCE)  # the loop stands still now
        with socket.create_connection(("127.0.0.1", proxy.port)):
            closing = asyncio.run_coroutine_threadsafe(proxy._close(), proxy._loop)
            goes_on.set()
            closing.result(30.0)
        gc.collect()
    assert [str(one.message) for one in told] == []
