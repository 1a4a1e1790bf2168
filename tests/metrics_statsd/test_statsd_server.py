"""The real statsd server of npm reports what the sink sent."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sojourn.metrics import METRIC_NAMES
from sojourn_metrics_statsd import StatsdMetrics
from tests.metrics_statsd.agents import LOOPBACK, StatsdServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StatsdServer]:
    with StatsdServer(tmp_path) as server:
        yield server


@pytest.mark.parametrize("buffer", [False, True], ids=["direct", "buffered"])
def test_the_server_counts_every_figure_once(server: StatsdServer, buffer: bool) -> None:
    metrics = StatsdMetrics(host=LOOPBACK, port=server.port, prefix="shop", buffer=buffer)
    for number, name in enumerate(METRIC_NAMES, start=1):
        metrics.increment(name, number, {"reason": "in the name"})
    metrics.timing("session.load_time", 0.0125)
    metrics.timing("session.load_time", 1.5)
    metrics.gauge("session.active_count", 7)
    metrics.gauge("session.active_count", -3)
    metrics.increment("last")
    metrics.close()
    server.wait_for(lambda: server.counters()["shop.last"] == 1)
    counters = server.counters()
    assert {name: counters[f"shop.{name}.in_the_name"] for name in METRIC_NAMES} == {
        name: number for number, name in enumerate(METRIC_NAMES, start=1)
    }
    assert counters["statsd.bad_lines_seen"] == 0
    assert server.timers()["shop.session.load_time"] == [12.5, 1500]
    assert server.gauges()["shop.session.active_count"] == -3


def test_the_server_reads_the_tags_of_dogstatsd(server: StatsdServer) -> None:
    metrics = StatsdMetrics(host=LOOPBACK, port=server.port, dialect="dogstatsd", tags=["env:test"])
    metrics.increment("session.rejected", 2, {"reason": "unknown"})
    server.wait_for(lambda: server.counters()["session.rejected;reason=unknown;env=test"] == 2)
    assert server.counters()["statsd.bad_lines_seen"] == 0
    metrics.close()


def test_the_server_makes_up_for_what_is_sampled_out(server: StatsdServer) -> None:
    metrics = StatsdMetrics(host=LOOPBACK, port=server.port, sample_rate=0.5)
    for number in range(400):
        metrics.increment("session.loaded")
        if number % 20 == 0:
            time.sleep(0.005)  # the receive buffer of the server is small
    metrics.gauge("last", 1)
    server.wait_for(lambda: "last" in server.gauges())
    counters = server.counters()
    assert counters["session.loaded"] == 2 * (counters["statsd.metrics_received"] - 1)
    assert 200 < counters["session.loaded"] < 600
    metrics.close()


def test_a_killed_server_that_comes_back_counts_on(server: StatsdServer) -> None:
    metrics = StatsdMetrics(host=LOOPBACK, port=server.port)
    metrics.increment("first")
    server.wait_for(lambda: server.counters()["first"] == 1)
    server.process.kill()
    server.process.wait()
    for _ in range(10):
        metrics.increment("lost")
    server.output.write_text("")
    with server:

        def is_counting() -> bool:
            metrics.increment("second")
            return server.counters()["second"] > 0

        server.wait_for(is_counting)
    metrics.close()


def test_a_machine_without_node_fails_rather_than_skips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="install nodejs"):
        StatsdServer(tmp_path)
