"""Cost against the number of entries: the local cache and the memory store, each beside a plain dict.

The one rule: what grows with a plain dict, too, is the processor's memory and not the algorithm's fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.scaling.section import Section, growth, ratio_of
from sojourn import MemoryStore, Record
from sojourn.crypto import token_id
from sojourn.manager import run_blocking

SIZES = (1_000, 10_000, 100_000, 1_000_000)
TOUCHED = 4_000
REPEATS = 9
MOST_GROWTH = 1.3

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def local_cache(random: Random) -> Section:
    """Return hit, miss, fill and evict of the clustered store's local cache."""
    from sojourn_store_redis.local_cache.cache import LocalCache

    operations = ("hit", "miss", "fill", "evict")
    ratios: dict[str, list[float]] = {name: [] for name in operations}
    rows = [["entries", *(f"{name}, ns" for name in operations), *(f"{name} / dict" for name in operations)]]
    for size in SIZES:
        ids = [_id(number) for number in range(size + TOUCHED * (REPEATS + 1))]
        records = [_record(id_) for id_ in ids]
        cells = []
        for name in operations:
            cache = LocalCache(max_size=size if name == "evict" else 2 * len(ids), max_bytes=2**40, ttl=3600.0)
            plain: dict[str, Record] = {}
            for record in records[:size]:
                cache.put(record, 1, 0.0)
                plain[record.id] = record
            seconds, ratio = ratio_of(*_pair(name, cache, plain, ids, records, size, random), repeats=REPEATS)
            ratios[name].append(ratio)
            cells.append(f"{seconds / TOUCHED * 1e9:.0f}")
        rows.append([f"{size:,}", *cells, *(f"{ratios[name][-1]:.2f}" for name in operations)])
    section = Section("Local cache: cost of one operation by number of entries", rows)
    for name in operations:
        section.expect(f"{name}: growth of its ratio to a plain dict", growth(ratios[name]), MOST_GROWTH)
    return section


def _pair(
    name: str, cache: Any, plain: dict[str, Record], ids: list[str], records: list[Record], size: int, random: Random
) -> Pair:
    """Return one operation on the cache, and what a plain dict has to do for the same."""
    if name in {"hit", "miss"}:
        chosen = random.choices(ids[:size], k=TOUCHED) if name == "hit" else [_id(-1 - at) for at in range(TOUCHED)]

        def get() -> None:
            for id_ in chosen:
                cache.get(id_, 1.0)

        def get_plainly() -> None:
            for id_ in chosen:
                plain.get(id_)

        return get, get_plainly
    ours, theirs = iter(records[size:]), iter(records[size:])
    oldest = iter(ids)

    def put() -> None:
        for _ in range(TOUCHED):
            cache.put(next(ours), 1, 1.0)

    def put_plainly() -> None:
        for _ in range(TOUCHED):
            record = next(theirs)
            plain[record.id] = record
            if name == "evict":
                del plain[next(oldest)]

    return put, put_plainly


def memory_store(random: Random) -> Section:
    """Return load, create and evict of the memory store."""
    operations = ("load", "create", "evict")
    ratios: dict[str, list[float]] = {name: [] for name in operations}
    rows = [["sessions", *(f"{name}, ns" for name in operations), *(f"{name} / dict" for name in operations)]]
    for size in SIZES:
        cells = []
        for name in operations:
            store = MemoryStore(max_sessions=size if name == "evict" else 2 * size + TOUCHED * REPEATS)
            plain: dict[str, bytes] = {}
            for number in range(size):
                record = _record(_id(number))
                run_blocking(store.create(record, write_id=b"w" * 8))
                plain[record.id] = record.payload
            pair = _loads(store, plain, size, random) if name == "load" else _creates(store, plain, size)
            seconds, ratio = ratio_of(*pair, repeats=REPEATS)
            ratios[name].append(ratio)
            cells.append(f"{seconds / TOUCHED * 1e9:.0f}")
        rows.append([f"{size:,}", *cells, *(f"{ratios[name][-1]:.2f}" for name in operations)])
    section = Section("Memory store: cost of one operation by number of sessions", rows)
    for name in operations:
        section.expect(f"{name}: growth of its ratio to a plain dict", growth(ratios[name]), MOST_GROWTH)
    return section


def _loads(store: MemoryStore, plain: dict[str, bytes], size: int, random: Random) -> Pair:
    chosen = [_id(random.randrange(size)) for _ in range(TOUCHED)]

    def load() -> None:
        for id_ in chosen:
            run_blocking(store.load(id_))

    def load_plainly() -> None:
        for id_ in chosen:
            plain.get(id_)

    return load, load_plainly


def _creates(store: MemoryStore, plain: dict[str, bytes], size: int) -> Pair:
    records = [_record(_id(size + number)) for number in range(TOUCHED * (REPEATS + 1))]
    ours, theirs = iter(records), iter(records)

    def create() -> None:
        for _ in range(TOUCHED):
            run_blocking(store.create(next(ours), write_id=b"w" * 8))

    def create_plainly() -> None:
        for _ in range(TOUCHED):
            record = next(theirs)
            plain[record.id] = record.payload

    return create, create_plainly


def _id(number: int) -> str:
    return token_id(f"{number:043}")


def _record(id_: str) -> Record:
    now = time.time()
    return Record(id_, 1, b"p" * 64, now + 3600.0, now + 86_400.0)
