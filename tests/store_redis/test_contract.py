"""Every sentence of the contract, over each kind of client, on each engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn.errors import SessionTooLargeError
from sojourn.stores import (
    Created,
    Deleted,
    IndexedStore,
    Record,
    Replaced,
    ScannableStore,
    Store,
    StoreIO,
    TwinnedStore,
    WaitingStore,
)
from sojourn.testing import FakeClock, make_id, make_label, make_record, make_write_id

NOW = 1_800_000_000.0
LABEL = make_label()
W1, W2, W3, W4, W5, W6 = (make_write_id(n) for n in range(1, 7))


def test_what_is_created_is_loaded_back(store: Any) -> None:
    record = make_record(index_label=LABEL)
    assert store.create(record, write_id=W1) is Created.OK
    assert store.load(record.id) == replace(record, write_ids=(W1,))


def test_an_unknown_id_is_absent_in_every_method(store: Any) -> None:
    record = make_record()
    assert store.load(record.id) is None
    assert store.replace(record, expected=1, write_id=W1) is Replaced.GONE
    assert store.touch(record.id, NOW + 10) is False
    assert store.delete(record.id) is Deleted.GONE
    assert store.delete(record.id, expected=1) is Deleted.GONE
    assert store.load(record.id) is None
    assert store.scan() == []


def test_create_never_overwrites(store: Any) -> None:
    record = make_record()
    store.create(record, write_id=W1)
    assert store.create(replace(record, payload=b"other"), write_id=W2) is Created.EXISTS
    assert store.load(record.id).payload == b"payload"


def test_a_repeated_create_is_ok_and_has_no_second_effect(store: Any) -> None:
    record = make_record()
    store.create(record, write_id=W1)
    store.replace(replace(record, version=2, payload=b"second"), expected=1, write_id=W2)
    assert store.create(record, write_id=W1) is Created.OK
    assert store.load(record.id).payload == b"second"


def test_replace_wants_the_expected_version(store: Any) -> None:
    record = make_record(version=2**53 + 1)
    store.create(record, write_id=W1)
    changed = replace(record, version=2**53 + 2, payload=b"changed")
    assert store.replace(changed, expected=2**53, write_id=W2) is Replaced.CONFLICT
    assert store.load(record.id) == replace(record, write_ids=(W1,))
    assert store.replace(changed, expected=2**53 + 1, write_id=W2) is Replaced.OK
    assert store.load(record.id) == replace(changed, write_ids=(W1, W2))


def test_f6_a_repeated_replace_is_ok_among_the_last_four_writes_and_a_conflict_after(store: Any) -> None:
    record = make_record()
    store.create(record, write_id=W1)
    for version, write_id in enumerate((W2, W3, W4, W5), start=2):
        changed = replace(record, version=version, payload=str(version).encode())
        assert store.replace(changed, expected=version - 1, write_id=write_id) is Replaced.OK
        assert store.replace(changed, expected=version - 1, write_id=write_id) is Replaced.OK
    assert store.load(record.id) == replace(record, version=5, payload=b"5", write_ids=(W2, W3, W4, W5))
    assert store.replace(record, expected=1, write_id=W2) is Replaced.OK
    assert store.load(record.id).version == 5
    assert store.replace(record, expected=1, write_id=W1) is Replaced.CONFLICT
    assert store.create(record, write_id=W1) is Created.EXISTS


def test_a_write_id_that_spans_two_slots_is_not_mistaken_for_a_write(store: Any) -> None:
    record = make_record()
    store.create(record, write_id=W1)
    store.replace(replace(record, version=2), expected=1, write_id=W2)
    assert store.replace(replace(record, version=9), expected=1, write_id=W1[4:] + W2[:4]) is Replaced.CONFLICT


@pytest.mark.parametrize("label", [None, LABEL, make_label("a" * 60)])
def test_a_write_id_in_the_payload_is_not_mistaken_for_a_write(store: Any, label: str | None) -> None:
    first = make_record(payload=b"".join((W1, W2, W3)), index_label=label)
    store.create(first, write_id=W4)
    second = replace(first, version=2, payload=b"second" + W2)
    assert store.replace(second, expected=1, write_id=W1) is Replaced.OK
    assert store.load(first.id) == replace(second, write_ids=(W4, W1))
    third = replace(second, version=3, payload=b"")
    assert store.replace(third, expected=2, write_id=W2) is Replaced.OK
    assert store.load(first.id) == replace(third, write_ids=(W4, W1, W2))
    assert store.replace(replace(third, version=4), expected=3, write_id=W1) is Replaced.OK
    assert store.load(first.id) == replace(third, write_ids=(W4, W1, W2)), "it was done before, and wrote nothing now"


def test_a_deleted_session_is_not_brought_back(store: Any) -> None:
    record = make_record(index_label=LABEL)
    store.create(record, write_id=W1)
    assert store.delete(record.id) is Deleted.OK
    assert store.replace(replace(record, version=2), expected=1, write_id=W2) is Replaced.GONE
    assert store.replace(record, expected=1, write_id=W1) is Replaced.GONE
    assert store.touch(record.id, NOW + 7200) is False
    assert store.delete(record.id) is Deleted.GONE
    assert store.load(record.id) is None
    assert store.ids_of(LABEL) == []


def test_delete_at_a_version_spares_every_other_version(store: Any) -> None:
    record = make_record(version=3)
    store.create(record, write_id=W1)
    assert store.delete(record.id, expected=2) is Deleted.CONFLICT
    assert store.load(record.id) is not None
    assert store.delete(record.id, expected=3) is Deleted.OK


def test_touch_moves_the_idle_deadline_forward_up_to_the_absolute_one(store: Any) -> None:
    record = make_record(idle=100.0, absolute=1000.0, index_label=LABEL)
    store.create(record, write_id=W1)
    assert store.touch(record.id, NOW + 500.25) is True
    assert store.load(record.id) == replace(record, idle_deadline=NOW + 500.25, write_ids=(W1,))
    assert store.touch(record.id, NOW + 200) is True
    assert store.load(record.id).idle_deadline == NOW + 500.25
    assert store.touch(record.id, NOW + 5000) is True
    assert store.load(record.id) == replace(record, idle_deadline=NOW + 1000.0, write_ids=(W1,))


@pytest.mark.parametrize(("idle", "absolute"), [(10.0, 20.0), (20.0, 10.0), (10.0, 10.0)])
def test_an_expired_record_is_absent_from_its_very_deadline(store: Any, idle: float, absolute: float) -> None:
    record = make_record(idle=idle, absolute=absolute, index_label=LABEL)
    store.create(record, write_id=W1)
    store.bench.clock.advance(9.999)
    assert store.load(record.id) is not None
    assert store.count() == 1
    store.bench.clock.advance(0.001)
    assert store.load(record.id) is None
    assert store.touch(record.id, NOW + 1000) is False
    assert store.replace(replace(record, version=2), expected=1, write_id=W2) is Replaced.GONE
    assert store.replace(record, expected=1, write_id=W1) is Replaced.GONE
    assert store.ids_of(LABEL) == []
    assert store.scan() == []
    assert store.count() == 0
    assert store.delete(record.id, expected=7) is Deleted.GONE
    assert store.delete(record.id) is Deleted.GONE
    assert store.create(make_record(now=NOW + 10, version=5), write_id=W2) is Created.OK
    assert store.load(record.id).version == 5
    assert store.load(record.id).write_ids == (W2,)


def test_a_touch_keeps_the_record_on_the_server_for_as_long_as_it_says(store: Any) -> None:
    record = make_record(idle=10.0, absolute=1000.0)
    store.create(record, write_id=W1)
    key = b"sojourn:session:" + record.id.encode()
    assert 69_000 < store.bench.server.command("PTTL", key) <= 70_000
    store.touch(record.id, NOW + 500)
    assert 559_000 < store.bench.server.command("PTTL", key) <= 560_000
    store.replace(make_record(version=2, idle=20.0), expected=1, write_id=W2)
    assert 79_000 < store.bench.server.command("PTTL", key) <= 80_000


def test_a_record_without_end_is_kept(store: Any) -> None:
    record = make_record(idle=float("inf"), absolute=float("inf"), index_label=LABEL)
    store.create(record, write_id=W1)
    assert store.load(record.id) == replace(record, write_ids=(W1,))
    assert store.touch(record.id, float("inf")) is True
    assert store.ids_of(LABEL) == [record.id]
    endless = make_record("endless", idle=10.0, absolute=float("inf"))
    store.create(endless, write_id=W1)
    assert store.touch("endless", float("inf")) is True
    assert store.load("endless").idle_deadline == float("inf")


def test_the_payload_is_any_bytes_and_the_label_may_be_missing(store: Any) -> None:
    for label in (None, "", LABEL, "x" * 254):
        for payload in (b"", b"\x00\xff\r\n$3\r\n", bytes(range(256)) * 300):
            record = make_record(make_id(repr((label, len(payload)))), payload=payload, index_label=label)
            store.create(record, write_id=W1)
            store.replace(replace(record, version=2), expected=1, write_id=W2)
            assert store.load(record.id) == replace(record, version=2, write_ids=(W1, W2))


@pytest.mark.parametrize("id", ["a:b", "a%3Ab", "a%b", "", "é\udcff", "*", "\n \x00"])
def test_any_text_may_be_asked_for_as_an_id(store: Any, id: str) -> None:
    assert store.load(id) is None
    assert store.delete(id) is Deleted.GONE
    record = make_record(id, index_label=LABEL)
    assert store.create(record, write_id=W1) is Created.OK
    assert store.load(id) == replace(record, write_ids=(W1,))
    assert store.ids_of(LABEL) == [id]
    assert store.scan() == [id]
    store.delete(id)


def test_the_index_names_live_records_of_its_label_only(store: Any) -> None:
    mine = [make_record(make_id(n), index_label=LABEL) for n in range(5)]
    for record in mine:
        store.create(record, write_id=W1)
    store.create(make_record(make_id("other"), index_label=make_label("other")), write_id=W1)
    store.create(make_record(make_id("anonymous")), write_id=W1)
    assert sorted(store.ids_of(LABEL)) == sorted(record.id for record in mine)
    store.delete(mine[0].id)
    store.replace(replace(mine[1], version=2, index_label=None), expected=1, write_id=W2)
    store.replace(replace(mine[2], version=2, index_label=make_label("other")), expected=1, write_id=W2)
    store.replace(replace(mine[3], version=2), expected=1, write_id=W2)
    assert sorted(store.ids_of(LABEL)) == sorted((mine[3].id, mine[4].id))
    assert sorted(store.ids_of(make_label("other"))) == sorted((mine[2].id, make_id("other")))
    members = store.bench.server.command("ZRANGE", f"sojourn:index:{LABEL}", 0, -1)
    assert sorted(members) == sorted((mine[3].id.encode(), mine[4].id.encode()))


def _members(store: Any, label: str) -> list[bytes]:
    return sorted(store.bench.server.command("ZRANGE", f"sojourn:index:{label}", 0, -1))


def test_a_record_leaves_the_index_with_its_label_and_with_its_life(store: Any) -> None:
    record = make_record(index_label=LABEL)
    other = make_label("other")
    store.create(record, write_id=W1)
    store.create(make_record(make_id("stays"), index_label=LABEL), write_id=W1)
    store.replace(replace(record, version=2, index_label=other), expected=1, write_id=W2)
    assert _members(store, LABEL) == [make_id("stays").encode()]
    assert _members(store, other) == [record.id.encode()]
    store.delete(record.id)
    assert _members(store, other) == []


def test_a_deletion_by_a_clock_that_is_ahead_holds_for_one_that_lags(make: Callable[..., Any]) -> None:
    ahead, behind = FakeClock(NOW), FakeClock(NOW)
    record = make_record(idle=30.0)
    one, other = make(clock=ahead), make(clock=behind)
    one.create(record, write_id=W1)
    ahead.advance(40.0)
    assert one.delete(record.id, expected=2) is Deleted.GONE
    assert other.load(record.id) is not None
    assert one.delete(record.id) is Deleted.GONE
    assert other.load(record.id) is None


def test_the_index_outlives_every_record_that_it_names(store: Any) -> None:
    store.create(make_record(make_id(1), absolute=5000.0, index_label=LABEL), write_id=W1)
    store.create(make_record(make_id(2), absolute=100.0, index_label=LABEL), write_id=W1)
    assert 5_059_000 < store.bench.server.command("PTTL", f"sojourn:index:{LABEL}") <= 5_060_000


def test_the_index_forgets_what_can_no_longer_live_and_repairs_itself(store: Any) -> None:
    store.create(make_record(make_id("old"), idle=5.0, absolute=10.0, index_label=LABEL), write_id=W1)
    store.bench.clock.advance(71.0)
    store.create(make_record(make_id("new"), index_label=LABEL), write_id=W1)
    key = f"sojourn:index:{LABEL}"
    assert store.bench.server.command("ZRANGE", key, 0, -1) == [make_id("new").encode()]
    store.bench.server.command("ZADD", key, 2e9, "stray")
    assert store.ids_of(LABEL) == [make_id("new")]
    assert store.bench.server.command("ZRANGE", key, 0, -1) == [make_id("new").encode()]


def test_more_sessions_than_one_step_handles_are_all_named_counted_and_cleared(store: Any) -> None:
    ids = {make_id(n) for n in range(1201)}
    for id in ids:
        store.create(make_record(id, index_label=LABEL), write_id=W1)
    store.bench.server.command("CONFIG", "RESETSTAT")
    assert set(store.ids_of(LABEL)) == ids
    statistics = store.bench.server.command("INFO", "commandstats")
    assert statistics["cmdstat_zscan"]["calls"] > 1
    assert "cmdstat_zrange" not in statistics
    assert sorted(store.scan()) == sorted(ids)
    assert store.count() == 1201
    store.clear()
    assert store.bench.server.command("DBSIZE") == 0


def test_a_record_that_is_too_large_is_refused_and_the_last_good_one_kept(make: Callable[..., Any]) -> None:
    store = make(max_bytes=200)
    record = make_record()
    store.create(record, write_id=W1)
    with pytest.raises(SessionTooLargeError, match="SOJOURN_REDIS_MAX_BYTES"):
        store.replace(replace(record, version=2, payload=b"x" * 200), expected=1, write_id=W2)
    with pytest.raises(SessionTooLargeError):
        store.create(make_record("large", payload=b"x" * 200), write_id=W2)
    assert store.load(record.id) == replace(record, write_ids=(W1,))


@pytest.mark.parametrize("foreign", [b"", b"\x02" + b"x" * 80, b"\x01short", b"text"])
def test_f4_a_value_in_an_unknown_format_is_left_as_it_is(
    store: Any, foreign: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    record = make_record()
    key = f"sojourn:session:{record.id}"
    store.bench.server.command("SET", key, foreign)
    assert store.load(record.id) is None
    assert store.create(record, write_id=W1) is (Created.EXISTS if foreign else Created.OK)
    if not foreign:
        return
    assert store.replace(record, expected=1, write_id=W1) is Replaced.GONE
    assert store.touch(record.id, NOW + 10) is False
    assert store.delete(record.id, expected=1) is Deleted.CONFLICT
    assert store.scan() == []
    assert store.bench.server.command("GET", key) == foreign
    assert "unknown format" in caplog.text
    assert store.delete(record.id) is Deleted.OK
    assert store.bench.server.command("EXISTS", key) == 0


def test_a_write_id_of_another_length_is_refused(store: Any) -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        store.create(make_record(), write_id=b"short")
    with pytest.raises(ValueError, match="255 bytes"):
        store.create(make_record(index_label="x" * 255), write_id=W1)


def test_aclose_may_be_called_twice_and_the_store_used_afterwards(store: Any) -> None:
    store.create(make_record(), write_id=W1)
    store.aclose()
    store.aclose()
    assert store.load(make_record().id) is not None


def test_the_store_says_what_it_is(store: Any, kind: str) -> None:
    inner = store.store
    assert isinstance(inner, Store)
    assert isinstance(inner, IndexedStore)
    assert isinstance(inner, ScannableStore)
    assert isinstance(inner, WaitingStore)
    assert isinstance(inner, TwinnedStore) == (kind in {"own asyncio", "pool asyncio"})
    assert inner.io is (StoreIO.ASYNC if "asyncio" in kind else StoreIO.BLOCKING)
    store.sleep(0.001)


_times = st.floats(min_value=NOW + 1, max_value=NOW + 1e9)
_records = st.builds(
    Record,
    id=st.integers(0, 3).map(make_id),
    version=st.integers(1, 2**63 - 1),
    payload=st.binary(max_size=300),
    idle_deadline=_times,
    absolute_deadline=_times,
    index_label=st.none() | st.integers(0, 2).map(make_label),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(records=st.lists(_records, min_size=1, max_size=4), write_ids=st.lists(st.binary(min_size=8, max_size=8)))
def test_any_record_is_read_back_as_it_was_written(store: Any, records: list[Record], write_ids: list[bytes]) -> None:
    store.clear()
    kept: dict[str, Record] = {}
    for record, write_id in zip(records, write_ids, strict=False):
        present = kept.get(record.id)
        if present is None:
            assert store.create(record, write_id=write_id) is Created.OK
            kept[record.id] = record.written_by(write_id)
        elif write_id not in present.write_ids:
            assert store.replace(record, expected=present.version, write_id=write_id) is Replaced.OK
            kept[record.id] = record.written_by(write_id, present.write_ids)
        assert store.load(record.id) == kept[record.id]
    assert sorted(store.scan()) == sorted(kept)
    for label in {record.index_label for record in kept.values()} - {None}:
        assert set(store.ids_of(label)) == {id for id, record in kept.items() if record.index_label == label}
