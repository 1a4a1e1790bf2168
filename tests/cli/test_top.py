"""``sojourn top`` over endpoints that say what the exporter of OpenTelemetry for Prometheus writes."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn_cli import main
from sojourn_cli.top import Scrape, add_up, figures, quantile, read_samples, since

Output = pytest.CaptureFixture[str]

SCOPE = 'otel_scope_name="sojourn_metrics_opentelemetry",otel_scope_version="0.1.0"'


def page(*, loaded: float, unknown: float = 0.0, slow: float = 0.0, state: float = 0.0) -> str:
    """Return what a process says of itself; *slow* loads took between 25 and 50 ms, the others less than 0.5 ms."""
    duration, load = "sojourn_store_operation_duration_seconds", f'{SCOPE},sojourn_operation="load"'
    return f"""\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{{implementation="CPython",major="3"}} 1.0
# TYPE sojourn_session_loaded_total counter
sojourn_session_loaded_total{{{SCOPE}}} {loaded}
sojourn_session_rejected_total{{{SCOPE},sojourn_reason="unknown"}} {unknown}
sojourn_store_error_total{{{SCOPE},sojourn_operation="load",error_type="time\\\\out"}} 2.0
# TYPE {duration} histogram
{duration}_bucket{{le="0.0005",{load}}} {loaded - slow}
{duration}_bucket{{le="0.025",{load}}} {loaded - slow}
{duration}_bucket{{le="0.05",{load}}} {loaded}
{duration}_bucket{{le="+Inf",{load}}} {loaded}
{duration}_count{{{load}}} {loaded}
{duration}_sum{{{load}}} 0.1
sojourn_circuit_breaker_state{{{SCOPE},sojourn_calls="read"}} {state}
sojourn_circuit_breaker_state{{{SCOPE},sojourn_calls="read",sojourn_server="10.0.0.1:6379"}} 0.0
sojourn_link_down{{{SCOPE}}} 0.0
sojourn_nonsense not a number
"""


class Fleet:
    """Processes that answer on loopback."""

    def __init__(self, *pages: str) -> None:
        self.pages = list(pages)
        self.asked = 0
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fleet.asked += 1
                body = fleet.pages[int(self.path.rpartition("/")[2])].encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                del format, arguments

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.server.server_port}/{number}" for number in range(len(self.pages))]

    def options(self) -> list[str]:
        return [word for url in self.urls for word in ("--url", url)]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet(page(loaded=100, unknown=3), page(loaded=100, slow=10, state=1))
    yield fleet
    fleet.server.shutdown()
    fleet.server.server_close()


def test_what_a_fleet_has_done_is_added_up(fleet: Fleet, capsys: Output) -> None:
    assert main(["top", "--once", "--json", *fleet.options()]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sessions"] == {"loaded": 200, "rejected unknown": 3}
    assert told["calls"]["load"] == {"number": 200, "p50": 0.263, "p95": 0.5, "p99": 45.0}
    assert told["errors"] == {"load time\\out": 4}
    assert told["breakers"] == {
        "read": {"state": "open", "processes": 1},
        "read 10.0.0.1:6379": {"state": "closed", "processes": 0},
    }
    assert (told["links_down"], told["down"], told["seconds"]) == (0, {}, None)


def test_one_look_is_shown_as_tables(fleet: Fleet, capsys: Output) -> None:
    nobody = "http://127.0.0.1:1/metrics"
    assert main(["top", "--once", *fleet.options(), "--url", nobody]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["loaded", "200"] in lines
    assert ["load", "200", "0.26", "0.50", "45.00"] in lines
    assert ["read", "open", "1"] in lines
    assert [line[0] for line in lines if line and line[0].startswith("http")] == [nobody]


def test_a_fleet_of_which_nobody_answers_is_an_error(capsys: Output) -> None:
    assert main(["top", "--once", "--url", "http://127.0.0.1:1/metrics"]) == 1
    assert "DOES NOT ANSWER" in capsys.readouterr().out
    assert main(["top", "--once", "--url", "file:///etc/passwd"]) == 2
    assert "is no http:// or https:// URL" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_is_done_now_is_shown_until_it_is_interrupted(
    form: list[str], fleet: Fleet, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(seconds: float) -> None:
        assert seconds == 0.5
        if fleet.asked > 2 * len(fleet.pages):
            raise KeyboardInterrupt
        fleet.pages[0] = page(loaded=150, unknown=3)

    monkeypatch.setattr(time, "sleep", wait)
    assert main(["top", "--interval", "0.5", *form, *fleet.options()]) == 130
    output = capsys.readouterr().out
    if form:
        first, second = map(json.loads, output.splitlines())
        assert (first["sessions"]["loaded"], second["sessions"]["loaded"]) == (50, 0)
        assert second["seconds"] > 0


def at(moment: float, text: str) -> Scrape:
    samples, not_closed = add_up([read_samples(text)])
    return Scrape(moment, samples, not_closed, {})


def test_figures_are_those_between_two_looks() -> None:
    told = figures(at(10.0, page(loaded=100)), at(12.0, page(loaded=130, slow=30)))
    assert told.seconds == 2.0
    assert told.sessions["loaded"] == 30.0
    assert told.calls["load"].p50 == 37.5


def test_a_process_that_began_anew_counts_from_nothing() -> None:
    assert since(read_samples(page(loaded=100)), read_samples(page(loaded=7)))[
        next(key for key in read_samples(page(loaded=7)) if key[0] == "sojourn_session_loaded_total")
    ] == pytest.approx(7.0)


@given(st.text())
def test_any_page_can_be_read(text: str) -> None:
    for name, _ in read_samples(text):
        assert name.startswith("sojourn_")


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_a_quantile_lies_between_the_bounds_of_its_bucket(counts: list[float], share: float) -> None:
    bounds = [0.1 * (number + 1) for number in range(len(counts) - 1)] + [math.inf]
    total = 0.0
    buckets: dict[float, float] = {}
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets[bound] = total
    found = quantile(share, buckets)
    if total == 0:
        assert found is None
        return
    assert found is not None
    first = next(bound for bound in bounds if buckets[bound] >= share * total)
    below = max((bound for bound in bounds if bound < first), default=0.0)
    assert below <= found <= (first if first != math.inf else below)
