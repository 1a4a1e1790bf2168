"""What travels: one line of statsd or DogStatsD for each figure, and nothing else."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from datadog.dogstatsd import base
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn.metrics import METRIC_NAMES, Metrics
from sojourn_metrics_statsd import StatsdMetrics
from tests.metrics_statsd.agents import Agent


@pytest.fixture(params=["udp", "unix"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    with Agent.udp() if request.param == "udp" else Agent.unix(tmp_path / "agent") as agent:
        yield agent


def sink(agent: Agent, **settings) -> StatsdMetrics:
    address = agent.socket.getsockname()
    if isinstance(address, str):
        return StatsdMetrics(socket_path=address, **settings)
    return StatsdMetrics(host=address[0], port=address[1], **settings)


def test_it_is_a_sink_of_metrics(agent: Agent) -> None:
    assert isinstance(sink(agent), Metrics)


def test_counts_durations_and_levels_are_lines_of_statsd(agent: Agent) -> None:
    metrics = sink(agent)
    metrics.increment("session.created")
    metrics.increment("session.created", 3)
    metrics.timing("session.load_time", 0.0123456)
    metrics.timing("session.load_time", 2)
    metrics.gauge("session.active_count", 17)
    metrics.gauge("session.active_count", 0.25)
    assert [agent.datagram() for _ in range(6)] == [
        "session.created:1|c\n",
        "session.created:3|c\n",
        "session.load_time:12.346|ms\n",
        "session.load_time:2000|ms\n",
        "session.active_count:17|g\n",
        "session.active_count:0.25|g\n",
    ]
    metrics.close()


def test_plain_statsd_gets_what_tags_say_as_part_of_the_name(agent: Agent) -> None:
    metrics = sink(agent)
    metrics.increment("session.rejected", tags={"reason": "unknown"})
    metrics.timing("session.failure_time", 0.5, {"operation": "load", "kind": "breaker open"})
    metrics.gauge("session.circuit_breaker.state", 1, {"calls": "read", "server": "10.0.0.1:6379"})
    metrics.gauge("session.circuit_breaker.state", 1, {})
    assert [agent.datagram() for _ in range(4)] == [
        "session.rejected.unknown:1|c\n",
        "session.failure_time.load.breaker_open:500|ms\n",
        "session.circuit_breaker.state.read.10_0_0_1_6379:1|g\n",
        "session.circuit_breaker.state:1|g\n",
    ]
    metrics.close()


def test_dogstatsd_gets_tags_and_constant_tags(agent: Agent) -> None:
    metrics = sink(agent, dialect="dogstatsd", tags=["service:shop", "blue"])
    metrics.increment("session.rejected", tags={"reason": "unknown", "node": "a"})
    metrics.timing("session.store_time", 0.001, {"operation": "load"})
    metrics.gauge("session.active_count", -2)
    assert [agent.datagram() for _ in range(3)] == [
        "session.rejected:1|c|#reason:unknown,node:a,service:shop,blue\n",
        "session.store_time:1|ms|#operation:load,service:shop,blue\n",
        "session.active_count:-2|g|#service:shop,blue\n",
    ]
    metrics.close()


def test_the_prefix_stands_before_every_name(agent: Agent) -> None:
    metrics = sink(agent, prefix="shop.eu-1")
    metrics.increment("session.created")
    assert agent.datagram() == "shop.eu-1.session.created:1|c\n"
    metrics.close()


def test_every_name_of_sojourn_travels_unchanged(agent: Agent) -> None:
    metrics = sink(agent)
    for name in METRIC_NAMES:
        metrics.increment(name)
        assert agent.datagram() == f"{name}:1|c\n"
    metrics.close()


def test_a_level_below_zero_is_set_in_two_steps_for_plain_statsd(agent: Agent) -> None:
    metrics = sink(agent)
    metrics.gauge("level", -2)
    assert agent.lines(2) == ["level:0|g", "level:-2|g"]
    metrics.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_dropped(agent: Agent, value: float) -> None:
    metrics = sink(agent)
    metrics.gauge("level", value)
    metrics.timing("duration", value)
    metrics.increment("after")
    assert agent.datagram() == "after:1|c\n"
    metrics.close()


def test_the_sample_rate_concerns_counts_and_durations_only(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = sink(agent, sample_rate=0.5)
    draws = iter([0.4, 0.6, 0.4, 0.6])
    monkeypatch.setattr(base, "random", lambda: next(draws))
    for _ in range(2):
        metrics.increment("count")
    for _ in range(2):
        metrics.timing("duration", 1)
    for _ in range(2):
        metrics.gauge("level", 1)
    assert agent.lines(4) == ["count:1|c|@0.5", "duration:1000|ms|@0.5", "level:1|g", "level:1|g"]
    assert agent.is_silent()
    metrics.close()


def test_the_environment_of_datadog_adds_nothing_to_plain_statsd(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DD_ENV", "DD_SERVICE", "DD_VERSION", "DD_ENTITY_ID", "DATADOG_TAGS", "DD_EXTERNAL_ENV"):
        monkeypatch.setenv(name, "from-environment")
    monkeypatch.setenv("DD_AGENT_HOST", "192.0.2.1")
    monkeypatch.setenv("DD_DOGSTATSD_PORT", "1")
    monkeypatch.setenv("DD_DOGSTATSD_URL", "udp://192.0.2.1:1")
    plain = sink(agent)
    plain.increment("count")
    assert agent.datagram() == "count:1|c\n"
    plain.close()
    tagged = sink(agent, dialect="dogstatsd")
    tagged.increment("count")
    assert "env:from-environment" in agent.datagram()
    tagged.close()


def test_the_client_sends_no_figures_of_its_own(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = sink(agent, dialect="dogstatsd")
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    metrics.increment("count")
    assert agent.datagram() == "count:1|c\n"
    assert agent.is_silent()
    metrics.close()


LINE = re.compile(r"[A-Za-z0-9_.\-]*:1\|c(\|#[\w\-:/.,]+)?\n")
tag_texts = st.text(max_size=20)


@given(name=st.text(max_size=30), tags=st.dictionaries(tag_texts, tag_texts, max_size=3))
@example(name="count:1|c\nother", tags={"reason": "a|b\nother:1|c", "x": "y,z#|@0.1"})
def test_no_name_or_tag_can_forge_a_line_or_a_field(name: str, tags: dict[str, str]) -> None:
    with Agent.udp() as agent:
        tagged, plain = sink(agent, dialect="dogstatsd"), sink(agent)
        tagged.increment(name, tags=tags)
        line = agent.datagram()
        assert LINE.fullmatch(line)
        assert line.count(",") == max(len(tags) - 1, 0)
        plain.increment(name, tags=tags)
        line = agent.datagram()
        assert LINE.fullmatch(line)
        assert line.count(".") == name.count(".") + len(tags)
        tagged.close()
        plain.close()


def test_buffered_figures_share_a_datagram_of_bounded_size(agent: Agent) -> None:
    metrics = sink(agent, buffer=True)
    for number in range(200):
        metrics.increment(f"count.{number}")
    metrics.close()
    datagrams = []
    lines: list[str] = []
    while len(lines) < 200:
        datagrams.append(agent.datagram())
        lines += datagrams[-1].splitlines()
    assert lines == [f"count.{number}:1|c" for number in range(200)]
    assert len(datagrams) < 20
    assert all(len(datagram) <= 8193 for datagram in datagrams)
    if isinstance(agent.socket.getsockname(), tuple):
        assert all(len(datagram) <= 1433 for datagram in datagrams)


def test_a_buffered_figure_leaves_by_itself(agent: Agent) -> None:
    metrics = sink(agent, buffer=True)
    metrics.increment("count")
    assert agent.datagram() == "count:1|c\n"
    metrics.close()
