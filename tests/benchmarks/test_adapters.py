"""What the benchmark of the adapters compares, and that ours do in it what they are timed at; the peers are not needed."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.adapters import is_judged, ratios_of, summary, table_of_costs, table_of_ratios
from benchmarks.suite.contract import SCENARIOS, Driver, Kind, Place
from benchmarks.suite.figures import Series
from benchmarks.suite.registry import adapters, find
from benchmarks.suite.worker import Bench, drive
from tests.servers import RedisServer

ADAPTERS = adapters()


def test_every_framework_is_measured_beside_the_sessions_it_has_without_us() -> None:
    for peer, *ours in ADAPTERS.values():
        assert peer.kind is Kind.PEER
        assert {one.kind for one in ours} == {Kind.OURS}
        assert {one.driver for one in (peer, *ours)} == {peer.driver}
        assert {one.store for one in (peer, *ours)} == {"redis"}


def test_each_scenario_of_a_framework_is_judged() -> None:
    for _, *ours in ADAPTERS.values():
        for scenario in SCENARIOS:
            assert any(is_judged(one.name, scenario) for one in ours)
    assert not is_judged("adapter-aiohttp-typed", "untouched")
    assert is_judged("adapter-flask-typed", "untouched")


def test_what_is_slower_is_named() -> None:
    measured = {}
    for name, cost in (("flask-redis", 2e-6), ("adapter-flask-typed", 3e-6)):
        measured[name, "read"] = Series({0: cost, 1: 2 * cost}, {0: 1e-6, 1: 1e-6})
    found = ratios_of({"Flask": ADAPTERS["Flask"]}, measured)
    assert {key: one.value for key, one in found.items()} == {("adapter-flask-typed", "read"): pytest.approx(1.5)}
    slower = [(*key, one) for key, one in found.items()]
    assert summary(found, slower).splitlines() == [
        "0 of 1 at most 1.00; * is judged in another line",
        "SLOWER: adapter-flask-typed, read: 1.50",
    ]
    assert "4.5" in table_of_costs("Flask", ADAPTERS["Flask"], measured)
    assert "1.50 (1.50-1.50)" in table_of_ratios(found)


@pytest.mark.parametrize(
    "name", [one.name for name, (_, *ours) in ADAPTERS.items() if name != "Django" for one in ours[:1]]
)
def test_an_adapter_does_what_it_is_timed_at(
    name: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REDIS_URL", "REDIS_TIMEOUT", "REQUEST_DEADLINE", "BREAKER_PROBE_DEADLINE"):
        monkeypatch.setenv(f"SOJOURN_{variable}", "")  # what the contender sets in its process ends with the test

    async def measure() -> None:
        bench = Bench(find(name), Place(redis_server.url))
        for scenario in SCENARIOS.values():
            await bench.measure(scenario, 4)
        if bench.pair.close is not None:
            await bench.pair.close()

    if find(name).driver is Driver.WSGI:
        drive(measure())
    else:
        asyncio.run(measure())
