"""The rule of calls at the same time: programs of two requests in every order, under a scheduler, and in threads.

A schedule follows from its list of switches alone, so that every interleaving can be listed and repeated. A program is
fixed before it runs: what it loads does not change what it writes.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, combinations_with_replacement, count
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar

from sojourn import Created, Deleted, Record, Replaced, Store, StoreIO
from sojourn_testing.bench import CheckedStore, StoreBench
from sojourn_testing.fakes import make_id, make_label, make_record, make_write_id
from sojourn_testing.model import (
    Answer,
    Call,
    Create,
    Delete,
    Load,
    Replace,
    StoreModel,
    Touch,
    show,
    violated,
)

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")
_SPINS = 12  # turns of the loop that a task gets to reach its next suspension
_QUIET = 0.02  # seconds without progress after which the tasks that are ready go on without the others
_THREADS = 4
_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two programs on one id, with the record that is there before, if any."""

    first: Create | None
    programs: tuple[tuple[Call, ...], tuple[Call, ...]]

    @property
    def ids(self) -> list[str]:
        """Return all ids that the programs use."""
        return sorted({call.id for program in self.programs for call in program})


def _program(kind: str, record: Record, side: str) -> tuple[Call, ...]:
    """Return one program for *record*; *side* tells the two programs of a meeting apart."""
    id, label = record.id, make_label(side)

    def version(number: int) -> Record:
        return Record(
            id, number, f"{side} {number}".encode(), record.idle_deadline, record.absolute_deadline, label, ()
        )

    def write(number: int) -> bytes:
        return make_write_id(f"{id} {side} {number}")

    other = Record(make_id(f"{id} {side}"), 1, side.encode(), record.idle_deadline, record.absolute_deadline, label)
    programs: dict[str, tuple[Call, ...]] = {
        "start": (Create(version(1), write(1)), Replace(version(2), 1, write(2))),
        "start twice": (Create(version(1), write(1)), Create(version(1), write(1))),
        "save": (Load(id), Replace(version(2), 1, write(2))),
        "save twice": (Replace(version(2), 1, write(2)), Replace(version(2), 1, write(2))),
        "save on": (Replace(version(2), 1, write(2)), Replace(version(3), 2, write(3))),
        "touch": (Touch(id, record.idle_deadline + 60), Load(id)),
        "log out": (Delete(id), Load(id)),
        "rotate": (Create(other, write(4)), Delete(id, expected=1)),
    }
    return programs[kind]


KINDS = ("start", "start twice", "save", "save twice", "save on", "touch", "log out", "rotate")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two kinds of programs, on an absent or a present record."""

    left: str
    right: str
    present: bool

    def meeting(self, now: float, name: object) -> Meeting:
        """Return the two programs on ids that follow from *name* and the pair."""
        record = make_record(make_id(f"{name} {self}"), now=now, idle=600.0, payload=b"first")
        return Meeting(
            Create(record, make_write_id(f"{name} {self}")) if self.present else None,
            (_program(self.left, record, "left"), _program(self.right, record, "right")),
        )

    def __str__(self) -> str:
        return f"{self.left} | {self.right} | {'present' if self.present else 'absent'}"


PAIRS = tuple(
    Pair(left, right, present) for present in (False, True) for left, right in combinations_with_replacement(KINDS, 2)
)


def orders(left: int, right: int) -> Iterator[tuple[int, ...]]:
    """Yield every order of *left* calls of program 0 and *right* calls of program 1."""
    for places in combinations(range(left + right), left):
        yield tuple(0 if at in places else 1 for at in range(left + right))


@dataclass(frozen=True, slots=True)
class Done:
    """A call that was made: its answer, and when it began and ended on a common count."""

    call: Call
    answer: Answer
    began: int
    ended: int

    def __str__(self) -> str:
        return f"[{self.began}..{self.ended}] {self.call} -> {show(self.answer)}"


def is_explained(
    model: StoreModel, histories: Sequence[Sequence[Done]], final: Sequence[tuple[Load, Answer]], now: float
) -> bool:
    """Tell whether some order, which keeps what ended before something else began, gives these answers."""
    heads = [history[0] for history in histories if history]
    if not heads:
        return all(_is_same(load.on_model(model, now), answer) for load, answer in final)
    for at, history in enumerate(histories):
        if not history or any(head.ended < history[0].began for head in heads):
            continue
        tried = model.copy()
        if _is_same(history[0].call.on_model(tried, now), history[0].answer):
            rest = [*histories[:at], history[1:], *histories[at + 1 :]]
            if is_explained(tried, rest, final, now):
                return True
    return False


def _is_same(right: Answer, found: Answer) -> bool:
    """Compare two answers; of records, what the programs can tell apart."""
    if isinstance(right, Record) and isinstance(found, Record):
        return (right.version, right.payload, right.index_label) == (
            found.version,
            found.payload,
            found.index_label,
        ) and abs(right.idle_deadline - found.idle_deadline) < 1
    return right is found


class _Stepped(Awaitable[T]):
    """Awaits a coroutine and asks for a turn after each of its suspensions."""

    def __init__(self, inner: Coroutine[Any, Any, T], turn: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._turn = turn

    def __await__(self) -> Generator[Any, Any, T]:
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self._inner.send(None) if thrown is None else self._inner.throw(thrown)
            except StopIteration as finished:
                answer: T = finished.value
                return answer
            thrown = None
            try:
                yield awaited
                yield from self._turn().__await__()
            except BaseException as error:  # noqa: BLE001 - a cancellation too belongs to the inner coroutine
                thrown = error


class Schedule:
    """Runs two programs; *switches* says at each turn whether the other one goes on (absent: it does not).

    Only what waits for a server or a lock takes part when it is ready, not when it is its turn.

    After *patience* seconds in which neither goes on, they are deadlocked.
    """

    def __init__(self, switches: Sequence[bool], *, patience: float = 5.0) -> None:
        self.choices: list[bool | None] = []
        """What was chosen at each turn; None where there was nothing to choose."""
        self._switches = switches
        self._patience = patience
        self._waiting: dict[int, Future[None]] = {}
        self._blocked: set[int] = set()
        self._last = 0
        self._count = 0

    async def run(self, store: Store, programs: Sequence[Sequence[Call]]) -> list[list[Done]]:
        """Make the calls of all programs on *store*; return what each of them saw."""
        import asyncio

        self._progress = asyncio.Event()
        tasks = [asyncio.create_task(self._follow(side, store, calls)) for side, calls in enumerate(programs)]
        for task in tasks:
            task.add_done_callback(lambda _: self._progress.set())
        try:
            while True:
                pending = {side for side, task in enumerate(tasks) if not task.done()}
                if not pending:
                    return [await task for task in tasks]
                if not await self._gather(pending, tasks):
                    continue
                self._waiting.pop(self._choose()).set_result(None)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, side: int, store: Store, calls: Sequence[Call]) -> list[Done]:
        done: list[Done] = []
        for call in calls:
            await self._turn(side)
            began = self._tell()
            answer: Answer = await _Stepped(call.on_store(store), lambda: self._turn(side))
            done.append(Done(call, answer, began, self._tell()))
        return done

    def _tell(self) -> int:
        self._count += 1
        return self._count

    async def _turn(self, side: int) -> None:
        import asyncio

        future: Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[side] = future
        self._blocked.discard(side)
        self._progress.set()
        try:
            await future
        finally:
            self._waiting.pop(side, None)

    async def _gather(self, pending: set[int], tasks: Sequence[Future[Any]]) -> bool:
        """Wait until every pending task is ready, or blocked by what is not ours; tell whether one is ready."""
        import asyncio

        for _ in range(_SPINS):
            if pending <= self._waiting.keys():
                return True
            await asyncio.sleep(0)
            if any(tasks[side].done() for side in pending):
                return False
        while not pending <= self._waiting.keys() | self._blocked or not self._waiting:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), _QUIET if self._waiting else self._patience)
            except TimeoutError:
                if not self._waiting:
                    violated("S20", "two calls at the same time wait for each other for ever")
                self._blocked |= pending - self._waiting.keys()
            if any(tasks[side].done() for side in pending):
                return False
        return True

    def _choose(self) -> int:
        """Return the side whose turn it is: the last one again, unless it is not ready or a switch is due."""
        ready = sorted(self._waiting)
        if len(ready) == 1:
            self.choices.append(None)
            self._last = ready[0]
        else:
            at = len(self.choices)
            switch = bool(self._switches[at]) if at < len(self._switches) else False
            self.choices.append(switch)
            self._last = 1 - self._last if switch else self._last
        return self._last


def explore(run: Callable[[Sequence[bool]], Sequence[bool | None]], most: int) -> int:
    """Call *run* once with every list of switches, those with few switches first, at most *most*; return how many."""
    queue: deque[tuple[bool, ...]] = deque([()])
    # A program that was held up where it was to go on leads to lists that another schedule led to.
    listed: set[tuple[bool, ...]] = {()}
    ran = 0
    while queue and ran < most:
        switches = queue.popleft()
        choices = run(switches)
        ran += 1
        for at in range(len(switches), len(choices)):
            follower = (*map(bool, choices[:at]), True)
            if choices[at] is not None and follower not in listed:
                listed.add(follower)
                queue.append(follower)
    return ran


class RaceRules(StoreBench):
    """The rule of two callers at the same time."""

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
        """Make one call from several threads at the same moment, in several rounds; not for stores that need a loop."""
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
