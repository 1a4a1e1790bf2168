"""The names of the metrics, their table in the documentation, and the two sinks of the core."""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import metrics
from sojourn.metrics import METRIC_NAMES, CompositeMetrics, LogMetrics, Metrics, NullMetrics
from sojourn.testing import RecordingMetrics
from tests.core.models import make_manager

TABLE = Path(__file__).parents[2] / "docs" / "operations.md"


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| `session.")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_the_documentation_names_every_metric_in_order() -> None:
    assert tuple(row[0].strip("`") for row in rows()) == METRIC_NAMES


def test_the_table_says_type_unit_tags_and_occasion_of_every_metric() -> None:
    for name, kind, unit, tags, occasion in rows():
        assert kind in {"counter", "timer", "gauge"}, name
        assert unit, name
        assert (unit == "seconds") == (kind == "timer"), name
        assert re.fullmatch(r"(`\w+`(, `\w+`)*)?", tags), name
        assert len(occasion) > 20, name


def test_every_constant_is_listed_once() -> None:
    constants = [value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)]
    assert sorted(constants) == sorted(METRIC_NAMES)
    assert len(set(METRIC_NAMES)) == len(METRIC_NAMES)


def test_every_name_is_one_that_all_sinks_take() -> None:
    for name in METRIC_NAMES:
        assert re.fullmatch(r"session(\.[a-z]+(_[a-z]+)*)+", name)


@pytest.mark.parametrize("sink", [NullMetrics(), LogMetrics(), CompositeMetrics([])])
def test_all_are_sinks(sink: object) -> None:
    assert isinstance(sink, Metrics)


def test_the_null_sink_drops_everything(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        sink = NullMetrics()
        sink.increment("session.created", 2, {"reason": "x"})
        sink.timing("session.load_time", 0.5, {"operation": "load"})
        sink.gauge("session.active_count", 3.0, {"node": "a"})
    assert not caplog.records
    assert not hasattr(sink, "__dict__") or not vars(sink)


def test_the_log_sink_writes_one_line_for_each_figure(caplog: pytest.LogCaptureFixture) -> None:
    sink = LogMetrics()
    with caplog.at_level(logging.DEBUG, logger="sojourn.metrics"):
        sink.increment("session.created")
        sink.increment("session.rejected", 3, {"reason": "unknown", "node": "a"})
        sink.timing("session.load_time", 0.0123456, {"operation": "load"})
        sink.gauge("session.active_count", 17.0)
        sink.gauge("session.active_count", 0.5, {})
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("sojourn.metrics", logging.DEBUG, "session.created +1"),
        ("sojourn.metrics", logging.DEBUG, "session.rejected +3 node=a reason=unknown"),
        ("sojourn.metrics", logging.DEBUG, "session.load_time 12.346ms operation=load"),
        ("sojourn.metrics", logging.DEBUG, "session.active_count =17"),
        ("sojourn.metrics", logging.DEBUG, "session.active_count =0.5"),
    ]


def test_the_log_sink_takes_a_logger_and_a_level(caplog: pytest.LogCaptureFixture) -> None:
    sink = LogMetrics(logging.getLogger("shop.figures"), level=logging.INFO)
    with caplog.at_level(logging.INFO):
        sink.increment("session.created")
    assert [(record.name, record.levelname) for record in caplog.records] == [("shop.figures", "INFO")]


def test_the_log_sink_formats_nothing_when_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    class Unread(dict[str, str]):
        def items(self):
            raise AssertionError("the tags were read")

    sink = LogMetrics()
    with caplog.at_level(logging.INFO, logger="sojourn.metrics"):
        sink.increment("session.created", 1, Unread(reason="x"))
    assert not caplog.records


def test_a_figure_with_percent_signs_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="sojourn.metrics"):
        LogMetrics().increment("session.created", 1, {"reason": "100%s"})
    assert caplog.messages == ["session.created +1 reason=100%s"]


class Broken:
    """A sink that raises at every call, and counts them."""

    def __init__(self) -> None:
        self.calls = 0

    def _raise(self, *_: object) -> None:
        self.calls += 1
        raise OSError(self.calls)

    increment = timing = gauge = close = _raise


@given(works=st.lists(st.booleans(), max_size=5))
def test_f22_each_of_several_sinks_gets_every_figure_whichever_raise(works: list[bool]) -> None:
    sinks = [RecordingMetrics() if each else Broken() for each in works]
    composite = CompositeMetrics(sinks)
    for call in (
        lambda: composite.increment("session.created", 2, {"reason": "a"}),
        lambda: composite.timing("session.load_time", 0.5),
        lambda: composite.gauge("session.active_count", 3.0),
        composite.close,
    ):
        with nullcontext() if all(works) else pytest.raises(OSError, match=r"^\d$"):
            call()
    for sink in sinks:
        if isinstance(sink, Broken):
            assert sink.calls == 4
        else:
            assert sink.counts["session.created"] == 2
            assert sink.timings == {"session.load_time": [0.5]}
            assert sink.gauges == {"session.active_count": 3.0}


def test_f22_a_sink_that_raises_takes_nothing_from_the_next_and_is_counted() -> None:
    broken, recording = Broken(), RecordingMetrics()
    sessions = make_manager(metrics=CompositeMetrics([broken, recording])).blocking
    session = sessions.open(None)
    session.data.count += 1
    assert sessions.commit(session).token
    assert recording.counts["session.created"] == 1
    assert broken.calls
