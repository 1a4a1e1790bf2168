"""The benchmarks' own arithmetic and checks; the peers themselves are not needed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import breaker, instructions
from benchmarks.peers import PARTS
from benchmarks.scaling.section import Section, growth
from benchmarks.suite import page
from benchmarks.suite.callgrind import Valgrind, count_requests
from benchmarks.suite.checks import NotDoneError, check, check_hits
from benchmarks.suite.contract import SCENARIOS, Contender, Place
from benchmarks.suite.figures import Series, quartiles, ratio
from benchmarks.suite.payload import FIRST_VISITS, USER_ID, Account, Witness, fill, plain_values
from benchmarks.suite.plot import draw
from benchmarks.suite.registry import STORES, contenders, find
from benchmarks.suite.report import as_json, columns, summary, table_of_costs, table_of_verdicts
from benchmarks.suite.rounds import ROOT
from benchmarks.suite.targets import OF_THE_BEST_PEER, is_judged, peers_of
from benchmarks.suite.verdicts import judge
from benchmarks.suite.worker import Bench

COSTS = st.floats(min_value=1e-6, max_value=1e-3)


def series(costs: dict[int, float], baseline: float = 1e-6) -> Series:
    made = Series()
    for number, cost in costs.items():
        made.add(number, cost, baseline)
    return made


def witness(*, users: int = 0, visits: int = 0) -> Witness:
    made = Witness()
    made.users, made.visits = users, visits
    return made


@given(st.lists(COSTS, min_size=1, max_size=9), st.floats(min_value=0.1, max_value=10.0))
def test_a_machine_that_slows_down_from_round_to_round_changes_no_ratio(costs: list[float], factor: float) -> None:
    theirs = series(dict(enumerate(costs)))
    ours = series({number: cost * factor for number, cost in enumerate(costs)})
    found = ratio(ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(factor)
    assert found.low == pytest.approx(factor)
    assert found.high == pytest.approx(factor)


def test_only_rounds_that_both_took_part_in_count() -> None:
    found = ratio(series({0: 1e-3, 1: 4e-6, 2: 9e-3}), series({1: 2e-6, 3: 1e-9}))
    assert found is not None
    assert str(found) == "2.00"


def test_a_cost_that_is_lost_in_the_noise_divides_nothing() -> None:
    assert ratio(series({0: 1e-6}), series({0: 1e-9})) is None
    assert ratio(series({0: 1e-6}), series({0: -1e-6})) is None


def test_quartiles_stand_around_the_median() -> None:
    assert quartiles([1.0, 2.0, 3.0]) == (1.0, 3.0)
    assert quartiles([5.0]) == (5.0, 5.0)


def test_the_whole_request_is_the_session_and_the_application() -> None:
    assert series({0: 2e-6, 1: 4e-6}, baseline=1e-6).whole == pytest.approx(4e-6)


def test_the_payload_has_the_size_that_the_page_names() -> None:
    import msgspec

    account = Account()
    fill(account)
    assert len(msgspec.json.encode(account)) == len(msgspec.json.encode(plain_values())) == 386
    assert len(account.api_token) == 43


@pytest.mark.parametrize(
    ("name", "scenario", "after", "cookies"),
    [
        ("starsessions-redis", "read", witness(users=USER_ID * 9), []),
        ("starsessions-redis", "write", witness(visits=FIRST_VISITS + 10), []),
        ("starsessions-redis", "create", witness(), ["a"] * 10),
        ("sojourn-cookie-asgi", "create", witness(), ["a"] * 10),
        ("sojourn-redis-asgi", "untouched", witness(), ["a"]),
        ("starlette-cookie", "create", witness(), ["a"] * 9),
    ],
)
def test_work_that_was_not_done_is_an_error(name: str, scenario: str, after: Witness, cookies: list[str]) -> None:
    with pytest.raises(NotDoneError, match=f"{name}, {scenario}"):
        check(find(name), SCENARIOS[scenario], 10, witness(), after, cookies)


def test_work_that_was_done_is_none() -> None:
    check(find("starsessions-redis"), SCENARIOS["read"], 10, witness(), witness(users=USER_ID * 10), [])
    check(find("flask-redis"), SCENARIOS["write"], 10, witness(), witness(visits=FIRST_VISITS + 11), [])
    check(find("starlette-cookie"), SCENARIOS["create"], 10, witness(), witness(), ["a"] * 10)


def test_reads_that_went_to_the_server_are_no_local_hits() -> None:
    ours = find("sojourn-clustered-redis-asgi")
    check_hits(ours, 100, 99)
    with pytest.raises(NotDoneError, match="90 of 100"):
        check_hits(ours, 100, 90)


def test_every_contender_has_a_name_of_its_own_and_every_store_a_target() -> None:
    everybody = contenders(clustered=True)
    assert len({one.name for one in everybody}) == len(everybody)
    assert {one.store for one in everybody} == set(OF_THE_BEST_PEER)


def test_wsgi_is_held_against_wsgi_and_asgi_against_everybody() -> None:
    everybody = contenders(clustered=True)
    wsgi = peers_of(find("sojourn-redis-wsgi"), everybody)
    asgi = peers_of(find("sojourn-clustered-redis-asgi"), everybody)
    assert {one.name for one in wsgi} == {"flask-redis", "django-redis"}
    assert {one.name for one in asgi} > {one.name for one in wsgi}


def test_untouched_requests_on_redis_are_judged_when_lazy() -> None:
    assert is_judged(find("sojourn-redis-lazy"), "untouched")
    assert not is_judged(find("sojourn-redis-lazy"), "read")
    assert is_judged(find("sojourn-redis-asgi"), "read")
    assert not is_judged(find("sojourn-redis-asgi"), "untouched")


def measured() -> tuple[list[Contender], dict[tuple[str, str], Series]]:
    everybody = [find(name) for name in ("floor-memory-asgi", "starsessions-memory", "sojourn-memory-asgi")]
    costs = {"floor-memory-asgi": 6e-6, "starsessions-memory": 60e-6, "sojourn-memory-asgi": 30e-6}
    return everybody, {(name, "read"): series({0: cost, 1: cost}) for name, cost in costs.items()}


def test_a_verdict_holds_ours_against_the_best_peer_and_the_floor() -> None:
    everybody, found = measured()
    (verdict,) = judge(everybody, found)
    assert verdict.peer is not None
    assert verdict.floor is not None
    assert (verdict.peer.to, verdict.peer.ratio.value, verdict.peer.is_met) == ("starsessions", 0.5, False)
    assert (verdict.floor.ratio.value, verdict.floor.is_met) == (5.0, None)
    assert summary([verdict]) == "0 of 1 targets met, 1 missed"


def test_a_sealed_cookie_is_also_held_against_the_best_peer_that_encrypts() -> None:
    everybody = [
        find(name) for name in ("starlette-cookie", "litestar-cookie", "aiohttp-cookie", "sojourn-cookie-asgi")
    ]
    costs = (40e-6, 180e-6, 90e-6, 30e-6)
    found = {(one.name, "read"): series({0: cost, 1: cost}) for one, cost in zip(everybody, costs, strict=True)}
    (verdict,) = judge(everybody, found)
    assert verdict.peer is not None
    assert verdict.equal is not None
    assert (verdict.peer.to, verdict.peer.is_met) == ("Starlette, signed", True)
    assert (verdict.equal.to, verdict.equal.is_met) == ("aiohttp-session, Fernet", False)
    assert summary([verdict]) == "1 of 2 targets met, 1 missed"


def test_tables_and_figures_show_everybody() -> None:
    everybody, found = measured()
    verdicts = judge(everybody, found)
    for text in (
        table_of_costs(everybody, found),
        page.peers(everybody, found, verdicts, "x"),
        draw(everybody, found)["memory"],
    ):
        assert all(one.label in text for one in everybody)
    assert "MISSED" in table_of_verdicts(verdicts)
    assert [one["microseconds"] for one in as_json(everybody, found, verdicts)["costs"]] == [6.0, 60.0, 30.0]


def test_the_page_is_filled_between_its_markers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- scale: written by ./dev bench -->\nold\n<!-- scale: end -->\nafter\n")
    monkeypatch.setattr(page, "PAGE", path)
    page.fill("scale", r"new \1")
    assert path.read_text() == (
        "before\n<!-- scale: written by ./dev bench -->\n\nnew \\1\n\n<!-- scale: end -->\nafter\n"
    )
    with pytest.raises(RuntimeError, match="markers for 'peers'"):
        page.fill("peers", "text")


@pytest.mark.parametrize("name", [*PARTS, "scale", "startup", "http_load"])
def test_the_real_page_has_a_place_for_every_part(name: str) -> None:
    text = page.PAGE.read_text()
    assert text.count(f"<!-- {name}: written by ./dev bench -->") == text.count(f"<!-- {name}: end -->") == 1


def test_every_store_stands_in_one_part_of_the_page() -> None:
    assert sorted(store for stores in PARTS.values() for store in stores) == sorted(STORES)


def test_a_section_counts_what_it_missed() -> None:
    section = Section("title", [["a", "b"], ["1", "22"]])
    section.expect("growth", growth([2.0, 1.0, 3.0]), 1.3)
    section.expect("bytes", 350.0, 350.0)
    assert section.missed == 1
    assert "growth: 1.50, target <= 1.3: MISSED" in str(section)
    assert "bytes: 350.00, target <= 350: met" in str(section)


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([["name", "us"], ["a", "100.0"]]) == "name     us\na     100.0"


@pytest.mark.parametrize("share", breaker.FAILURES)
def test_the_breaker_is_measured_while_it_is_closed(share: float) -> None:
    costs = breaker.measure(seed=1, rounds=3, share=share, calls=500)
    assert len(costs) == 3
    assert all(cost >= 0 for cost in costs)


def test_a_fair_floor_stands_beside_every_bare_one() -> None:
    everybody = {one.name for one in contenders(clustered=False)}
    assert {f"{kind}-{store}-asgi" for kind in ("floor", "fair") for store in instructions.STORES} <= everybody


def test_ours_is_held_against_the_fair_floor_of_its_store() -> None:
    counts = {
        "fair-memory-asgi": {"read": (100.0, 102.0)},
        "sojourn-memory-asgi": {"read": (150.0, 153.0), "write": (200.0, 200.0)},
        "sojourn-cookie-asgi": {"read": (90.0, 90.0)},
    }
    assert instructions.ratios(counts) == {"sojourn-memory-asgi": {"read": 1.5}, "sojourn-cookie-asgi": {}}


def test_words_choose_stores_scenarios_and_contenders() -> None:
    everybody, scenarios = instructions.chosen("memory,read,fair")
    assert ([one.name for one in everybody], scenarios) == (["fair-memory-asgi"], ["read"])
    with pytest.raises(SystemExit, match="chooses nobody"):
        instructions.chosen("nobody")


VALGRIND = """#!/bin/sh
[ "$1" = --tool=callgrind ] || exit 3
for scenario in read write; do
    echo "{\\"scenario\\": \\"$scenario\\", \\"with\\": [9000.0, 9010.0], \\"without\\": [1000.0, 1000.0]}"
done
"""


@pytest.mark.server
def test_one_command_gives_the_table_of_instructions(tmp_path: Path) -> None:
    (tmp_path / "valgrind").write_text(VALGRIND)
    (tmp_path / "valgrind").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "instructions", "--only", "memory", "--json"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["instructions"]["fair-memory-asgi"]["read"] == [8000.0, 8010.0]
    assert found["of_the_fair_floor"]["sojourn-memory-asgi"] == {"read": 1.0, "write": 1.0}
    assert "4 of 4" in done.stderr


def test_only_the_requests_are_counted(tmp_path: Path) -> None:
    begun: list[int] = []

    class Counter(Valgrind):
        def begin(self) -> None:
            begun.append(bench.witness.users)

        def count(self) -> int:
            super().ask(0x43540001)  # outside of valgrind a client request does nothing
            return (bench.witness.users - begun[-1]) // USER_ID

    bench = Bench(find("fair-memory-asgi"), Place(""))
    counted = asyncio.run(count_requests(Counter(str(tmp_path)), bench, "read", SCENARIOS["read"], 5))
    assert counted == {"scenario": "read", "with": [1.0, 1.0], "without": [0.0, 0.0]}
