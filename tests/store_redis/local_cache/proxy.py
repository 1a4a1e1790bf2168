"""A TCP proxy between a store and its server: links can be delayed, stopped and cut without either side's doing."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from tests.faults.proxy import stop


class Proxy:
    """Forward connections to *port* from a port of its own, in a thread."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.is_blackhole = False
        """Whether everything is swallowed; connections stay open."""
        self.delay = 0.0
        """Seconds by which everything from the server comes late."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _work(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await stop(server)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        self._cut()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            ends.add(back)
            self._writers.add(back)
            late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
            lost = asyncio.Event()
            await asyncio.gather(
                self._pass(reader, back, lost), self._take(there, late, lost), self._give(late, writer, lost)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                end.transport.abort()
                self._writers.discard(end)

    def _swallows(self, lost: asyncio.Event) -> bool:
        """Tell whether bytes of a connection are lost: all of them are, once one was, for TCP leaves no gaps."""
        if self.is_blackhole:
            lost.set()
        return lost.is_set()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while data := await source.read(65_536):
            if not self._swallows(lost):
                target.write(data)
                await target.drain()
        raise ConnectionResetError

    async def _take(
        self, source: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes]], lost: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(65_536):
            if not self._swallows(lost):
                late.put_nowait((loop.time() + self.delay, data))
        raise ConnectionResetError

    async def _give(
        self, late: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        """Hand on what came from the server when it is due, always in order: bytes never overtake bytes."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not self._swallows(lost):
                target.write(data)
                await target.drain()
