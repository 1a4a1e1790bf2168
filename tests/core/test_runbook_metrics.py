"""The figures by which somebody on call finds out what is the matter, and that nobody pays for them who wants none."""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from types import FrameType
from typing import Any

import pytest

from sojourn import MemoryStore, events, metrics
from sojourn.errors import SessionUnavailableError, StoreTimeoutError
from sojourn.events import LEVELS_EVERY
from sojourn.manager import run_blocking
from sojourn.stores import Record, StoreIO
from sojourn.testing import FakeClock, RecordingMetrics, make_id
from sojourn_store_cookie import CookieStore
from tests.core.models import make_manager

KEPT = make_id("kept")


class Server(MemoryStore):
    """A store that waits, and that takes *seconds* and is down at will."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.io = StoreIO.BLOCKING
        self.is_down = False
        self.seconds = 0.0
        self.clock = clock
        self.figures: dict[str, float] | None = None

    async def load(self, id: str) -> Record | None:
        self.clock.advance(self.seconds)
        if self.is_down:
            raise StoreTimeoutError("no answer")
        return await super().load(id)


class CopyingServer(Server):
    """The same with a local cache, as far as its figures go."""

    async def load_fresh(self, id: str) -> Record | None:
        return await self.load(id)

    def cache_stats(self) -> dict[str, float]:
        if self.figures is None:
            raise RuntimeError("no figures")
        return self.figures

    async def evict(self, id: str) -> None:
        """Drop nothing."""


class Bench:
    """A manager over such a store, and the figures that it sent."""

    def __init__(self, kind: type[Server] = Server, **settings: Any) -> None:
        self.clock = FakeClock()
        self.store = kind(self.clock)
        self.sink = RecordingMetrics()
        values = {"breaker": True, "breaker_minimum_calls": 2, "retry_attempts": 0, **settings}
        self.manager = make_manager(self.store, clock=self.clock, metrics=self.sink, settings=values)

    def load(self) -> None:
        run_blocking(self.manager.engine.store.load(KEPT))

    def fail(self) -> None:
        with pytest.raises(SessionUnavailableError):
            self.load()

    def sent(self, name: str) -> list[tuple[float, Any]]:
        """Return the figures of *name* that were sent since the last look, with their tags."""
        found = [(figure, dict(tags or {})) for each, figure, tags in self.sink.calls if each == name]
        self.sink.clear()
        return found


def test_the_state_of_the_breakers_is_sent_again_and_again_while_it_lasts() -> None:
    bench = Bench(breaker_open_for=1000)
    closed = [(0, {"calls": "read"}), (0, {"calls": "write"})]
    bench.load()
    assert bench.sent(metrics.BREAKER_STATE) == closed
    bench.load()
    assert bench.sent(metrics.BREAKER_STATE) == []
    bench.store.is_down = True
    for _ in range(2):
        bench.fail()
    assert bench.sent(metrics.BREAKER_STATE) == [(1, {"calls": "read"})]
    for _ in range(3):
        bench.clock.advance(LEVELS_EVERY)
        bench.fail()
        bench.fail()
        assert bench.sent(metrics.BREAKER_STATE) == [(1, {"calls": "read"}), closed[1]]


def test_levels_name_the_process_where_the_settings_do() -> None:
    bench = Bench(node_id="web-3")
    bench.load()
    assert bench.sent(metrics.BREAKER_STATE) == [
        (0, {"calls": "read", "node": "web-3"}),
        (0, {"calls": "write", "node": "web-3"}),
    ]


def test_calls_that_failed_and_calls_that_were_refused_are_timed_and_counted_apart() -> None:
    bench = Bench(breaker_open_for=1000, breaker_minimum_calls=3)
    bench.load()
    bench.store.is_down, bench.store.seconds = True, 0.25
    for _ in range(3):
        bench.fail()
    slow, refused = {"operation": "load", "kind": "timeout"}, {"operation": "load", "kind": "breaker open"}
    figures = [(figure, tags) for name, figure, tags in bench.sink.calls if name == metrics.FAILURE_TIME]
    assert figures == [(pytest.approx(0.25), slow), (pytest.approx(0.25), slow), (0.0, refused)]
    assert [tags for _, tags in bench.sent(metrics.ERROR)] == [slow, slow, refused]
    assert len(bench.sent(metrics.LOAD_TIME)) == 0


def test_a_call_that_failed_is_timed_once_with_all_of_its_tries() -> None:
    bench = Bench(retry_attempts=2, breaker=False)
    bench.store.is_down, bench.store.seconds = True, 0.5
    bench.fail()
    assert len([name for name, _, _ in bench.sink.calls if name == metrics.ERROR]) == 3
    ((seconds, _),) = bench.sent(metrics.FAILURE_TIME)
    assert seconds >= 1.5


def test_a_store_in_memory_tells_how_many_sessions_it_holds() -> None:
    sink = RecordingMetrics()
    clock = FakeClock()
    manager = make_manager(MemoryStore(clock=clock), clock=clock, metrics=sink).blocking
    for number in range(3):
        session = manager.open(None)
        session.data.count = number + 1
        manager.commit(session)
        clock.advance(LEVELS_EVERY)
    assert [figure for name, figure, _ in sink.calls if name == metrics.ACTIVE_COUNT] == [1, 2, 3]


def test_a_revocation_index_does_not_pass_for_the_sessions() -> None:
    clock, sink = FakeClock(), RecordingMetrics()
    manager = make_manager(
        CookieStore(), clock=clock, metrics=sink, revocation_store=Server(clock), settings={"breaker": True}
    ).blocking
    session = manager.open(None)
    session.login("ada")
    token = manager.commit(session).token
    assert manager.open(token).principal == "ada"
    assert metrics.ACTIVE_COUNT not in sink.gauges
    assert {tags["calls"] for name, _, tags in sink.calls if name == metrics.BREAKER_STATE if tags} == {
        "revocations_read",
        "revocations_write",
    }


def test_hits_and_size_of_the_local_cache_are_sent_as_they_grow() -> None:
    bench = Bench(CopyingServer)
    bench.store.figures = {"hits": 5, "misses": 2, "bypasses": 1, "size": 4, "bytes": 4_000}
    bench.load()
    assert (bench.sink.counts[metrics.CACHE_HITS], bench.sink.counts[metrics.CACHE_MISSES]) == (5, 3)
    bench.store.figures = {"hits": 7, "misses": 2, "bypasses": 4, "size": 3, "bytes": 3_000}
    bench.load()
    assert bench.sink.counts[metrics.CACHE_HITS] == 5
    bench.clock.advance(LEVELS_EVERY)
    bench.load()
    assert (bench.sink.counts[metrics.CACHE_HITS], bench.sink.counts[metrics.CACHE_MISSES]) == (7, 6)
    assert (bench.sink.gauges[metrics.CACHE_SIZE], bench.sink.gauges[metrics.CACHE_BYTES]) == (3, 3_000)


def test_f22_a_store_that_cannot_tell_its_figures_breaks_no_call(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(CopyingServer)
    bench.load()
    assert bench.manager.engine.events.dropped == 1
    assert "asked for its figures" in caplog.text


@pytest.mark.parametrize(("size", "told"), [(10, "1k"), (3_000, "4k"), (15_000, "16k"), (300_000, "more")])
def test_payloads_are_counted_by_size_before_and_after_they_were_compressed(size: int, told: str) -> None:
    sink = RecordingMetrics()
    manager = make_manager(Server(FakeClock()), metrics=sink, settings={"compress": True}).blocking
    session = manager.open(None)
    session.data.note = "a" * size
    manager.commit(session)
    assert [tags for name, _, tags in sink.calls if name == metrics.PAYLOADS] == [{"size": told}]
    plain, stored = sink.counts[metrics.PAYLOAD_BYTES], sink.counts[metrics.PAYLOAD_STORED]
    assert size <= plain <= size + 500
    if size > 1_000:
        assert stored < len(zlib.compress(b"a" * size)) + 500 < plain


def test_without_a_sink_nothing_is_worked_out_for_it() -> None:
    """Counted are the calls of what would send: reading and writing make none."""
    manager = make_manager(Server(FakeClock()), settings={"breaker": True}).blocking
    session = manager.open(None)
    session.data.count = 1
    token = manager.commit(session).token
    made = Counter[str]()

    def note(frame: FrameType, what: str, _: object) -> None:
        if what == "call" and frame.f_code.co_filename == events.__file__:
            made[frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        session = manager.open(token)
        session.data.count += 1
        manager.commit(session)
    finally:
        sys.setprofile(None)
    assert made == {}
