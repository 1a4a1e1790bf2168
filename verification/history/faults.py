"""A seeded schedule of faults, and who carries it out while the clients run.

Faults begin at numbers of operations and last for seconds, so that every seed meets every fault on any machine.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from random import Random
from typing import Final

from tests.faults.proxy import Fault, FaultProxy, schedule
from tests.servers import SentinelSetup, Server, ServerStartError, wait_until
from verification.history.stage import Shared

KILL, FREEZE, FAILOVER, THAWED_LATE = "kill", "freeze", "failover", "thawed late"
"""The server is killed and started again | stopped and let go on | its replica takes over | as that, and the old master
comes back from its freeze when the replica has taken over."""

LOCK, BREAK_OFF = "lock", "break off"
"""Another process holds the lock of writers of a SQLite file | it is killed in the middle of a write of every row."""

SERVER_FAULTS: Final = (KILL, FREEZE)
FILE_FAULTS: Final = (LOCK, BREAK_OFF)
PROXY_FAULTS: Final = tuple(fault for fault in Fault if fault is not Fault.NONE)
RETRIED: Final = (Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.CUT_REQUEST, Fault.DROP)
"""Noticed at once, so that the product tries again: they never hit all requests, or no second try would succeed."""
PATIENT: Final = 300.0
"""Seconds that sentinels and replicas are given on a machine that is busy with others."""
CALM: Final = 1.5
"""Seconds without a doubt of any sentinel, after which a fault is over: three times what makes them doubt."""
SETUP_FAULTS: Final = (FAILOVER, FREEZE, THAWED_LATE)


@dataclass(frozen=True, slots=True)
class Window:
    """One fault of the plan."""

    fault: Fault | str
    at: int
    """From how many operations done on."""
    seconds: float
    share: float
    """Of the requests, for faults that do not hit all of them."""

    @property
    def name(self) -> str:
        return self.fault.name.lower().replace("_", " ") if isinstance(self.fault, Fault) else self.fault


@dataclass(slots=True)
class Done:
    """A fault as it happened, in seconds of the monotonic clock."""

    name: str
    began: float
    ended: float
    whole_at: float = math.inf
    """Until when the server that took over is known to have had everything; infinite where that is not known."""


def plan(
    seed: int, operations: int, faults: tuple[Fault | str, ...], *, longest: float = 1.2, share: float | None = None
) -> list[Window]:
    """Return every fault once, in an order and for a time that the seed decides; *share* where that is not left to it."""
    draw = Random(f"faults/{seed}")
    order = list(faults)
    draw.shuffle(order)
    part = operations / (len(order) + 1)
    return [
        Window(
            fault,
            at=int(part * (turn + 0.5 + 0.3 * draw.random())),
            seconds=longest * (0.5 + 0.5 * draw.random()),
            share=share or draw.choice((0.05, 0.15, 0.3) if fault in RETRIED else (0.1, 0.3, 1.0)),
        )
        for turn, fault in enumerate(order)
    ]


class Schedule:
    """Carry out a plan, whenever the clients have come so far."""

    def __init__(self, windows: list[Window], begin: Callable[[Window], Callable[[], None]]) -> None:
        self._left = list(windows)
        self._begin = begin
        self._end: Callable[[], None] | None = None
        self._until = 0.0
        self.done: list[Done] = []

    def __call__(self, shared: Shared) -> None:
        """Do what is due: begin a fault or end it."""
        now = time.monotonic()
        if self._end is not None:
            if now >= self._until:
                self._end()
                self._end = None
                self.done[-1].ended = time.monotonic()
        elif self._left and shared.total() >= self._left[0].at:
            window = self._left.pop(0)
            self.done.append(Done(window.name, now, now))
            self._end = self._begin(window)
            self._until = time.monotonic() + window.seconds

    def finish(self) -> None:
        """End the fault that is on when the clients are through."""
        if self._end is not None:
            self._end()
            self._end = None
            self.done[-1].ended = time.monotonic()


def on_standalone(seed: int, server: Server, proxy: FaultProxy) -> Callable[[Window], Callable[[], None]]:
    """Return what begins a fault of one server behind a proxy; that returns what ends it."""

    def begin(window: Window) -> Callable[[], None]:
        match window.fault:
            case "kill":
                server.kill()
                return server.restart
            case "freeze":
                server.freeze()
                return server.thaw
            case Fault.REFUSE:
                proxy.fault = Fault.REFUSE
            case Fault() as fault:
                always = window.share == 1.0
                proxy.follow(repeat(fault) if always else schedule(seed, (fault,), share=window.share))
            case other:
                raise AssertionError(f"a single server has no fault {other}")
        return proxy_heals

    def proxy_heals() -> None:
        proxy.heal()

    return begin


_WRITER: Final = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that the file gets the pages before the end of the transaction
connection.execute("BEGIN IMMEDIATE")
if sys.argv[2] == "break off":
    connection.execute("UPDATE history_sessions SET version = version + 7, payload = zeroblob(5000)")
print("ready", flush=True)
time.sleep(600)
"""


def on_sqlite(path: Path) -> Callable[[Window], Callable[[], None]]:
    """Return what begins a fault of a SQLite file; that returns what ends it."""

    def begin(window: Window) -> Callable[[], None]:
        other = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), window.name], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        if other.stdout.readline() != "ready\n":
            raise RuntimeError(f"the process that was to write to {path.name} did not")

        def end() -> None:
            other.kill()
            other.communicate()

        return end

    return begin


def on_sentinel(setup: SentinelSetup) -> Callable[[Window], Callable[[], None]]:
    """Return what begins a fault of the master that sentinels watch; that returns what ends it.

    A fault has ended when the replica has all data again: else the next one would elect an empty server.
    """

    def begin(window: Window) -> Callable[[], None]:
        master = setup.master
        if window.fault == FAILOVER:
            master.kill()
        else:
            master.freeze()

        def end() -> None:
            if window.fault != FREEZE:
                setup.wait_for_failover(master, PATIENT)
            if window.fault == FAILOVER:
                master.restart()  # the sentinels make it a replica
            else:
                master.thaw()
            _wait_for_rest(setup)

        return end

    return begin


def _wait_for_rest(setup: SentinelSetup) -> None:
    """Wait until all is whole and stays so: sentinels that a short freeze alarmed may depose the master afterwards."""
    since: float | None = None

    def is_at_rest() -> bool:
        nonlocal since
        if not _is_whole(setup):
            since = None
            return False
        since = since or time.monotonic()
        return time.monotonic() - since >= CALM

    wait_until(is_at_rest, "the sentinels and the replica do not come to rest", PATIENT)


def _is_whole(setup: SentinelSetup) -> bool:
    """Tell whether the sentinels agree, none of them has a doubt, and the replica follows."""
    if len(set(setup.master_ports())) != 1:
        return False
    for sentinel in setup.sentinels:
        with sentinel.client() as client:
            if client.sentinel_master(setup.name)["flags"] != "master":
                return False
    try:
        setup.wait_for_replicas(1.0)
    except ServerStartError:
        return False
    return True
