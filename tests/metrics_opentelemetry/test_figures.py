"""What the SDK's reader in memory finds: an instrument for each figure, and nothing that could name anybody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, Histogram, InMemoryMetricReader, Metric, Sum

from sojourn import metrics as names
from sojourn.metrics import METRIC_NAMES, Metrics
from sojourn.plugins import find_metrics
from sojourn.settings import SessionSettings
from sojourn_metrics_opentelemetry import OpenTelemetryMetrics, sojourn_create_metrics
from sojourn_metrics_opentelemetry.metrics import DURATIONS, INSTRUMENTS

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
DATA = {"counter": Sum, "gauge": Gauge, "histogram": Histogram}


class Read:
    """A sink, and what a reader of the SDK finds after it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.sink = OpenTelemetryMetrics(meter_provider=MeterProvider([self._reader], shutdown_on_exit=False))

    def found(self) -> dict[str, Metric]:
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        assert {scope.scope.name for scope in scopes} <= {"sojourn_metrics_opentelemetry"}
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the attributes and the value of each series of *name*."""
        points: Iterable[Any] = self.found()[name].data.data_points
        return [(dict(point.attributes), getattr(point, "value", None)) for point in points]


def send(sink: Metrics, name: str, value: float, tags: dict[str, str] | None = None) -> None:
    match INSTRUMENTS[name].kind:
        case "counter":
            sink.increment(name, int(value), tags)
        case "gauge":
            sink.gauge(name, value, tags)
        case "histogram":
            sink.timing(name, value, tags)


def test_every_name_of_the_core_has_an_instrument() -> None:
    assert sorted(INSTRUMENTS) == sorted(METRIC_NAMES)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_figure_arrives_by_its_instrument(name: str) -> None:
    read = Read()
    send(read.sink, name, 3)
    (metric,) = read.found().values()
    told = INSTRUMENTS[name]
    assert (metric.name, metric.unit, metric.description) == (told.name, told.unit, told.description)
    assert type(metric.data) is DATA[told.kind]
    (point,) = metric.data.data_points
    assert dict(point.attributes or {}) == told.attributes
    assert getattr(point, "sum" if told.kind == "histogram" else "value") == 3


@pytest.mark.parametrize(
    "told", list({told.name: told for told in INSTRUMENTS.values()}.values()), ids=lambda told: told.name
)
def test_names_units_and_attributes_are_those_of_the_conventions(told: Any) -> None:
    assert re.fullmatch(r"sojourn(\.[a-z]+(_[a-z]+)*)+", told.name)
    assert re.fullmatch(r"s|By|1|\{[a-z]+\}", told.unit)
    assert told.kind == "histogram" or not told.name.endswith(("duration", "total", "count"))
    assert told.description[0].isupper() or told.description[0] == "0"
    assert not told.description.endswith(".")


def test_the_page_lists_every_instrument_with_what_it_takes() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `sojourn.")
    ]
    told = {
        row[0].strip("`"): (row[1], row[2].strip("`"), set(re.findall(r"`(session\.[\w.]+)`", row[4]))) for row in rows
    }
    there = {
        each.name: (each.kind, each.unit, {name for name in INSTRUMENTS if INSTRUMENTS[name].name == each.name})
        for each in INSTRUMENTS.values()
    }
    assert told == there
    tags = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[3]))
        for row in (line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines())
        if row[0].startswith(" `session.")
        for row in [[cell.strip() for cell in row]]
    }
    for row in rows:
        named = {
            word.replace("error.type", "sojourn.kind") for word in re.findall(r"`((?:sojourn|error)\.\w+)`", row[3])
        }
        taken = re.findall(r"`(session\.[\w.]+)`", row[4])
        asked = {f"sojourn.{tag}" for name in taken for tag in tags[name]}
        assert named == asked | {key for name in taken for key in INSTRUMENTS[name].attributes}, row[0]


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from([name for name in METRIC_NAMES if INSTRUMENTS[name].kind == "counter"]),
            st.integers(0, 1000),
            st.sampled_from([None, {"reason": "unknown"}, {"operation": "load", "kind": "timeout"}]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_counts_add_up_for_each_name_and_each_set_of_attributes(
    calls: list[tuple[str, int, dict[str, str] | None]],
) -> None:
    read = Read()
    expected: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()
    for name, value, tags in calls:
        read.sink.increment(name, value, tags)
        ours = {"error.type" if key == "kind" else f"sojourn.{key}": text for key, text in (tags or {}).items()}
        attributes = {**ours, **INSTRUMENTS[name].attributes}
        expected[INSTRUMENTS[name].name, frozenset(attributes.items())] += value
    found = {
        (name, frozenset(attributes.items())): value for name in read.found() for attributes, value in read.points(name)
    }
    assert found == expected


def test_durations_are_one_histogram_in_seconds_where_failures_have_their_kind() -> None:
    read = Read()
    read.sink.timing(names.LOAD_TIME, 0.0007, {"operation": "load"})
    read.sink.timing(names.STORE_TIME, 0.003, {"operation": "touch"})
    read.sink.timing(names.FAILURE_TIME, 2.0, {"operation": "load", "kind": "timeout"})
    points: Any = read.found()["sojourn.store.operation.duration"].data.data_points
    assert {frozenset(point.attributes.items()): point.sum for point in points} == {
        frozenset({("sojourn.operation", "load")}): 0.0007,
        frozenset({("sojourn.operation", "touch")}): 0.003,
        frozenset({("sojourn.operation", "load"), ("error.type", "timeout")}): 2.0,
    }
    assert {point.explicit_bounds for point in points} == {DURATIONS}


def test_a_level_is_the_last_one() -> None:
    read = Read()
    for value in (1, 2, 0):
        read.sink.gauge(names.BREAKER_STATE, value, {"calls": "read"})
    assert read.points("sojourn.circuit_breaker.state") == [({"sojourn.calls": "read"}, 0)]


def test_a_name_of_a_later_release_becomes_an_instrument_of_its_own() -> None:
    read = Read()
    read.sink.increment("session.later", 2, {"reason": "a"})
    read.sink.increment("session.later", 3, {"reason": "a"})
    read.sink.timing("session.later_time", 0.5)
    read.sink.gauge("session.later_level", 7)
    found = read.found()
    assert {name: type(metric.data) for name, metric in found.items()} == {
        "sojourn.session.later": Sum,
        "sojourn.session.later_time": Histogram,
        "sojourn.session.later_level": Gauge,
    }
    (point,) = found["sojourn.session.later"].data.data_points
    assert (dict(point.attributes or {}), getattr(point, "value", None)) == ({"sojourn.reason": "a"}, 5)


def test_two_sinks_of_one_process_share_their_instruments(caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for _ in range(2):
        OpenTelemetryMetrics(meter_provider=provider).increment(names.CREATED)
    data: Any = reader.get_metrics_data()
    ((metric,),) = [scope.metrics for resource in data.resource_metrics for scope in resource.scope_metrics]
    assert [point.value for point in metric.data.data_points] == [2]
    assert not caplog.records


def test_the_entry_point_names_the_plugin() -> None:
    (found,) = entry_points(group="sojourn", name="metrics-opentelemetry")
    assert found.value == "sojourn_metrics_opentelemetry"


def test_the_plugin_answers_to_its_name_alone() -> None:
    settings = SessionSettings(preset="testing", metrics="opentelemetry", _env_file=None)
    assert sojourn_create_metrics(name="statsd", settings=settings) is None
    assert isinstance(find_metrics("opentelemetry", settings), OpenTelemetryMetrics)
