"""The rule of calls at the same time: orders, schedules and threads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from threading import Barrier

from sojourn.stores.contract import Created, Deleted, Replaced, StoreIO
from sojourn.testing.bench import StoreBench
from sojourn.testing.calls import Load, show
from sojourn.testing.checked import CheckedStore
from sojourn.testing.model import StoreModel
from sojourn.testing.programs import PAIRS, Done, Pair, is_explained, orders
from sojourn.testing.records import make_id, make_write_id
from sojourn.testing.rules import violated
from sojourn.testing.schedules import Schedule, explore

_THREADS = 4
_ROUNDS = 12


class RaceRules(StoreBench):
    """Try what two callers can do to one record."""

    def test_s20_two_programs_meet_in_every_order_of_their_calls(self) -> None:
        """Whole calls of two requests, in every order, answer what the model answers."""
        with self.bench() as checked:
            for pair in PAIRS:
                for order in orders(2, 2):
                    meeting = pair.meeting(round(checked.now), order)
                    if meeting.first is not None:
                        checked.do(meeting.first)
                    programs = [iter(program) for program in meeting.programs]
                    for side in order:
                        checked.do(next(programs[side]))

    def test_s20_two_programs_meet_in_the_middle_of_their_calls(self) -> None:
        """Under a scheduler, what a suspending store answers in every interleaving can be told as an order of calls."""
        with self.bench() as checked:
            if checked.store.io is StoreIO.ASYNC:
                numbers = count()
                for pair in PAIRS:
                    explore(partial(self._meet, checked, pair, numbers), self.schedules)

    def _meet(
        self, checked: CheckedStore, pair: Pair, numbers: Iterator[int], switches: Sequence[bool]
    ) -> Sequence[bool | None]:
        """Run one pair under one schedule, on ids of its own, and look for an order that explains what was seen."""
        store, now = checked.store, checked.now
        meeting = pair.meeting(round(now), next(numbers))
        model = StoreModel()
        if meeting.first is not None:
            meeting.first.on_model(model, now)
            checked.run(meeting.first.on_store(store))
        schedule = Schedule(switches, patience=self.patience)
        histories = checked.run(schedule.run(store, meeting.programs))
        final = [(Load(id), checked.run(store.load(id))) for id in meeting.ids]
        if not is_explained(model, histories, final, now):
            seen = [str(done) for done in sorted((done for history in histories for done in history), key=began)]
            seen += [f"at the end {load} -> {show(answer)}" for load, answer in final]
            violated("S20", f"no order of the calls of '{pair}' explains their answers", seen)
        return schedule.choices

    def test_s20_threads_create_a_record_once(self) -> None:
        """Of several threads that create one id, one is told OK."""
        self._race(
            lambda _checked, _number: None,
            lambda checked, number, thread: checked.run(
                checked.store.create(self.record(checked, number), write_id=make_write_id(thread))
            ),
            lambda answers: answers.count(Created.OK) == 1,
            "create",
        )

    def test_s20_threads_replace_a_version_once(self) -> None:
        """Of several threads that replace one version, one is told OK and its payload stays."""
        self._race(
            self._create,
            lambda checked, number, thread: checked.run(
                checked.store.replace(
                    self.record(checked, number, 2), expected=1, write_id=make_write_id(f"{number} {thread}")
                )
            ),
            lambda answers: answers.count(Replaced.OK) == 1,
            "replace",
        )

    def test_s20_threads_delete_a_record_once(self) -> None:
        """Of several threads that delete one record, one is told OK."""
        self._race(
            self._create,
            lambda checked, number, _thread: checked.run(checked.store.delete(make_id(number), expected=1)),
            lambda answers: answers.count(Deleted.OK) == 1,
            "delete",
        )

    def _create(self, checked: CheckedStore, number: int) -> object:
        return checked.run(checked.store.create(self.record(checked, number), write_id=make_write_id(number)))

    def _race(
        self,
        prepare: Callable[[CheckedStore, int], object],
        act: Callable[[CheckedStore, int, int], object],
        is_right: Callable[[list[object]], bool],
        method: str,
    ) -> None:
        """Let several threads make one call at the same moment, some rounds long; not for stores that need a loop."""
        interval = sys.getswitchinterval()
        with self.bench() as checked, ThreadPoolExecutor(_THREADS) as pool:
            if checked.store.io is StoreIO.ASYNC:
                return
            barrier = Barrier(_THREADS)

            def together(number: int, thread: int) -> object:
                barrier.wait(30)
                return act(checked, number, thread)

            sys.setswitchinterval(1e-6)
            try:
                for number in range(_ROUNDS):
                    prepare(checked, number)
                    racing = [pool.submit(together, number, thread) for thread in range(_THREADS)]
                    answers = [race.result() for race in racing]
                    if not is_right(answers):
                        told = ", ".join(show(answer) for answer in answers)
                        violated("S20", f"{_THREADS} threads made the same {method} and were told {told}")
            finally:
                sys.setswitchinterval(interval)


def began(done: Done) -> int:
    """Return when a call began."""
    return done.began
