"""Whether the stores of a manager answer now, server by server, and what their circuit breakers say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sojourn.breaker import BreakerState
from sojourn.errors import SessionUnavailableError
from sojourn.manager.engine import Engine
from sojourn.manager.guarded_store import GuardedStore
from sojourn.manager.shielding import all_at_once
from sojourn.retry import Lane
from sojourn.stores import DeadlineScope, PartitionedStore, StoreIO

_PROBES: Final = 512
"""Ids that nobody has, among which there is one for each of the servers that a cluster has in practice."""


class HealthState(Enum):
    """How well sessions are served."""

    UP = "up"
    DEGRADED = "degraded"
    """Some servers do not answer, or a circuit breaker refuses calls."""
    DOWN = "down"
    """No server of a store answers: no session can be opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """How one server answered a read just now."""

    store: str
    """``sessions``, or ``revocations`` for the revocation index."""
    server: str
    """Its name where the store has several, else empty."""
    state: HealthState
    cause: str
    """A word or two, such as ``timeout``; empty when it is up."""
    latency: float
    """Seconds that the read took, with its retries."""
    reads: BreakerState | None
    """The state of the circuit breaker for reads after it; None when there is none."""
    writes: BreakerState | None
    """The same for writes, which are not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How well the sessions of a manager are served, for operators: over HTTP tell the state alone (SECURITY R58)."""

    state: HealthState
    servers: tuple[ServerHealth, ...]
    """Each server of each store; none where sessions live in the cookie and no revocation index is set."""

    @property
    def cause(self) -> str:
        """What is the matter with the first server that is not up; empty when all are."""
        return next((each.cause for each in self.servers if each.cause), "")


async def examine(engine: Engine[Any]) -> Health:
    """Read an id that nobody has from every server, each within a deadline of its own.

    Under an event loop all are asked at the same time, else one after the other.
    """
    stores = [] if engine.client_side else [("sessions", engine.store)]
    if engine.revocations is not None:
        stores.append(("revocations", engine.revocations.store))
    looks = [_examine_server(engine, name, store, *probe) for name, store in stores for probe in _probes(store)]
    waits = engine.io is StoreIO.ASYNC or engine.offload is not None
    found = await all_at_once(looks) if waits else [await look for look in looks]
    is_down = any(all(each.state is HealthState.DOWN for each in found if each.store == name) for name, _ in stores)
    if is_down:
        state = HealthState.DOWN
    else:
        state = HealthState.DEGRADED if any(each.cause for each in found) else HealthState.UP
    return Health(state=state, servers=tuple(found))


def _probes(store: GuardedStore) -> Iterator[tuple[str, str]]:
    """Yield each server that the store knows, with an id on it that nobody has."""
    partition = store.store.partition if isinstance(store.store, PartitionedStore) else None
    if partition is None:
        yield "", "0" * 43
        return
    ids: dict[str, str] = {}
    for number in range(_PROBES):
        id = f"{number:03d}{'0' * 40}"
        ids.setdefault(partition.server_of(id), id)
    yield from ids.items()


async def _examine_server(engine: Engine[Any], name: str, store: GuardedStore, server: str, id: str) -> ServerHealth:
    began = engine.clock.monotonic()
    state, cause = HealthState.UP, ""
    try:
        with DeadlineScope(engine.new_deadline()):
            await store.load(id, fresh=True)
    except SessionUnavailableError as error:
        state, cause = HealthState.DOWN, error.kind
    latency = engine.clock.monotonic() - began
    reads, writes = _breaker(store.reads, server), _breaker(store.writes, server)
    if not cause:
        for calls, breaker in (("reads", reads), ("writes", writes)):
            if breaker not in {None, BreakerState.CLOSED}:
                state, cause = HealthState.DEGRADED, f"breaker of {calls} not closed"
    return ServerHealth(
        store=name, server=server, state=state, cause=cause, latency=latency, reads=reads, writes=writes
    )


def _breaker(lane: Lane, server: str) -> BreakerState | None:
    if lane.servers is not None:
        return lane.servers.states.get(server, BreakerState.CLOSED)
    return lane.breaker.state if lane.breaker is not None else None
