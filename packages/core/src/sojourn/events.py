"""Events of sessions: what they are, and their way to observers, metrics, the log and listeners of revocations.

Whatever a metrics sink, an observer or a listener raises is counted and ignored (FAILURES F22). Nothing reported here
holds a token, data or a secret (SECURITY R6).
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import secrets
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count, islice
from typing import Final, TypeAlias

from sojourn import metrics as names
from sojourn.breaker import BreakerState, CircuitBreaker, ServerBreakers
from sojourn.metrics import Metrics, NullMetrics
from sojourn.stores import AnnouncingStore, CachingStore, Clock, SizedStore

OnRevoked: TypeAlias = Callable[[str], object]
OnDoubt: TypeAlias = Callable[[], object]
Only: TypeAlias = Callable[[str], bool]

_log: Final = logging.getLogger("sojourn.events")
_COUNTED: Final = {
    "started": names.CREATED,
    "loaded": names.LOADED,
    "deleted": names.DELETED,
    "regenerated": names.REGENERATED,
    "expired": names.EXPIRED,
    "rejected": names.REJECTED,
    "evicted": names.EVICTED,
    "gone": names.GONE,
    "taken_over": names.TAKEN_OVER,
    "conflict": names.CONFLICT,
    "unsealed": names.UNSEALED,
    "moved": names.MOVED,
    "unconfirmed": names.UNCONFIRMED,
}
_LOGGED: Final = {*_COUNTED, "edited", "breaker", "link"} - {"loaded", "conflict", "unsealed", "unconfirmed"}
_MOST_TOLD: Final = 10_000
"""Ids of ended sessions that are remembered, so that nobody is told of them twice."""
_ENDS: Final = frozenset({"deleted", "regenerated", "evicted"})
_BREAKER_MOVED: Final = {
    BreakerState.OPEN: names.BREAKER_OPEN,
    BreakerState.HALF_OPEN: names.BREAKER_HALF_OPEN,
    BreakerState.CLOSED: names.BREAKER_CLOSED,
}
_BREAKER_LEVELS: Final = {state: level for level, state in enumerate(BreakerState)}
LEVELS_EVERY: Final = 10.0
"""Seconds after which how things stand is sent again, while there are calls."""
_SIZES: Final = ((1 << 10, "1k"), (1 << 12, "4k"), (1 << 14, "16k"), (1 << 16, "64k"), (1 << 18, "256k"))
# Reasons for which the former id remains valid for a while.
_GOES_ON: Final = frozenset({"renewal"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one session; holds no token, no data and no secret (SECURITY R6, R32)."""

    name: str
    """``started``, ``loaded``, ``client`` (the response carries its cookie), ``deleted``, ``regenerated``, ``expired`` or
    ``rejected``; also ``edited``, ``evicted``, ``conflict``, ``gone``, ``unconfirmed``, ``taken_over`` (from another
    library), ``moved`` (from the fallback store) and, without an id, ``breaker`` and ``link``."""
    id: str
    """The session's public id; safe to log."""
    old_id: str | None = None
    """The id before a rotation, for ``regenerated``."""
    principal_hash: str | None = None
    """A keyed hash of the principal; None for an anonymous session."""
    reason: str | None = None
    """Why, for ``rejected``, ``deleted`` and ``expired``; for ``taken_over`` the name of the reader."""
    at: float = 0.0
    """Wall-clock seconds since the epoch, UTC."""
    node: str = ""
    """The process that reports it: ``SOJOURN_NODE_ID``, or a random name."""
    server: str = ""
    """The server whose circuit ``breaker`` changed, where a store has several; empty for the store as a whole."""
    client: str = ""
    """The label of the client that the session began with, such as ``Firefox on Linux``; empty when unknown."""


Observer: TypeAlias = Callable[[Event], None]
"""Called with each event; what it raises is counted and ignored (FAILURES F22)."""


class AuditFormatter(logging.Formatter):
    """Writes each record of the logger ``sojourn.events`` as one line of JSON, for an audit log.

    What tells of no session, a warning of this logger for one, has ``level`` and ``message`` in the place of the event.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, which holds no line break."""
        event = getattr(record, "sojourn", None)
        at = event.at if isinstance(event, Event) else record.created
        line: dict[str, object] = {"time": datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")}
        if isinstance(event, Event):
            line["event"] = event.name
            line.update((name, value or None) for name, value in asdict(event).items() if name not in {"name", "at"})
        else:
            line.update(level=record.levelname, message=super().format(record))
        return json.dumps(line)


class Levels:
    """Sends how things stand in this process, while there are calls: *breakers*, and local copies and size of *store*.

    There is no timer: whoever makes a call comes by, and sends when ten seconds are over.
    """

    def __init__(
        self,
        events: EventDispatcher,
        store: object,
        breakers: Mapping[str, CircuitBreaker | ServerBreakers | None],
    ) -> None:
        self._events = events
        self._store = store
        self._breakers = breakers
        self._due = -math.inf
        self._hits = self._misses = 0

    def come_by(self, now: float) -> None:
        """Send everything if it is time to; *now* is of the monotonic clock."""
        if now < self._due:
            return
        self._due = now + LEVELS_EVERY
        try:
            self._send_breakers()
            if isinstance(self._store, SizedStore):
                self._events.level(names.ACTIVE_COUNT, self._store.records_held)
            if isinstance(self._store, CachingStore):
                self._send_copies(self._store.cache_stats())
        except Exception:  # noqa: BLE001
            self._events.drop("store that was asked for its figures")

    def _send_breakers(self) -> None:
        events = self._events
        for calls, breaker in self._breakers.items():
            if isinstance(breaker, ServerBreakers):
                for server, state in breaker.states.items():
                    if server:
                        events.level(names.BREAKER_STATE, _BREAKER_LEVELS[state], {"calls": calls, "server": server})
                events.level(names.BREAKER_STATE, _BREAKER_LEVELS[breaker.worst], {"calls": calls})
            elif breaker is not None:
                events.level(names.BREAKER_STATE, _BREAKER_LEVELS[breaker.state], {"calls": calls})

    def _send_copies(self, figures: Mapping[str, float]) -> None:
        hits = int(figures.get("hits", 0))
        misses = int(figures.get("misses", 0) + figures.get("bypasses", 0))
        self._events.increment(names.CACHE_HITS, hits - self._hits)
        self._events.increment(names.CACHE_MISSES, misses - self._misses)
        self._hits, self._misses = hits, misses
        self._events.level(names.CACHE_SIZE, figures.get("size", 0))
        self._events.level(names.CACHE_BYTES, figures.get("bytes", 0))


class EventDispatcher:
    """Passes the events and figures of one manager to metrics, the log, observers and listeners of revocations."""

    def __init__(
        self,
        metrics: Metrics,
        observers: Sequence[Observer],
        clock: Clock,
        hash_principal: Callable[[str], str],
        node: str | None = None,
    ) -> None:
        self._metrics = metrics
        self._observers = tuple(observers)
        self._clock = clock
        self._hash = hash_principal
        self.has_metrics = not isinstance(metrics, NullMetrics)
        self.is_observed = self.has_metrics or bool(self._observers)
        """Whether anybody receives the events that are not logged."""
        self.dropped = 0
        """The number of calls of a sink, an observer or a listener that raised."""
        self._node = node
        self._is_named = node is not None
        self._process = os.getpid() if node is None else 0
        self.revocations = RevocationListeners(lambda: self.drop("subscriber"))
        """The listeners for sessions that end before their time."""

    def event(
        self,
        name: str,
        id: str,
        *,
        old_id: str | None = None,
        principal: str | None = None,
        reason: str | None = None,
        server: str = "",
        client: str = "",
    ) -> None:
        """Report one event: notify listeners, count it, log it (SECURITY R32), call every observer."""
        if name in _ENDS and reason not in _GOES_ON:
            self.revocations.notify(old_id or id)
        counted = _COUNTED.get(name)
        if counted is not None:
            self.increment(counted, tags={"reason": reason} if reason else None)
        logged = name in _LOGGED and _log.isEnabledFor(logging.INFO)
        if not (logged or self._observers):
            return
        hashed = self._hash(principal) if principal is not None else None
        event = Event(name, id, old_id, hashed, reason, self._clock.time(), self.node(), server, client)
        if logged:
            where = f"{event.node} server={server}" if server else event.node
            _log.info("session %s id=%s reason=%s node=%s", name, id, reason, where, extra={"sojourn": event})
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - FAILURES F22: isolate, count, go on
                self.drop("observer")

    def principal_hash(self, principal: str) -> str:
        """Return the keyed hash under which events name a principal."""
        return self._hash(principal)

    def node(self) -> str:
        """Return the name of this process: the one that was set, else a random one, which differs after a fork."""
        if self._node is None or (self._process and self._process != os.getpid()):
            self._node, self._process = secrets.token_hex(4), os.getpid()
        return self._node

    def breaker(self, calls: str, server: str, before: BreakerState, after: BreakerState, worst: BreakerState) -> None:
        """Report a change of the circuit breaker of *server*, or if that is empty of the whole store (FAILURES F1).

        *calls* are those that it lets through, ``read`` or ``write`` (F27). *worst* is the state of the breaker for them
        that lets through the least.
        """
        whole = {"calls": calls}
        tags = {**whole, "server": server} if server else whole
        self.increment(_BREAKER_MOVED[after], tags=tags)
        if server:
            self.level(names.BREAKER_STATE, _BREAKER_LEVELS[after], tags)
        self.level(names.BREAKER_STATE, _BREAKER_LEVELS[worst], whole)
        self.event("breaker", "", reason=f"{calls}: {before.value} -> {after.value}", server=server)

    def link(self, is_up: bool, down: int) -> None:  # noqa: FBT001 - as the store reports it
        """Report that a link of the store was lost or restored; *down* of its links are lost (FAILURES F12)."""
        self.increment(names.LINK_RESTORED if is_up else names.LINK_LOST)
        self.level(names.LINKS_DOWN, down)
        self.event("link", "", reason="up" if is_up else "down")

    def unconfirmed(self, id: str, replicas: int) -> None:
        """Report a deletion that only *replicas* replicas have confirmed: a failover now may undo it."""
        self.event("unconfirmed", id, reason=f"{replicas} replicas")

    def increment(self, name: str, value: int = 1, tags: dict[str, str] | None = None) -> None:
        """Add to a counter."""
        if self.has_metrics:
            self._tell(self._metrics.increment, name, value, tags)

    def timing(self, name: str, seconds: float, tags: dict[str, str] | None = None) -> None:
        """Record a duration in seconds."""
        if self.has_metrics:
            self._tell(self._metrics.timing, name, seconds, tags)

    def gauge(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Set a level."""
        if self.has_metrics:
            self._tell(self._metrics.gauge, name, value, tags)

    def level(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Set a level of this process alone: it has the tag ``node`` where SOJOURN_NODE_ID gives the process a name.

        A random name would be a new series of the agent for each process that ever ran.
        """
        if self.has_metrics:
            self.gauge(name, value, {**(tags or {}), "node": self.node()} if self._is_named else tags)

    def payload(self, plain: int, stored: int) -> None:
        """Report that a session of *plain* bytes was made into *stored* ones, to be written."""
        self.increment(names.PAYLOADS, tags={"size": next((name for most, name in _SIZES if plain <= most), "more")})
        self.increment(names.PAYLOAD_BYTES, plain)
        self.increment(names.PAYLOAD_STORED, stored)

    def close(self) -> None:
        """Close the metrics sink, if it can be closed, so that it sends what it holds."""
        closing = getattr(self._metrics, "close", None)
        if closing is not None:
            self._tell(closing)

    def _tell(self, call: Callable[..., object], *figures: object) -> None:
        try:
            call(*figures)
        except Exception:  # noqa: BLE001 - FAILURES F22: isolate, count, go on
            self.drop("metrics sink")

    def drop(self, what: str) -> None:
        """Count a call of *what* that raised, and log the first one (FAILURES F22)."""
        self.dropped += 1
        if self.dropped == 1:
            _log.warning("a session %s raised; this and all later ones are ignored and counted", what, exc_info=True)


class RevocationListeners:
    """The listeners of one manager; *report* is called when one of them raises.

    Of one end a process may learn twice: it also hears its own revocations from the store. The id is passed on once, and
    again only after the session was opened here in between, as one is that a hostile writer brought back (SECURITY R43).
    """

    def __init__(self, report: Callable[[], None]) -> None:
        self.announcers: list[AnnouncingStore] = []
        """The store, and the one that sessions move from, if they announce what other processes delete."""
        self._report = report
        self._listeners: dict[object, tuple[OnRevoked, OnDoubt | None, Only | None]] = {}
        self._leaves: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.told: dict[str, int] = {}
        """The ids that were passed on lately, and when; who opens a session takes its id out."""
        self._moments = count()

    def add(self, callback: OnRevoked, on_doubt: OnDoubt | None, only: Only | None = None) -> Callable[[], None]:
        """Add a listener for the ids that *only* says yes to; return the function that removes it, and may do so twice."""
        key = object()
        with self._lock:
            self._listeners[key] = (callback, on_doubt, only)
            for store in self.announcers[len(self._leaves) :]:
                options: dict[str, Only] = {"only": self._want} if _takes_only(store) else {}
                self._leaves.append(store.on_dead(self.notify, on_doubt=self.notify_doubt, **options))

        def remove() -> None:
            with self._lock:
                self._listeners.pop(key, None)
                while not self._listeners and self._leaves:
                    self._leaves.pop()()

        return remove

    def moment(self) -> int:
        """Return a moment for *alive_at* of ``notify``, which is over when this returns."""
        return next(self._moments)

    def notify(self, id: str, alive_at: int | None = None) -> None:
        """Call every listener with the id of a session that ended, unless they were told of that before.

        What was told before *alive_at*, a moment after which the session still lived, was another end.
        """
        if not self._listeners:
            return
        now = next(self._moments)
        told = self.told.setdefault(id, now)
        if told != now:
            if alive_at is None or told > alive_at:
                return
            self.told[id] = now
        if len(self.told) > _MOST_TOLD:
            with self._lock:
                for oldest in list(islice(self.told, len(self.told) - _MOST_TOLD)):
                    self.told.pop(oldest, None)
        for callback, _, only in list(self._listeners.values()):
            try:
                if only is None or only(id):
                    callback(id)
            except Exception:  # noqa: BLE001 - FAILURES F22: isolate, count, go on
                self._report()

    def _want(self, id: str) -> bool:
        return id not in self.told and any(only is None or only(id) for _, _, only in list(self._listeners.values()))

    def notify_doubt(self) -> None:
        """Call the *on_doubt* of every listener: sessions may have ended whose ids are not known."""
        for _, on_doubt, _ in list(self._listeners.values()):
            if on_doubt is not None:
                try:
                    on_doubt()
                except Exception:  # noqa: BLE001
                    self._report()


def _takes_only(store: AnnouncingStore) -> bool:
    """Tell whether the store's ``on_dead`` has ``only``, which came later; warn of one that has not."""
    try:
        parameters = inspect.signature(store.on_dead).parameters.values()
    except (TypeError, ValueError):  # a callable of another language
        return True
    if any(each.name == "only" or each.kind is each.VAR_KEYWORD for each in parameters):
        return True
    msg = (
        f"{type(store).__name__}.on_dead() takes no only=, so the store looks up every id that it hears of; add "
        "only=None, a function that says which ids are of interest (docs/write-a-plugin.md)"
    )
    warnings.warn(msg, DeprecationWarning, stacklevel=2)
    return False
