"""Writers that keep on writing sessions while nodes of a cluster go, and remember what was acknowledged to them.

An acknowledgement is noted after it came; whether it holds is judged when everything is over.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Record, Replaced, StoreIO
from sojourn.testing import make_id, make_write_id
from sojourn_testing.bench import drive

FAR = 4e9


@dataclass
class Acknowledged:
    """The last write of one session that was acknowledged."""

    version: int
    sent: float
    at: float


@dataclass
class Outcome:
    """What became of everything that was acknowledged."""

    acknowledged: int
    lost: list[Acknowledged] = field(default_factory=list)

    def lost_after(self, moment: float) -> list[Acknowledged]:
        """Return the lost ones that were sent after *moment*."""
        return [each for each in self.lost if each.sent > moment]


class Load:
    """Some writers over one store, tasks or threads, each with sessions of its own."""

    def __init__(self, store: Any, *, name: str, writers: int = 6, sessions: int = 20) -> None:
        self.store = store
        self.acknowledged: dict[str, Acknowledged] = {}
        self.count = 0
        self.refused = 0
        self.gone: list[Acknowledged] = []
        self.last: dict[str, float] = {}
        """When each session was last written with success."""
        self.is_over = False
        self._name = name
        self._writers = writers
        self._sessions = sessions
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def ids(self, writer: int) -> list[str]:
        return [make_id(f"{self._name} {writer} {number}") for number in range(self._sessions)]

    @property
    def all_ids(self) -> list[str]:
        return [id for writer in range(self._writers) for id in self.ids(writer)]

    def start(self) -> None:
        """Begin to write, in threads of which each runs its writers as the store wants it."""
        jobs: list[Callable[[], object]] = [lambda: asyncio.run(self._all())]
        if self.store.io is StoreIO.BLOCKING:
            jobs = [partial(self._block, writer) for writer in range(self._writers)]
        for job in jobs:
            self._threads.append(threading.Thread(target=self._guarded, args=(job,), daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """End the writers."""
        self.is_over = True
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer hangs"
        assert not self._failures, self._failures

    def written_since(self, moment: float, ids: list[str]) -> bool:
        """Tell whether each of *ids* was written with success after *moment*."""
        return all(self.last.get(id, 0.0) > moment for id in ids)

    def judge(self, load: Callable[[str], Record | None]) -> Outcome:
        """Compare what is stored with what was acknowledged."""
        outcome = Outcome(self.count, list(self.gone))
        for id, known in self.acknowledged.items():
            record = load(id)
            if record is None or record.version < known.version:
                outcome.lost.append(known)
        return outcome

    def _guarded(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            self._failures.append(error)

    def _block(self, writer: int) -> None:
        drive(self._write(writer), StoreIO.BLOCKING)

    async def _all(self) -> None:
        await asyncio.gather(*(self._write(writer) for writer in range(self._writers)))
        await self.store.aclose()

    async def _write(self, writer: int) -> None:
        turn = 0
        while not self.is_over:
            turn += 1
            for id in self.ids(writer):
                await self._write_one(id, make_write_id(f"{id} {turn}"))
                await self.store.sleep(0.001)

    async def _write_one(self, id: str, write_id: bytes) -> None:
        """Write the next version of a session; a failover may have taken some versions back."""
        known = self.acknowledged.get(id)
        version = 1 if known is None else known.version + 1
        record = Record(id, version, b"%d" % version, FAR, FAR)
        sent = time.monotonic()
        answer: Any = None
        if known is None:
            answer = await self._tried(id, lambda: self.store.create(record, write_id=write_id))
        else:
            answer = await self._tried(id, lambda: self.store.replace(record, expected=version - 1, write_id=write_id))
        if answer is None:
            return
        if answer in {Replaced.GONE, Replaced.CONFLICT} and known is not None:
            stored = await self._tried(id, lambda: self.store.load(id))
            if stored is not None and stored.version < known.version:
                self.gone.append(known)
                self.acknowledged[id] = Acknowledged(stored.version, 0.0, 0.0)
            elif stored is None and answer is Replaced.GONE:
                self.gone.append(known)
                del self.acknowledged[id]
            return
        now = time.monotonic()
        self.acknowledged[id] = Acknowledged(version, sent, now)
        self.last[id] = now
        self.count += 1

    async def _tried(self, _id: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return what a call answers, however often it must be made; None when the load is over first."""
        while not self.is_over:
            try:
                return await call()
            except StoreUnavailableError:
                self.refused += 1
                await self.store.sleep(0.02)
        return None
