"""The rules of a store for one caller, each as a short script on a checked store: writes and deadlines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from sojourn import RetainingStore
from sojourn_testing.bench import CheckedStore, StoreBench
from sojourn_testing.fakes import Fault, make_id, make_label, make_write_id
from sojourn_testing.model import violated

_PLANS = [plan for length in (1, 2) for plan in product((Fault.BEFORE, Fault.AFTER), repeat=length)]
_W = [make_write_id(number) for number in range(9)]


class WriteRules(StoreBench):
    """The rules of create, replace, touch and delete."""

    def test_s1_create_is_refused_for_an_id_that_is_present(self) -> None:
        """A second create under another write id answers EXISTS and changes nothing."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            checked.create(self.record(checked, payload=b"other", label=make_label()), _W[1])
            checked.check_ids_of(make_label())
            checked.create(self.record(checked, "b"), _W[1])
            checked.delete(make_id("a"))
            checked.create(self.record(checked, payload=b"again"), _W[2])

    def test_s2_replace_does_not_create(self) -> None:
        """A replace of a record that never was, or was deleted, answers GONE and leaves nothing."""
        with self.bench() as checked:
            checked.replace(self.record(checked), 0, _W[0])
            checked.replace(self.record(checked, version=2), 1, _W[1])
            checked.create(self.record(checked), _W[2])
            checked.delete(make_id("a"))
            checked.replace(self.record(checked, version=2, label=make_label()), 1, _W[3])
            checked.check_scan()

    def test_s3_replace_goes_by_the_version(self) -> None:
        """A replace with another expected version answers CONFLICT and changes nothing."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            checked.replace(self.record(checked, version=2), 1, _W[1])
            for number, expected in enumerate((0, 1, 3, 4)):
                lost = self.record(checked, version=expected + 1, payload=b"lost", label=make_label())
                checked.replace(lost, expected, _W[2 + number])
            checked.check_ids_of(make_label())
            checked.replace(self.record(checked, version=3), 2, _W[6])
            checked.replace(self.record(checked, version=9), 3, _W[7])
            checked.replace(self.record(checked, version=10), 9, _W[8])

    def test_s4_a_repeated_create_has_no_second_effect(self) -> None:
        """The same create twice answers OK twice, also after a touch; the record stays as it is."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            checked.create(self.record(checked), _W[0])
            checked.touch(make_id("a"), self.record(checked, idle=700.0).idle_deadline)
            checked.create(self.record(checked, payload=b"other"), _W[0])

    def test_s4_a_repeated_replace_has_no_second_effect(self) -> None:
        """The same replace twice answers OK twice, though the version has moved on."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            checked.replace(self.record(checked, version=2), 1, _W[1])
            checked.replace(self.record(checked, version=2, payload=b"other"), 1, _W[1])
            checked.replace(self.record(checked, version=3, payload=b"other"), 2, _W[1])

    def test_s4_a_call_whose_answer_was_lost_may_be_repeated(self) -> None:
        """Under every plan of one or two faults, before or after the effect, a call takes effect exactly once."""
        for number, plan in enumerate(_PLANS):
            with self.bench() as checked:
                id = make_id(number)
                checked.create(self.record(checked, number), _W[0], *plan)
                checked.replace(self.record(checked, number, 2, label=make_label()), 1, _W[1], *plan)
                checked.touch(id, self.record(checked, idle=700.0).idle_deadline, *plan)
                checked.replace(self.record(checked, number, 4), 3, _W[2], *plan)
                checked.check_ids_of(make_label())
                checked.check_scan()
                checked.delete(id, 1, *plan)
                checked.delete(id, 2, *plan)
                checked.replace(self.record(checked, number, 3), 2, _W[3], *plan)

    def test_s5_the_last_4_writes_may_be_repeated(self) -> None:
        """A write repeated after up to three others answers OK and does not undo them."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            for version in (2, 3, 4):
                checked.replace(self.record(checked, version=version), version - 1, _W[version - 1])
            checked.create(self.record(checked, payload=b"first"), _W[0])
            for version in (4, 3, 2):
                checked.replace(self.record(checked, version=version, payload=b"old"), version - 1, _W[version - 1])

    def test_s5_a_write_before_the_last_4_is_not_remembered(self) -> None:
        """A write repeated after four others is a new write: EXISTS, or CONFLICT."""
        with self.bench() as checked:
            checked.create(self.record(checked), _W[0])
            for version in (2, 3, 4, 5):
                checked.replace(self.record(checked, version=version), version - 1, _W[version - 1])
            checked.create(self.record(checked, payload=b"first"), _W[0])
            checked.replace(self.record(checked, version=6), 5, _W[5])
            checked.replace(self.record(checked, version=2, payload=b"old"), 1, _W[1])

    def test_s6_touch_says_whether_the_record_is_there(self) -> None:
        """A touch of an absent record answers False and leaves nothing."""
        with self.bench() as checked:
            later = self.record(checked).idle_deadline
            checked.touch(make_id("a"), later)
            checked.create(self.record(checked), _W[0])
            checked.touch(make_id("a"), later + self.tick)
            checked.delete(make_id("a"))
            checked.touch(make_id("a"), later)
            checked.check_scan()

    def test_s9_touch_changes_only_the_idle_deadline(self) -> None:
        """Version, payload, label and write ids are what they were; the next replace finds its version."""
        with self.bench() as checked:
            checked.create(self.record(checked, label=make_label(), payload=bytes(range(256))), _W[0])
            checked.replace(self.record(checked, version=2, label=make_label()), 1, _W[1])
            checked.touch(make_id("a"), self.record(checked, idle=700.0).idle_deadline)
            checked.check_ids_of(make_label())
            checked.replace(self.record(checked, version=2), 1, _W[1])
            checked.replace(self.record(checked, version=3), 2, _W[2])

    def test_s10_delete_spares_another_version(self) -> None:
        """A delete that expects another version answers CONFLICT; without one, any version goes."""
        with self.bench() as checked:
            checked.create(self.record(checked, label=make_label()), _W[0])
            for expected in (0, 2):
                checked.delete(make_id("a"), expected)
            checked.check_ids_of(make_label())
            checked.replace(self.record(checked, version=2), 1, _W[1])
            checked.delete(make_id("a"), 1)
            checked.delete(make_id("a"), 2)
            checked.create(self.record(checked, "b"), _W[2])
            checked.delete(make_id("b"))

    def test_s11_a_deleted_record_is_gone(self) -> None:
        """A delete of an absent record answers GONE, with or without an expected version."""
        with self.bench() as checked:
            checked.delete(make_id("a"))
            checked.delete(make_id("a"), 1)
            checked.create(self.record(checked, label=make_label()), _W[0])
            checked.create(self.record(checked, "b"), _W[1])
            checked.delete(make_id("a"))
            checked.delete(make_id("a"))
            checked.delete(make_id("a"), 1)
            checked.check_scan()
            checked.load(make_id("b"))

    def test_s13_a_record_is_read_back_as_it_was_written(self) -> None:
        """Every byte of the payload, the version, both deadlines and the label survive."""
        payloads = (b"", b"\0", bytes(range(256)), b"\r\n'\"\\{}%", b"x" * self.max_payload)
        with self.bench() as checked:
            for number, payload in enumerate(payloads):
                label = make_label(number) if number % 2 else None
                record = self.record(checked, number, payload=payload, idle=300.25, absolute=999.75, label=label)
                checked.create(record, b"\0" * 8 if number == 0 else _W[number])
            for number, payload in enumerate(reversed(payloads)):
                record = self.record(checked, number, 2, payload=payload, idle=100.5, label=make_label())
                checked.replace(record, 1, b"\xff" * 8)
                checked.replace(self.record(checked, number, 3_000_000_000, payload=payload), 2, _W[number + 1])
            for number in range(len(payloads)):
                checked.load(make_id(number))

    def test_s14_what_was_handed_over_stays_as_it_was(self) -> None:
        """Records handed in or out are not changed by later writes."""
        with self.bench() as checked:
            checked.create(self.record(checked, label=make_label()), _W[0])
            checked.load(make_id("a"))
            checked.touch(make_id("a"), self.record(checked, idle=700.0).idle_deadline)
            checked.check_copies()
            checked.replace(self.record(checked, version=2), 1, _W[1])
            checked.check_copies()
            checked.delete(make_id("a"))

    def test_s22_aclose_may_be_called_twice(self) -> None:
        """Closing a store again, or one that was never used, does nothing."""
        for used in (False, True):
            with self.bench() as checked:
                if used:
                    checked.create(self.record(checked), _W[0])
                checked.close()
                try:
                    checked.run(checked.store.aclose())
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not be raised
                    violated("S22", f"the second aclose raised {type(error).__name__}")


class DeadlineRules(StoreBench):
    """The rules of deadlines, on a fake clock, or on the real one for stores that go by it."""

    def test_s7_touch_stops_at_the_absolute_deadline(self) -> None:
        """A touch beyond the absolute deadline moves the idle one up to it; then the record expires."""
        with self.bench() as checked:
            checked.create(self.record(checked, idle=1.0, absolute=3.0), _W[0])
            checked.touch(make_id("a"), self.record(checked, idle=900.0).idle_deadline)
            checked.touch(make_id("a"), self.record(checked, idle=900.0).idle_deadline)
            checked.wait(2 * self.tick)
            checked.load(make_id("a"))
            checked.wait(self.tick)
            checked.load(make_id("a"))

    def test_s8_touch_does_not_move_backwards(self) -> None:
        """A touch with an earlier deadline answers True and leaves the later one."""
        with self.bench() as checked:
            checked.create(self.record(checked, idle=2.0), _W[0])
            early = self.record(checked, idle=1.0).idle_deadline
            checked.touch(make_id("a"), early)
            checked.touch(make_id("a"), early - 5 * self.tick)
            checked.wait(self.tick)
            checked.load(make_id("a"))
            checked.wait(self.tick)
            checked.load(make_id("a"))

    def test_s8_touch_prolongs_the_life(self) -> None:
        """A record that was touched is there after its first deadline, until the new one."""
        with self.bench() as checked:
            checked.create(self.record(checked, idle=1.0, label=make_label()), _W[0])
            checked.touch(make_id("a"), self.record(checked, idle=3.0).idle_deadline)
            checked.wait(2 * self.tick)
            checked.load(make_id("a"))
            checked.check_scan()
            checked.check_ids_of(make_label())
            checked.wait(self.tick)
            checked.load(make_id("a"))

    def test_s12_an_expired_record_is_absent_in_every_method(self) -> None:
        """A deadline that equals now has passed, whichever method looks first."""
        with_absolute = 2 if not self.real_time else 1
        for look in self._looks():
            for absolute in (1_000.0, 1.0)[:with_absolute]:
                with self.bench() as checked:
                    checked.create(self.record(checked, idle=1.0, absolute=absolute, label=make_label()), _W[0])
                    checked.create(self.record(checked, "b"), _W[0])
                    checked.wait(self.tick)
                    look(checked)
                    checked.check_ids_of(make_label())
                    checked.check_scan()
                    checked.load(make_id("b"))

    def test_s12_what_expired_is_kept_for_load_alone(self) -> None:
        """A ``RetainingStore`` loads an expired record for its time; no other method sees it, and a new one takes its place."""
        for look in self._looks():
            with self.bench() as checked:
                if not isinstance(checked.store, RetainingStore):
                    return
                checked.store.keep_expired = 2 * self.tick
                checked.create(self.record(checked, idle=0.5, label=make_label()), _W[0])
                checked.touch(make_id("a"), self.record(checked, idle=1.0).idle_deadline)
                checked.wait(self.tick)
                if checked.run(checked.store.load(make_id("a"))) is None:
                    violated("S12", "load does not return an expired record that is to be kept", checked.history)
                look(checked)
                checked.check_ids_of(make_label())
                checked.check_scan()
                checked.load(make_id("a"))
                checked.wait(3 * self.tick)
                checked.load(make_id("a"))

    def _looks(self) -> list[Callable[[CheckedStore], object]]:
        """Return calls of each method on the record *a*."""
        return [
            lambda checked: checked.load(make_id("a")),
            lambda checked: checked.check_scan(),
            lambda checked: checked.touch(make_id("a"), self.record(checked, idle=900.0).idle_deadline),
            lambda checked: checked.delete(make_id("a")),
            lambda checked: checked.delete(make_id("a"), 1),
            lambda checked: checked.replace(self.record(checked, version=2), 1, _W[1]),
            lambda checked: checked.replace(self.record(checked, version=2), 1, _W[0]),
            lambda checked: checked.create(self.record(checked, payload=b"new"), _W[1]),
            lambda checked: checked.create(self.record(checked, payload=b"new"), _W[0]),
        ]

    def test_s12_a_record_is_there_until_its_deadline(self) -> None:
        """Just before its deadline a record is there in every method."""
        with self.bench() as checked:
            checked.create(self.record(checked, idle=1.0, label=make_label()), _W[0])
            checked.wait(self.tick / 2 if self.real_time else self.tick - 0.25)
            checked.load(make_id("a"))
            checked.check_scan()
            checked.check_ids_of(make_label())
            checked.create(self.record(checked), _W[1])
            checked.replace(self.record(checked, version=2, idle=1.0), 1, _W[2])
            checked.touch(make_id("a"), self.record(checked, idle=2.0).idle_deadline)
            checked.delete(make_id("a"), 2)

    def test_s12_an_id_begins_anew_after_its_record_expired(self) -> None:
        """What is created over an expired record owes nothing to it: neither its label nor its write ids."""
        with self.bench() as checked:
            checked.create(self.record(checked, idle=1.0, label=make_label("old")), _W[0])
            checked.replace(self.record(checked, version=2, idle=1.0, label=make_label("old")), 1, _W[1])
            checked.wait(self.tick)
            checked.create(self.record(checked, label=make_label("new")), _W[2])
            checked.create(self.record(checked, payload=b"other"), _W[0])
            checked.check_ids_of(make_label("old"))
            checked.check_ids_of(make_label("new"))
            checked.replace(self.record(checked, version=2), 1, _W[1])
            checked.check_scan()

    def test_s12_a_replace_brings_new_deadlines(self) -> None:
        """A replace may lengthen the idle deadline or shorten it."""
        with self.bench() as checked:
            checked.create(self.record(checked, idle=1.0), _W[0])
            checked.replace(self.record(checked, version=2, idle=3.0), 1, _W[1])
            checked.wait(2 * self.tick)
            checked.load(make_id("a"))
            checked.replace(self.record(checked, version=3, idle=0.5), 2, _W[2])
            checked.wait(self.tick / 2)
            checked.load(make_id("a"))
