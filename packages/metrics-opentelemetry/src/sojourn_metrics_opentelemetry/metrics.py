"""The OpenTelemetry sink: what sojourn counts and times as instruments, and calls of the store as spans.

Spans come from the durations: a call that took so long has just ended, in the context of the request that made it. So
requests pay for spans only where their own span is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from opentelemetry import metrics, trace
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import Status, StatusCode, TracerProvider

from sojourn import __version__
from sojourn import metrics as names

Attributes: TypeAlias = Mapping[str, str]
Record: TypeAlias = Callable[[float, Attributes], None]

SCOPE: Final = "sojourn_metrics_opentelemetry"
"""The name of the instrumentation scope of every instrument and span."""
DURATIONS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The bounds of the histogram in seconds; those of the SDK are meant for milliseconds. A view replaces them."""


class Instrument(NamedTuple):
    """The instrument that takes a figure of sojourn, and what the figure's own name says as attributes."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    unit: str
    description: str
    attributes: Attributes = MappingProxyType({})


def _counter(name: str, unit: str, description: str, **attributes: str) -> Instrument:
    return Instrument("counter", name, unit, description, {f"sojourn.{key}": text for key, text in attributes.items()})


_DURATION: Final = Instrument(
    "histogram", "sojourn.store.operation.duration", "s", "Calls of the store, with their retries"
)
_TRANSITIONS: Final = ("sojourn.circuit_breaker.transition", "{transition}", "Changes of a circuit breaker")
_LINKS: Final = ("sojourn.link.transition", "{transition}", "Invalidation links that were lost or restored")
_LOOKUPS: Final = ("sojourn.cache.lookup", "{load}", "Loads, by whether the local cache served them")

INSTRUMENTS: Final[Mapping[str, Instrument]] = MappingProxyType(
    {
        names.CREATED: _counter("sojourn.session.created", "{session}", "New sessions that were stored"),
        names.LOADED: _counter("sojourn.session.loaded", "{session}", "Sessions that were opened"),
        names.DELETED: _counter("sojourn.session.deleted", "{session}", "Sessions that were ended"),
        names.REGENERATED: _counter("sojourn.session.regenerated", "{session}", "Sessions that moved to a fresh token"),
        names.EXPIRED: _counter("sojourn.session.expired", "{request}", "Requests with a session past its deadline"),
        names.REJECTED: _counter("sojourn.session.rejected", "{session}", "Sessions that were not opened"),
        names.EVICTED: _counter("sojourn.session.evicted", "{session}", "Live sessions dropped to make room"),
        names.CONFLICT: _counter("sojourn.session.conflict", "{commit}", "Commits that another request had overtaken"),
        names.GONE: _counter("sojourn.session.gone", "{commit}", "Commits of a session that ended meanwhile"),
        names.TAKEN_OVER: _counter("sojourn.session.taken_over", "{session}", "Sessions of another library made ours"),
        names.UNSEALED: _counter("sojourn.session.unsealed", "{session}", "Records that were opened unencrypted"),
        names.MOVED: _counter("sojourn.session.moved", "{record}", "Records that moved from the fallback store"),
        names.ERROR: _counter("sojourn.store.error", "{call}", "Calls of the store that failed, each try by itself"),
        names.LOAD_TIME: _DURATION,
        names.STORE_TIME: _DURATION,
        names.FAILURE_TIME: _DURATION,
        names.ACTIVE_COUNT: Instrument("gauge", "sojourn.session.active", "{session}", "Sessions that are there"),
        names.BREAKER_OPEN: _counter(*_TRANSITIONS, state="open"),
        names.BREAKER_HALF_OPEN: _counter(*_TRANSITIONS, state="half_open"),
        names.BREAKER_CLOSED: _counter(*_TRANSITIONS, state="closed"),
        names.BREAKER_STATE: Instrument(
            "gauge",
            "sojourn.circuit_breaker.state",
            "1",
            "0 closed, 1 open, 2 half open; the worst where there are many",
        ),
        names.RETRY_ATTEMPT: _counter(
            "sojourn.store.retry", "{call}", "Failed calls of the store that are tried again"
        ),
        names.LINK_LOST: _counter(*_LINKS, state="lost"),
        names.LINK_RESTORED: _counter(*_LINKS, state="restored"),
        names.LINKS_DOWN: Instrument("gauge", "sojourn.link.down", "{link}", "Invalidation links that are down"),
        names.UNCONFIRMED: _counter("sojourn.session.unconfirmed", "{session}", "Ends that too few replicas confirmed"),
        names.REVOCATIONS_FULL: Instrument(
            "gauge", "sojourn.revocation.utilization", "1", "How full a revocation index in memory is"
        ),
        names.CACHE_HITS: _counter(*_LOOKUPS, result="hit"),
        names.CACHE_MISSES: _counter(*_LOOKUPS, result="miss"),
        names.CACHE_SIZE: Instrument("gauge", "sojourn.cache.entry", "{entry}", "Copies in the local cache"),
        names.CACHE_BYTES: Instrument("gauge", "sojourn.cache.size", "By", "Memory of the copies in the local cache"),
        names.PAYLOADS: _counter("sojourn.payload.written", "{write}", "Sessions that were written, by size"),
        names.PAYLOAD_BYTES: _counter("sojourn.payload.encoded", "By", "Bytes of them before compression"),
        names.PAYLOAD_STORED: _counter("sojourn.payload.stored", "By", "Bytes of them compressed and encrypted"),
    }
)
"""The instrument of each name of ``sojourn.metrics``; docs/operations.md has them as a table."""

_TIMED: Final = frozenset({names.LOAD_TIME, names.STORE_TIME, names.FAILURE_TIME})
# What is sent on the whole every ten seconds, or concerns more than the request in which it happens.
_NOT_OF_A_REQUEST: Final = frozenset(
    {
        *(names.CACHE_HITS, names.CACHE_MISSES, names.PAYLOADS, names.PAYLOAD_BYTES, names.PAYLOAD_STORED),
        *(names.LINK_LOST, names.LINK_RESTORED, names.EVICTED),
    }
)
_KEYS: Final[Mapping[str, str]] = MappingProxyType({"kind": "error.type"})


class OpenTelemetryMetrics:
    """Record every figure by an instrument, and in the span of its request what became of the session.

    Without providers it uses the global ones, which may be set later. An unknown name becomes an instrument when it comes.
    """

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        self._meter = metrics.get_meter(SCOPE, __version__, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(SCOPE, __version__, tracer_provider=tracer_provider)
        self._records = {name: _record(self._meter, told) for name, told in INSTRUMENTS.items()}

    def increment(self, name: str, value: int = 1, tags: Mapping[str, str] | None = None) -> None:
        """Add *value* to a counter; what concerns the request at hand is an event of its span, too."""
        self._send("counter", name, value, tags)
        if name not in _NOT_OF_A_REQUEST:
            span = trace.get_current_span()
            if span.is_recording():
                span.add_event(name, _attributes(tags))

    def timing(self, name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        """Record a duration in seconds; that of a call of the store is a span, too."""
        self._send("histogram", name, seconds, tags)
        if name in _TIMED and trace.get_current_span().is_recording():
            self._trace(seconds, _attributes(tags))

    def gauge(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set a level."""
        self._send("gauge", name, value, tags)

    def _send(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        value: float,
        tags: Mapping[str, str] | None,
    ) -> None:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _record(self._meter, Instrument(kind, f"sojourn.{name}", "", ""))
        record(value, _attributes(tags))

    def _trace(self, seconds: float, attributes: dict[str, str]) -> None:
        """Add the span of a call that ended just now and took *seconds*."""
        ended = time.time_ns()
        span = self._tracer.start_span(
            f"sojourn.store.{attributes.get('sojourn.operation', 'call')}",
            attributes=attributes,
            start_time=ended - int(seconds * 1e9),
        )
        if failure := attributes.get("error.type"):
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(ended)


def _attributes(tags: Mapping[str, str] | None) -> dict[str, str]:
    return {_KEYS.get(key, f"sojourn.{key}"): text for key, text in tags.items()} if tags else {}


def _record(meter: Meter, told: Instrument) -> Record:
    """Return the function that records a figure by the instrument, which is made or found in *meter*."""
    add: Record
    if told.kind == "counter":
        add = meter.create_counter(told.name, told.unit, told.description).add
    elif told.kind == "gauge":
        add = meter.create_gauge(told.name, told.unit, told.description).set
    else:
        add = meter.create_histogram(
            told.name, told.unit, told.description, explicit_bucket_boundaries_advisory=DURATIONS
        ).record
    if not told.attributes:
        return add
    return lambda value, attributes: add(value, {**attributes, **told.attributes})
