"""What operators ask: how the servers of the stores answer, where a cookie leads, which keys records are encrypted with."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any, Final

from sojourn.breaker import BreakerState
from sojourn.codec import PLAIN, CorruptEnvelopeError, FutureEnvelopeError, read_head
from sojourn.crypto.ciphers import BUILTIN_CIPHERS
from sojourn.errors import SerializationError, SessionUnavailableError
from sojourn.hookspecs import DiagnosingStore, Finding
from sojourn.manager import opening
from sojourn.manager.engine import Engine
from sojourn.manager.guarded_store import GuardedStore
from sojourn.manager.shielding import all_at_once
from sojourn.retry import Lane
from sojourn.session.transitions import LoadOutcome
from sojourn.stores import DeadlineScope, PartitionedStore, Record, StoreIO
from sojourn.stores.fallback import parts_of

_PROBES: Final = 512
"""Ids that nobody has, among which there is one for each of the servers that a cluster has in practice."""


_EPOCH: Final = date(1970, 1, 1)
_SUITES: Final = {PLAIN: "none", **{cipher.suite: cipher.name for cipher in BUILTIN_CIPHERS}}


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


async def diagnose(engine: Engine[Any]) -> Sequence[Finding]:
    """Return what the stores find wrong with their servers, and nothing for those that cannot tell."""
    guarded = [engine.store, *([engine.revocations.store] if engine.revocations is not None else ())]
    found: list[Finding] = []
    for store in [one.store for one in guarded]:
        for part in parts_of(store):
            if isinstance(part, DiagnosingStore):
                found += await part.diagnose()
    return found


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a cookie value leads to; neither the value nor the data of the session."""

    outcome: LoadOutcome
    """What a request with it would be told, binding apart; NONE for a value that is no token of ours."""
    id: str
    """The id of the session, under which events name it; empty for such a value."""
    size: int = 0
    """The bytes of the stored payload; 0 where there is no record."""
    format: int | None = None
    """That of the envelope; None where there is none."""
    suite: str = ""
    """The cipher's name, or ``none``."""
    key: str = ""
    """The id of the key that sealed it; empty where none did."""
    sealed_on: date | None = None
    """The UTC day on which that was."""
    principal: str | None = None
    """The hash under which events name the principal."""
    client: str = ""
    began: datetime | None = None
    expires: datetime | None = None


async def inspect(engine: Engine[Any], token: str) -> Inspection:
    """Return what *token* leads to, as a request would find it; nothing is written and no event told."""
    if not engine.keeping.is_well_formed(token):
        return Inspection(outcome=LoadOutcome.NONE, id="")
    lookup = await engine.keeping.load(engine, token, fresh=True)
    record = lookup.record
    if record is None:
        return Inspection(outcome=lookup.outcome, id=engine.keeping.id_of(token))
    told: dict[str, Any] = {}
    outcome, head = lookup.outcome, read_head(record.payload)
    if head is not None:
        told = {"format": head.format, "suite": _SUITES.get(head.suite, str(head.suite)), "key": head.key.hex()}
        with suppress(OverflowError):  # a day that no calendar has (SECURITY R50)
            told["sealed_on"] = _EPOCH + timedelta(days=head.day) if head.key else None
    try:
        payload = opening.read(engine, record)
        told["began"] = datetime.fromtimestamp(payload.created_at, UTC)
        told["expires"] = datetime.fromtimestamp(record.deadline, UTC)
        told["principal"] = engine.events.principal_hash(payload.principal) if payload.principal is not None else None
        told["client"] = payload.client
    except FutureEnvelopeError:
        outcome = LoadOutcome.FUTURE
    except (CorruptEnvelopeError, SerializationError):
        outcome = LoadOutcome.CORRUPT
    return Inspection(outcome=outcome, id=record.id, size=len(record.payload), **told)


async def keys_in_use(records: AsyncIterator[Record], progress: Callable[[int], object] | None) -> Mapping[str, int]:
    """Return for the id of each key how many *records* it encrypts, those too that rotations left; "" for none."""
    found: Counter[str] = Counter()
    seen = 0
    async for record in records:
        head = read_head(record.payload)
        # An entry of a process tells by itself which keys that has.
        if head is not None and (record.is_session or record.index_label is None):
            found[head.key.hex()] += 1
        seen += 1
        if progress is not None:
            progress(seen)
    return found
