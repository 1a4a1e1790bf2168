"""Every change of master that sentinels make, the ones that nobody planned included: a busy machine makes some.

A change begins with the first doubt of any sentinel and ends when the last of them names the new master. The server that
takes over may lack more than that time tells: a replica that lags, or one that came back empty and was elected before it had
the data of its master.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Final, Self

import redis

from tests.servers import SentinelSetup
from verification.history.faults import Done

_DOUBT: Final = ("+sdown", "+odown", "+try-failover")
_SWITCH: Final = "+switch-master"
_WORDS_FOR_MASTER: Final = "master"
_TOGETHER: Final = 10.0
"""Seconds for which a doubt may precede its change."""
_PERIOD: Final = 0.1
_PATIENT: Final = 0.5
"""Seconds between two looks at the servers, and for which one of them is waited for."""
_APART: Final = 2.0
"""Seconds that two changes are apart at least."""


class Switches:
    """Listen to every sentinel while the context is entered."""

    def __init__(self, setup: SentinelSetup) -> None:
        self._setup = setup
        self._over = Event()
        self._heard: list[tuple[float, bool]] = []
        self._lock = Lock()
        self._whole = Whole(setup.master.port)
        self._taken_over: list[tuple[float, float]] = []
        """When a server took over, and until when it had everything."""
        self._threads = [Thread(target=self._listen, args=(each,), daemon=True) for each in setup.sentinels]
        self._threads.append(Thread(target=self._watch, daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def done(self) -> list[Done]:
        """Return the changes so far."""
        changes = joined(self._heard)
        for one in changes:
            one.whole_at = min(whole for moment, whole in self._taken_over if one.began <= moment <= one.ended)
        return changes

    def unplanned(self, planned: list[Done]) -> list[Done]:
        """Return those that began outside of every planned fault."""
        return [one for one in self.done if not any(each.began <= one.began <= each.ended for each in planned)]

    def _listen(self, sentinel: Any) -> None:
        while not self._over.is_set():
            with suppress(redis.RedisError, OSError), sentinel.client() as client:
                words = client.pubsub(ignore_subscribe_messages=True)
                words.subscribe(*_DOUBT, _SWITCH)
                while not self._over.is_set():
                    message = words.get_message(timeout=0.2)
                    if message is not None:
                        self._note(message["channel"].decode(), message["data"].decode())

    def _note(self, channel: str, text: str) -> None:
        if channel == _SWITCH:
            now = time.monotonic()
            with self._lock:
                self._taken_over.append((now, self._whole.take_over(int(text.rsplit(" ", 1)[1]))))
            self._heard.append((now, True))
        elif text.split(" ", 1)[0] == _WORDS_FOR_MASTER:
            self._heard.append((time.monotonic(), False))

    def _watch(self) -> None:
        clients = {server.port: server.client(socket_timeout=_PATIENT) for server in self._setup.data_servers}
        while not self._over.wait(_PERIOD):
            # the master first: what it had then a replica that follows has by the time that it is asked
            for port in sorted(clients, key=lambda port: port != self._whole.master):
                now = time.monotonic()
                with suppress(redis.RedisError, OSError):
                    run, state = clients[port].info("server")["run_id"], clients[port].info("replication")
                    with self._lock:
                        self._whole.note(now, port, run, state)
        for client in clients.values():
            client.close()


class Whole:
    """Until when each server is known to have had everything that the master had acknowledged; no I/O."""

    def __init__(self, master: int) -> None:
        self.master = master
        self._at: dict[int, float] = {master: -math.inf}
        self._runs: dict[int, str] = {}
        self._offset, self._asked = math.inf, -math.inf
        self._taken = -math.inf

    def note(self, now: float, port: int, run: str, state: dict[str, Any]) -> None:
        """Note what a server says of itself; one that was started again has nothing until it has followed."""
        if self._runs.setdefault(port, run) != run:
            self._runs[port] = run
            self._at.pop(port, None)
        if port == self.master:
            self._offset, self._asked = state["master_repl_offset"], now
            is_whole = port in self._at and state["role"] == "master"
        else:
            follows = state["role"] == "slave" and state["master_port"] == self.master
            is_whole = follows and state["master_link_status"] == "up" and state["slave_repl_offset"] >= self._offset
        if is_whole:
            self._at[port] = self._asked  # for which the master had that offset

    def take_over(self, port: int) -> float:
        """Return until when the server that takes over had everything; from now on it is the one to follow."""
        if port != self.master:
            self.master, self._offset = port, math.inf
            self._taken = self._at.setdefault(port, -math.inf)
        return self._taken


def joined(heard: list[tuple[float, bool]]) -> list[Done]:
    """Return the changes that doubts (False) and switches (True) at their moments tell of."""
    changes: list[Done] = []
    for moment in sorted(at for at, is_switch in heard if is_switch):
        began = min(
            (at for at, is_switch in heard if not is_switch and moment - _TOGETHER <= at <= moment), default=moment
        )
        if changes and began <= changes[-1].ended + _APART:
            changes[-1].ended = moment
        else:
            changes.append(Done("change of master", began, moment))
    return changes
