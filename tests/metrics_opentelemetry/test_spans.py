"""What the SDK's exporter in memory holds after requests: calls of the store below the span of their request."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from sojourn.metrics import LOAD_TIME
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, Fault, FaultyStore
from sojourn_metrics_opentelemetry import OpenTelemetryMetrics
from tests.core.models import make_manager

pytestmark = pytest.mark.anyio


class Traced:
    """A manager over a store that can fail, and what was exported of its requests."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        tracers = TracerProvider(shutdown_on_exit=False, **options)
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = tracers.get_tracer("application")
        self.reader = InMemoryMetricReader()
        self.sink = OpenTelemetryMetrics(
            meter_provider=MeterProvider([self.reader], shutdown_on_exit=False), tracer_provider=tracers
        )
        clock = FakeClock()
        self.store = FaultyStore(MemoryStore(clock=clock))
        self.sessions = make_manager(self.store, clock=clock, metrics=self.sink, settings={"retry_attempts": 0})

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that ended since the last look, in that order."""
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans


def names(spans: list[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


async def test_a_load_and_a_commit_are_spans_below_that_of_their_request() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("first"):
        session = await traced.sessions.open(None)
        session.data.count += 1
        token = (await traced.sessions.commit(session)).token
    *calls, first = traced.spans()
    assert names(calls) == ["sojourn.store.create"]
    assert events(first) == [("session.created", {})]
    with traced.tracer.start_as_current_span("second"):
        session = await traced.sessions.open(token)
        session.data.count += 1
        await traced.sessions.commit(session)
    *calls, second = traced.spans()
    assert names(calls) == ["sojourn.store.load", "sojourn.store.replace"]
    assert events(second) == [("session.loaded", {})]
    for span in calls:
        assert span.parent == second.context
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes == {"sojourn.operation": span.name.rpartition(".")[2]}
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "sojourn_metrics_opentelemetry"


def test_blocking_code_has_the_same_spans() -> None:
    traced = Traced()
    sessions = traced.sessions.blocking
    with traced.tracer.start_as_current_span("request"):
        session = sessions.open(None)
        session.data.count += 1
        token = sessions.commit(session).token
        sessions.open(token)
    *calls, request = traced.spans()
    assert names(calls) == ["sojourn.store.create", "sojourn.store.load"]
    assert [span.parent for span in calls] == [request.context] * 2


async def test_a_session_that_is_not_opened_says_why_in_the_span_of_the_request() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("request"):
        await traced.sessions.open("A" * 43)
    load, request = traced.spans()
    assert (load.name, load.status.status_code) == ("sojourn.store.load", StatusCode.UNSET)
    assert events(request) == [("session.rejected", {"sojourn.reason": "unknown"})]


async def test_an_outage_is_an_error_of_the_call_with_its_kind() -> None:
    traced = Traced()
    traced.store.follow(lambda _method: Fault.BEFORE)
    with traced.tracer.start_as_current_span("request"):
        await traced.sessions.open("A" * 43)
    load, request = traced.spans()
    assert load.attributes == {"sojourn.operation": "load", "error.type": "timeout"}
    assert (load.status.status_code, load.status.description) == (StatusCode.ERROR, "timeout")
    assert ("session.error", load.attributes) in events(request)


def test_a_span_begins_when_the_call_began() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("request") as request:
        traced.sink.timing(LOAD_TIME, 2.5, {"operation": "load"})
    call, _ = traced.spans()
    assert call.start_time is not None
    assert call.end_time is not None
    assert call.end_time - call.start_time == 2_500_000_000
    assert call.end_time >= request.start_time  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{}, {"sampler": ALWAYS_OFF}], ids=["no span", "not sampled"])
async def test_where_no_span_is_recorded_there_is_none_of_ours_and_figures_all_the_same(options: Any) -> None:
    traced = Traced(**options)
    if options:
        with traced.tracer.start_as_current_span("request"):
            await traced.sessions.open("A" * 43)
    else:
        await traced.sessions.open("A" * 43)
    assert traced.spans() == []
    assert "sojourn.session.rejected" in str(traced.reader.get_metrics_data())


async def test_r6_what_is_exported_holds_no_token_no_data_and_nobody() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("request"):
        session = await traced.sessions.open(None)
        session.data.note = "what only they know"
        session.login("ada@example.com")
        first = (await traced.sessions.commit(session)).token
        session = await traced.sessions.open(first)
        session.rotate()
        second = (await traced.sessions.commit(session)).token
        await traced.sessions.revoke_all("ada@example.com")
        await traced.sessions.open(second)
    exported = json.dumps([span.to_json() for span in traced.spans()]) + str(traced.reader.get_metrics_data())
    assert "session.regenerated" in exported
    for secret in (first, second, session.id, "ada@example.com", "what only they know"):
        assert secret
        assert secret not in exported


def test_providers_that_are_set_later_get_the_figures_and_without_them_nothing_happens() -> None:
    program = """
import sys
from opentelemetry import metrics, trace
from sojourn_metrics_opentelemetry import OpenTelemetryMetrics
sink = OpenTelemetryMetrics()
sink.increment("session.created", 5)
sink.timing("session.load_time", 0.1, {"operation": "load"})
assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
reader, exporter, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
metrics.set_meter_provider(MeterProvider([reader]))
tracers.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(tracers)
sink.increment("session.created", 2)
with trace.get_tracer("application").start_as_current_span("request"):
    sink.timing("session.load_time", 0.1, {"operation": "load"})
found = {metric.name: metric.data.data_points[0] for metric in
         reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics}
print(found["sojourn.session.created"].value, [span.name for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "2 ['sojourn.store.load', 'request']", done.stderr
