"""The rules of deadlines, on an injected clock, or on the real one for stores that go by it."""

from __future__ import annotations

from collections.abc import Callable

from sojourn.testing.bench import StoreBench
from sojourn.testing.checked import CheckedStore
from sojourn.testing.records import make_id, make_label, make_write_id

_W = [make_write_id(number) for number in range(4)]


class DeadlineRules(StoreBench):
    """Try what the passing of time does."""

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
        looks: list[Callable[[CheckedStore], object]] = [
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
        with_absolute = 2 if not self.real_time else 1
        for look in looks:
            for absolute in (1_000.0, 1.0)[:with_absolute]:
                with self.bench() as checked:
                    checked.create(self.record(checked, idle=1.0, absolute=absolute, label=make_label()), _W[0])
                    checked.create(self.record(checked, "b"), _W[0])
                    checked.wait(self.tick)
                    look(checked)
                    checked.check_ids_of(make_label())
                    checked.check_scan()
                    checked.load(make_id("b"))

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
