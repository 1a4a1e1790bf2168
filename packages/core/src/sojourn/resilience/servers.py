"""A circuit breaker for each server of a store, so that one that fails is left alone and the others are not.

The one rule: a call is judged by the server that it went to, or that the error names; only calls that concern no single
record are judged by the breaker of the store as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from sojourn.errors import BreakerOpenError
from sojourn.resilience.breaker import CircuitBreaker, Permit
from sojourn.resilience.states import BreakerState
from sojourn.stores import Partition

MOST_SERVERS: Final = 1_024
"""How many servers have a breaker at most; no Redis Cluster is meant to have more nodes."""
_WORST: Final = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)

OnServerChange = Callable[[str, BreakerState, BreakerState, BreakerState], None]
"""Is told the server, empty for the store as a whole, its old and new state, and the worst state of all."""


class ServerBreakers:
    """The breakers of one store, each made like *pattern* when its server is first named; thread-safe.

    *on_change* is told what each of them does, as that of `CircuitBreaker` is. One that is not closed and that nobody asks
    for a whole window is closed: its server may have left.
    """

    __slots__ = ("_known", "_limit", "_lock", "_on_change", "_partition", "_troubled", "whole")

    def __init__(
        self, pattern: CircuitBreaker, partition: Partition, *, on_change: OnServerChange, limit: int = MOST_SERVERS
    ) -> None:
        self._partition = partition
        self._on_change = on_change
        self._limit = limit
        self._lock = pattern.lock
        self.whole = pattern.sibling("", partial(self._note, ""))
        """The breaker of calls that concern no single record, or one whose server is not known yet."""
        self._known: dict[str, CircuitBreaker] = {"": self.whole}
        self._troubled: dict[str, CircuitBreaker] = {}

    @property
    def count(self) -> int:
        """How many servers have a breaker."""
        return len(self._known) - 1

    @property
    def worst(self) -> BreakerState:
        """The state of the one that lets through the least."""
        states = {breaker.state for breaker in list(self._troubled.values())}
        return next((state for state in _WORST if state in states), BreakerState.CLOSED)

    def of(self, id: str, label: str, now: float) -> CircuitBreaker:
        """Return the breaker for a call now on the record *id*, or on the index of *label*; the one of all without both.

        With both the call needs the index before the record: raise BreakerOpenError if that would be refused.
        """
        if id:
            server = self._partition.server_of(id)
            if label:
                index = self._known.get(self._partition.server_of_label(label))
                if index is not None:
                    index.require(now)
        else:
            server = self._partition.server_of_label(label) if label else ""
        breaker = self._known.get(server)
        if breaker is None:
            breaker = self._add(server, now)
        if self._troubled:
            self._close_the_left(breaker, now)
        return breaker

    def fail(self, breaker: CircuitBreaker, permit: Permit, server: str, now: float) -> None:
        """Hand back the permit of a call that failed at *server*, if that is known, else where *breaker* stands for."""
        judged = breaker
        if server:
            judged = self._known.get(server) or self._add(server, now)
        if judged is breaker:
            breaker.fail(permit, now)
            return
        breaker.release(permit, now)
        with suppress(BreakerOpenError):  # it was open when the call began: there is nothing to add
            judged.fail(judged.acquire(permit.started), now)

    def reset(self, now: float) -> None:
        """Close all of them, and forget what failed."""
        for breaker in list(self._known.values()):
            breaker.reset(now)

    def _add(self, server: str, now: float) -> CircuitBreaker:
        with self._lock:
            found = self._known.get(server)
            if found is None:
                self._make_room(now)
                found = self._known[server] = self.whole.sibling(server, partial(self._note, server))
            return found

    def _make_room(self, now: float) -> None:
        """Forget the oldest one that is closed, or else the oldest one."""
        servers = [server for server in self._known if server]
        if len(servers) >= self._limit:
            leaving = next((server for server in servers if server not in self._troubled), servers[0])
            self._known[leaving].reset(now)
            del self._known[leaving]

    def _close_the_left(self, asked: CircuitBreaker, now: float) -> None:
        with self._lock:
            for breaker in list(self._troubled.values()):
                if breaker is not asked and breaker.is_left(now):
                    breaker.reset(now)

    def _note(self, server: str, before: BreakerState, after: BreakerState) -> None:
        if server not in self._known:
            return  # forgotten, while a call of it was on its way
        if after is BreakerState.CLOSED:
            self._troubled.pop(server, None)
        else:
            self._troubled[server] = self._known[server]
        self._on_change(server, before, after, self.worst)
