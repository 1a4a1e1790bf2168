"""The local cache against a list, and its bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sojourn.stores import Record
from sojourn_store_redis.local_cache.cache import ENTRY_BYTES, Entry, LocalCache

IDS = st.sampled_from("abcdef")
TTL = 10.0


def _record(id: str, version: int = 1, size: int = 0) -> Record:
    return Record(id, version, b"x" * size, 1e12, 1e12)


class CacheMachine(RuleBasedStateMachine):
    """The model is a list of ids, the least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = LocalCache(max_size=4, max_bytes=4 * ENTRY_BYTES + 100, ttl=TTL)
        self.model: list[tuple[str, int, int, float]] = []
        self.now = 0.0
        self.evicted = 0

    @rule(id=IDS, version=st.integers(1, 9), size=st.sampled_from([0, 10, 60, 100, 10_000]))
    def put(self, id: str, version: int, size: int) -> None:
        self.cache.put(_record(id, version, size), 7, self.now)
        self.model = [entry for entry in self.model if entry[0] != id]
        if size <= self.cache.max_bytes - ENTRY_BYTES:
            self.model.append((id, version, size, self.now + TTL))
        while len(self.model) > 4 or sum(entry[2] + ENTRY_BYTES for entry in self.model) > self.cache.max_bytes:
            del self.model[0]
            self.evicted += 1

    @rule(id=IDS)
    def get(self, id: str) -> None:
        entry = self.cache.get(id, self.now)
        found = next((known for known in self.model if known[0] == id), None)
        if found is not None:
            self.model.remove(found)
        if found is None or self.now >= found[3]:
            assert entry is None
        else:
            self.model.append(found)
            assert entry is not None
            assert (entry.record.version, entry.epoch, entry.until) == (found[1], 7, found[3])

    @rule(id=IDS)
    def drop(self, id: str) -> None:
        self.cache.drop(id)
        self.model = [entry for entry in self.model if entry[0] != id]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(seconds=st.sampled_from([1.0, 5.0, TTL]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def size_bytes_and_evictions_are_counted(self) -> None:
        assert len(self.cache) == len(self.model)
        assert self.cache.bytes == sum(entry[2] + ENTRY_BYTES for entry in self.model)
        assert self.cache.evictions == self.evicted


TestCache = CacheMachine.TestCase


@given(size=st.integers(-1, 0))
def test_a_cache_without_room_keeps_nothing(size: int) -> None:
    cache = LocalCache(max_size=size, max_bytes=10_000, ttl=TTL)
    cache.put(_record("a"), 1, 0.0)
    assert cache.get("a", 0.0) is None
    assert len(cache) == cache.bytes == 0


def test_looking_without_using_does_not_keep_a_copy_alive() -> None:
    cache = LocalCache(max_size=2, max_bytes=10_000, ttl=TTL)
    cache.put(_record("a"), 1, 0.0)
    cache.put(_record("b"), 1, 0.0)
    assert isinstance(cache.peek("a"), Entry)
    cache.put(_record("c"), 1, 0.0)
    assert cache.peek("a") is None


@pytest.mark.parametrize("action", ["hit", "miss", "fill", "evict"])
def test_the_steps_of_an_operation_do_not_grow_with_the_size(action: str) -> None:
    """Count the lines that run, which no other program on the machine can disturb."""
    assert _lines(action, 10) == _lines(action, 5_000)


def _lines(action: str, size: int) -> int:
    import gc
    import sys

    cache = LocalCache(max_size=size, max_bytes=10**9, ttl=TTL)
    full = size if action == "evict" else size - 1
    for number in range(full):
        cache.put(_record(str(number)), 1, 0.0)
    work: dict[str, Callable[[], object]] = {
        "hit": lambda: cache.get("3", 0.0),
        "miss": lambda: cache.get("other", 0.0),
        "fill": lambda: cache.put(_record("other"), 1, 0.0),
        "evict": lambda: cache.put(_record("other"), 1, 0.0),
    }
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # what others do when it collects is not to be counted
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work[action]()
    finally:
        sys.settrace(before)
        gc.enable()
    return count
