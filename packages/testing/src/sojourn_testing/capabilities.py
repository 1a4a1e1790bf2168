"""The rules of what a store can do beyond the six methods, each as a short script on a checked store.

A store without a capability passes the tests of it untouched.
"""

from __future__ import annotations

import inspect
from itertools import product

from sojourn import (
    BatchingStore,
    Created,
    Deleted,
    IndexedStore,
    Partition,
    PartitionedStore,
    Record,
    ScannableStore,
    SessionScanningStore,
    StoreIO,
    TwinnedStore,
    WaitingStore,
)
from sojourn_testing.bench import RealClock, StoreBench
from sojourn_testing.fakes import FakeClock, make_id, make_label, make_write_id
from sojourn_testing.model import Create, violated

_W = [make_write_id(number) for number in range(9)]
_ALICE, _BOB = make_label("alice"), make_label("bob")
_MANY = 180
_SEVERAL = 24
# A session, what a login, a renewal and a rotation leave of one, and others that only look like it.
_PAYLOADS = (b"\2\1\0sealed", b"", b"\2\1\2redirect", b"\2\1\6trail", b"\1\1\6former", b"\2\1")


class CapabilityRules(StoreBench):
    """The rules of index, scan, twin, partition, batches and expired records."""

    def test_s15_the_index_follows_every_write(self) -> None:
        """A label is listed while its record lives, whatever happened to other records."""
        with self.bench() as checked:
            for number in range(5):
                checked.create(self.record(checked, number, label=_ALICE if number < 3 else _BOB), _W[0])
            checked.check_ids_of(_ALICE)
            checked.touch(make_id(0), self.record(checked, idle=700.0).idle_deadline)
            checked.replace(self.record(checked, 1, 2, label=_ALICE), 1, _W[1])
            checked.delete(make_id(2))
            checked.delete(make_id(2))
            for label in (_ALICE, _BOB, make_label("nobody")):
                checked.check_ids_of(label)
            checked.create(self.record(checked, 2, label=_ALICE), _W[2])
            checked.check_ids_of(_ALICE)

    def test_s16_the_index_follows_a_change_of_label(self) -> None:
        """A login, a change of user and a logout move a record from one label to another."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            for version, label in ((2, _ALICE), (3, _BOB), (4, None), (5, _ALICE)):
                checked.replace(self.record(checked, version=version, label=label), version - 1, _W[version])
                checked.check_ids_of(_ALICE)
                checked.check_ids_of(_BOB)
            checked.replace(self.record(checked, version=3, label=_BOB), 2, _W[6])
            checked.check_ids_of(_BOB)
            checked.delete(make_id("a"))
            checked.create(self.record(checked, label=_BOB), _W[7])
            checked.check_ids_of(_ALICE)
            checked.check_ids_of(_BOB)

    def test_s14_a_list_of_ids_belongs_to_the_caller(self) -> None:
        """Emptying the answer of ids_of does not empty the index."""
        with self.bench() as checked:
            for number in range(2):
                checked.create(self.record(checked, number, label=_ALICE), _W[0])
            if isinstance(checked.store, IndexedStore):
                ids = checked.run(checked.store.ids_of(_ALICE))
                before = sorted(ids)
                if isinstance(ids, list):
                    ids.clear()
                if sorted(checked.run(checked.store.ids_of(_ALICE))) != before:
                    violated("S14", "the caller emptied the list it got from ids_of, and the index with it")

    def test_s17_scan_goes_through_many_records(self) -> None:
        """Each of many live records is yielded once, deleted ones are not."""
        with self.bench() as checked:
            if isinstance(checked.store, ScannableStore):
                for number in range(_MANY):
                    checked.create(self.record(checked, number, label=_ALICE), _W[0])
                for number in range(0, _MANY, 3):
                    checked.delete(make_id(number))
                checked.check_scan()
                checked.check_ids_of(_ALICE)

    def test_s17_scan_bears_writes_on_its_way(self) -> None:
        """What lives from before the scan until after it is yielded once, whatever is written meanwhile."""
        with self.bench() as checked:
            if not isinstance(checked.store, ScannableStore):
                return
            for number in range(12):
                checked.create(self.record(checked, number), _W[0])
            iterator = checked.store.scan()
            seen = [checked.run(anext(iterator)) for _ in range(3)]
            dropped = [*seen[:2], *(id for id in map(make_id, range(5)) if id not in seen)]
            for id in dropped:
                checked.delete(id)
            for number in range(20, 26):
                checked.create(self.record(checked, number), _W[0])
            checked.replace(self.record(checked, 7, 2), 1, _W[1])
            seen += checked.collect(iterator)
            stable = {make_id(number) for number in range(12)} - set(dropped)
            if len(set(seen)) != len(seen) or stable.difference(seen):
                violated("S17", "writes during a scan made it yield a record twice, or leave out a live one")
            strangers = set(seen) - {make_id(number) for number in (*range(12), *range(20, 26))}
            if strangers:
                violated("S17", f"a scan yielded {len(strangers)} ids that were never created")

    def test_s17_scan_sessions_leaves_out_what_rotations_left(self) -> None:
        """A ``SessionScanningStore`` yields and counts what ``Record.is_session`` says yes to, under every label."""
        with self.bench() as checked:
            if not isinstance(checked.store, SessionScanningStore):
                return
            for number, (payload, label) in enumerate(product(_PAYLOADS, (None, _ALICE, "l" * 43))):
                checked.create(self.record(checked, number, payload=payload, label=label), _W[0])
            checked.check_scan()
            for number, payload in enumerate(_PAYLOADS):
                checked.replace(self.record(checked, number, 2, payload=payload), 1, _W[1])
            checked.check_scan()

    def test_s19_clear_leaves_nothing(self) -> None:
        """After clear every record is absent, and every id may begin anew under another label."""
        with self.bench() as checked:
            for number in range(7):
                checked.create(self.record(checked, number, label=_ALICE if number % 2 else None), _W[0])
            checked.replace(self.record(checked, 1, 2, label=_BOB), 1, _W[1])
            checked.clear()
            checked.clear()
            if isinstance(checked.store, ScannableStore):
                checked.create(self.record(checked, 1, label=_ALICE), _W[0])
                checked.check_ids_of(_ALICE)
                checked.check_ids_of(_BOB)
                checked.check_scan()

    def test_s19_clear_spares_other_namespaces(self) -> None:
        """A store in another namespace of the same server sees none of this one's records and keeps its own."""
        with self.bench() as checked:
            checked.create(self.record(checked, label=_ALICE), _W[0])
            made = self.make_neighbour(RealClock() if self.real_time else FakeClock())
            neighbour = checked.run(made) if inspect.isawaitable(made) else made
            if neighbour is None or not isinstance(checked.store, ScannableStore):
                return
            call = Create(self.record(checked, payload=b"the neighbour's"), _W[1])
            if (
                checked.run(neighbour.load(call.id)) is not None
                or checked.run(call.on_store(neighbour)) is not Created.OK
            ):
                violated("S19", "a store in another namespace sees this one's records")
            checked.clear()
            if checked.run(neighbour.load(call.id)) is None:
                violated("S19", "clear deleted a record of another namespace")
            checked.run(neighbour.aclose())

    def test_s21_waiting_is_done_in_the_store_s_own_way(self) -> None:
        """The sleep of a store obeys its io like everything else."""
        with self.bench() as checked:
            if isinstance(checked.store, WaitingStore):
                checked.run(checked.store.sleep(0))

    def test_s23_a_blocking_twin_works_on_the_same_data(self) -> None:
        """Each of the two sees what the other wrote."""
        with self.bench() as checked:
            if not isinstance(checked.store, TwinnedStore):
                return
            twin = checked.store.blocking_twin()
            if twin.io is not StoreIO.BLOCKING:
                violated("S23", f"the twin's io is {twin.io.name} instead of BLOCKING")
            checked.create(self.record(checked), _W[0])
            seen = checked.run(twin.load(make_id("a")), twin.io)
            if seen is None or seen.payload != self.record(checked).payload:
                violated("S23", "the twin does not see a record that was created")
            checked.run(twin.delete(make_id("a")), twin.io)
            if checked.run(checked.store.load(make_id("a"))) is not None:
                violated("S23", "a record that the twin deleted is still there")
            checked.run(twin.aclose(), twin.io)

    def test_s24_the_store_has_the_capabilities_claimed_for_it(self) -> None:
        """``indexed = True`` and ``scannable = True`` in a suite mean that the store has the methods."""
        with self.bench() as checked:
            for name, claimed, protocol in (
                ("indexed", self.indexed, IndexedStore),
                ("scannable", self.scannable, ScannableStore),
            ):
                if claimed is not None and claimed is not isinstance(checked.store, protocol):
                    violated("S24", f"{name} = {claimed} is claimed; {protocol.__name__} says otherwise")

    def test_s25_a_partition_names_the_server_of_every_record(self) -> None:
        """It answers at once, the twin's no differently; a store on one server has none."""
        with self.bench() as checked:
            partitions = [_partition_of(checked.store)]
            if partitions[0] is None:
                return
            checked.create(self.record(checked, label=_ALICE), _W[0])
            if isinstance(checked.store, TwinnedStore):
                partitions.append(_partition_of(checked.store.blocking_twin()))
            for number in range(20):
                told = [_told(partition, number) for partition in partitions for _ in range(2)]
                if any(each != told[0] for each in told):
                    violated("S25", f"one record and one index are on {told}, by asking several times")
                if not all(isinstance(server, str) for server in told[0]):
                    violated("S25", f"the servers of a record and of an index are {told[0]!r}, which are no names")

    def test_s26_many_records_at_once_are_read_and_deleted_as_one_by_one(self) -> None:
        """A ``BatchingStore`` answers in the order that it was asked in, for what is absent and expired as well."""
        with self.bench() as checked:
            store = checked.store
            if not isinstance(store, BatchingStore):
                return
            for number in range(_SEVERAL):
                label = _ALICE if number % 3 else None
                checked.create(self.record(checked, number, label=label, payload=b"x" * number), _W[0])
                if number % 5 == 0:
                    checked.replace(self.record(checked, number, 2, label=label, payload=b"y" * number), 1, _W[1])
            ids = [make_id(number) for number in range(-3, _SEVERAL)][::-1]
            wanted = [checked.load(id) for id in ids]
            found = checked.run(store.load_many(ids))
            if [one and _facts(one) for one in found] != [one and _facts(one) for one in wanted]:
                violated("S26", "load_many reads other records, or in another order, than load does")
            scanned = [record.id for record in checked.collect(store.scan_records())]
            if sorted(scanned) != sorted(record.id for record in wanted if record is not None):
                violated("S26", f"scan_records yielded {len(scanned)} records of {_SEVERAL}, or others")
            if missing := {make_id(number) for number in range(_SEVERAL) if number % 3} - set(
                checked.run(store.members_of(_ALICE))
            ):
                violated("S26", f"members_of names {len(missing)} records of its label not")
            half = ids[::2]
            results = checked.run(store.delete_many([(id, 1) for id in half]))
            for id, result in zip(half, results, strict=True):
                record = checked.model.load(id, checked.now)
                right = Deleted.GONE if record is None else Deleted.CONFLICT if record.version > 1 else Deleted.OK
                if result is not right:
                    violated("S26", f"delete_many answered {result} in the place of {right}")
                checked.model.delete(id, 1, checked.now)
            checked.wait(0)
            for id in ids:
                checked.load(id)
            checked.check_ids_of(_ALICE)


def _facts(record: Record) -> tuple[str, int, bytes, str | None]:
    return record.id, record.version, record.payload, record.index_label


def _partition_of(store: object) -> Partition | None:
    return store.partition if isinstance(store, PartitionedStore) else None


def _told(partition: Partition | None, number: int) -> tuple[object, object]:
    if partition is None:
        return None, None
    return partition.server_of(make_id(number)), partition.server_of_label(make_label(str(number)))
