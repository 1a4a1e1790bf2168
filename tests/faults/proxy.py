"""A TCP proxy that fails on request, in front of any server.

It runs in a thread with an event loop of its own, so that blocking and asynchronous tests use it alike. A fault is
switched for good (``fault``), for the next requests (``fault_next``) or by a seeded schedule (``follow``).
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from tests.servers import LOOPBACK, free_port, release_port

CHUNK = 65_536
SLICE = 8_192
"""The most bytes that a limited line carries at once, so that connections share it."""
CONTROL_SECONDS = 5.0


class Fault(Enum):
    """What happens to a request, which is a chunk of bytes that the client sent at once."""

    NONE = "passed on and answered"
    DELAY = "passed on after a pause"
    DROP = "the connection is closed, the server never sees the request"
    LOSE_REPLY = "passed on and applied; the connection is closed when the reply comes"
    MUTE = "passed on and applied; no reply on this connection any more, which stays open"
    CUT_REQUEST = "half of the request is passed on, then the connection is closed"
    CUT_REPLY = "half of the reply is passed back, then the connection is closed"
    DRIBBLE = "the reply is passed back byte by byte, with a pause before each"
    BLACKHOLE = "accepted and swallowed in both directions; the connection stays open"
    REFUSE = "nobody listens any more, and every connection is closed"


_LASTING = frozenset({Fault.LOSE_REPLY, Fault.MUTE, Fault.CUT_REPLY, Fault.BLACKHOLE})
"""The fate of a connection that no later request changes."""


@dataclass(slots=True)
class _Next:
    fault: Fault
    left: int
    matching: bytes


def schedule(seed: int, faults: Iterable[Fault] = tuple(Fault), *, share: float = 0.3) -> Iterator[Fault]:
    """Yield for each request a fault or, mostly, none; the same *seed* gives the same faults."""
    draw = random.Random(seed)
    usable = [fault for fault in faults if fault not in {Fault.NONE, Fault.REFUSE}]
    while True:
        yield draw.choice(usable) if draw.random() < share else Fault.NONE


class FaultProxy:
    """Stand between clients and the server on *target_port*; entering the context opens the port."""

    def __init__(
        self,
        target_port: int,
        *,
        target_host: str = LOOPBACK,
        pause: float = 0.05,
        tls: ssl.SSLContext | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self.target = (target_host, target_port)
        self.bandwidth = bandwidth
        """The bytes a second that replies on all connections together may have; None: any number."""
        self.replied: Counter[int] = Counter()
        """How many bytes of replies each connection has carried, by its number."""
        self.pause = pause
        """Seconds before a delayed request and before each dribbled byte."""
        self.port = 0
        self.connections = 0
        """How many connections were accepted."""
        self.exchanges: Counter[int] = Counter()
        """How often each connection has sent something, by its number."""
        self.done: Counter[Fault] = Counter()
        """How many requests met each fault."""
        self._tls = tls
        self._fault = Fault.NONE
        self._next: list[_Next] = []
        self._schedule: Iterator[Fault] | None = None
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._free_at = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = free_port()
        self._wait(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_SECONDS)
        self._loop.close()
        release_port(self.port)

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def fault(self) -> Fault:
        """The fault that every request meets from now on."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        before, self._fault = self._fault, fault
        if fault is Fault.REFUSE:
            self._wait(self._close())
        elif before is Fault.REFUSE:
            self._wait(self._listen())

    def fault_next(self, fault: Fault, *, times: int = 1, matching: bytes = b"") -> None:
        """Give the next *times* requests that contain *matching* this fault; several calls queue up."""
        with self._lock:
            self._next.append(_Next(fault, times, matching))

    def follow(self, faults: Iterator[Fault] | None) -> None:
        """Take the fault of each request from *faults* until they end; None ends it."""
        self._schedule = faults

    def heal(self) -> None:
        """Pass everything on again; connections that were cut or muted stay so."""
        self._schedule = None
        with self._lock:
            self._next.clear()
        self.fault = Fault.NONE

    def disconnect(self) -> None:
        """Close every connection, and go on listening."""
        self._wait(self._cut_all())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(CONTROL_SECONDS)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port, ssl=self._tls)

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await stop(server)
        await self._cut_all()

    async def _end(self) -> None:
        await self._close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # connections that are just being accepted
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._cut_all()
        for _ in range(5):  # what was closed last needs some turns: the task's end, the close, the lost connection
            await asyncio.sleep(0)

    async def _cut_all(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the callbacks that close

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task that closes it, even if it is cut before it begins."""
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(task)

        def close(_: object) -> None:
            self._open.discard(task)
            _cut(writer)

        task.add_done_callback(close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, server = await asyncio.open_connection(*self.target)
        except OSError:
            return
        link = _Link(self, self.connections)
        ways = [
            asyncio.ensure_future(link.pass_requests(reader, server)),
            asyncio.ensure_future(link.pass_replies(upstream, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _cut(server)  # before anything that waits: a cut may come while this connection ends by itself
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def carry(self, number: int, reply: bytes, client: asyncio.StreamWriter) -> None:
        """Pass a reply back, as fast as the line allows."""
        for start in range(0, len(reply), SLICE):
            part = reply[start : start + SLICE]
            if self.bandwidth:
                self._free_at = max(self._free_at, self._loop.time()) + len(part) / self.bandwidth
                await asyncio.sleep(self._free_at - self._loop.time())
            self.replied[number] += len(part)
            client.write(part)
            await client.drain()

    def _decide(self, request: bytes) -> Fault:
        fault = self._fault
        with self._lock:
            for each in self._next:
                if each.matching in request:
                    fault = each.fault
                    each.left -= 1
                    if each.left == 0:
                        self._next.remove(each)
                    break
            else:
                if fault is Fault.NONE and self._schedule is not None:
                    fault = next(self._schedule, Fault.NONE)
        self.done[fault] += 1
        return fault


class _Link:
    """One connection of a client, with the fate of its replies."""

    def __init__(self, proxy: FaultProxy, number: int) -> None:
        self._proxy = proxy
        self._number = number
        self._fate = Fault.NONE

    async def pass_requests(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while request := await client.read(CHUNK):
                self._proxy.exchanges[self._number] += 1
                fault = self._proxy._decide(request)
                if self._fate not in _LASTING:
                    self._fate = fault
                match fault:
                    case Fault.DROP:
                        return
                    case Fault.BLACKHOLE:
                        continue
                    case Fault.DELAY:
                        await asyncio.sleep(self._proxy.pause)
                    case Fault.CUT_REQUEST:
                        server.write(request[: len(request) // 2])
                        await server.drain()
                        return
                    case _:
                        pass
                server.write(request)
                await server.drain()

    async def pass_replies(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while reply := await server.read(CHUNK):
                match self._fate:
                    case Fault.LOSE_REPLY:
                        return
                    case Fault.MUTE | Fault.BLACKHOLE:
                        continue
                    case Fault.CUT_REPLY:
                        client.write(reply[: len(reply) // 2])
                        await client.drain()
                        return
                    case Fault.DRIBBLE:
                        for byte in reply:
                            await asyncio.sleep(self._proxy.pause)
                            client.write(bytes((byte,)))
                            await client.drain()
                    case _ if self._proxy.fault is Fault.BLACKHOLE:
                        continue
                    case _:
                        await self._proxy.carry(self._number, reply, client)


async def stop(server: asyncio.Server) -> None:
    """Close a server once it has taken what it accepted just now.

    That attaches itself in the next turn, and a closed server does not let it: the socket would stay open until somebody
    collects garbage.
    """
    for listening in server.sockets:
        server.get_loop().remove_reader(listening)
    await asyncio.sleep(0)
    server.close()


def _cut(writer: asyncio.StreamWriter) -> None:
    """Close after what was written has left."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
    writer.close()
