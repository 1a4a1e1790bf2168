"""Two stores as one: the published contract, and what moves from the former store to the present one."""

from __future__ import annotations

import math
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.manager import run_blocking as run
from sojourn.stores import BatchingStore, Clock, Created, Deleted, Record, Replaced, StoreIO
from sojourn.stores.fallback import FallbackStore
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, StoreSuite, make_id, make_label, make_record, make_write_id
from sojourn_testing.races import explore
from tests.testing.plain_stores import BatchingMemoryStore

T = TypeVar("T")
FOREVER = 1e12


def carry(record: Record, version: int) -> Record:
    """Seal nothing: these payloads are the same in every store. The ids of writes are those of a store."""
    return replace(record, version=version, write_ids=())


class Divided(FallbackStore):
    """A pair in which records that are new to it are made in the former store, as if from before: the contract is the same."""

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        if await self.load(record.id) is None and await self.present.load(record.id) is None:
            return await self.fallback.create(replace(record, version=record.version - 1), write_id=write_id)
        return await super().create(record, write_id=write_id)


def pair(clock: Clock, kind: type[FallbackStore] = FallbackStore, *, moves: bool = True) -> FallbackStore:
    return kind(MemoryStore(clock=clock), MemoryStore(clock=clock), moves=moves, **options(clock))


def options(clock: Clock) -> dict[str, Any]:
    return {"carry": carry, "carry_back": carry, "until": FOREVER, "clock": clock}


class TestTwoStoresInMemoryKeepTheContract(StoreSuite):
    indexed = scannable = True

    def make_store(self, clock: Clock) -> FallbackStore:
        return pair(clock)


class TestRecordsFromBeforeKeepTheContract(StoreSuite):
    def make_store(self, clock: Clock) -> FallbackStore:
        return pair(clock, Divided)

    # The bench makes records in two steps, which others may come between.
    test_s20_threads_create_a_record_once = None  # type: ignore[assignment]
    test_s20_two_programs_meet_in_every_order_of_their_calls = None  # type: ignore[assignment]


# -- several at once ---------------------------------------------------------------------------------------------


@types.coroutine
def turn() -> Generator[None, None, None]:
    yield


class Stepped(MemoryStore):
    """A store whose calls others may come between, before they take effect and before the answer is there."""

    io = StoreIO.ASYNC

    async def load(self, id: str) -> Record | None:
        await turn()
        found = await super().load(id)
        await turn()
        return found

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        await turn()
        answer = await super().create(record, write_id=write_id)
        await turn()
        return answer

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        await turn()
        answer = await super().replace(record, expected=expected, write_id=write_id)
        await turn()
        return answer

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        await turn()
        answer = await super().delete(id, expected=expected)
        await turn()
        return answer


@dataclass
class Step:
    """One call on a pair: when it was made and answered, and what it would do to the content of the record."""

    name: str
    begun: int
    expected: bytes | None = None
    content: bytes | None = None
    ended: float = math.inf
    answer: Any = None
    is_known: bool = False
    """Whether it was answered; else it may have taken effect or not."""

    def outcomes(self, state: bytes | None) -> list[bytes | None]:
        """Return the states to which it may lead from *state*, as it was answered."""
        match self.name:
            case "load":
                return [state] if not self.is_known or self.answer == state else []
            case "delete":
                says = Deleted.GONE if state is None else Deleted.OK
                return [None] if not self.is_known or self.answer is says else []
            case "create" if state is not None:
                return [state] if self.is_known and self.answer is Created.EXISTS else []
            case "create":
                return [self.content] if not self.is_known or self.answer is Created.OK else []
            case _:
                done = [self.content] if state == self.expected else []
                if not self.is_known:
                    return done
                # A move makes another version of the same content, so a conflict may be one for nothing.
                refused = Replaced.GONE if state is None else Replaced.CONFLICT
                return done if self.answer is Replaced.OK else [state] if self.answer is refused else []


def is_explained(steps: list[Step], state: bytes | None) -> bool:
    """Tell whether the calls could have been made one after the other, each between its begin and its end."""
    if not steps:
        return True
    first_end = min(step.ended for step in steps)
    for step in steps:
        if step.begun > first_end:
            continue
        rest = [other for other in steps if other is not step]
        if not step.is_known and is_explained(rest, state):
            return True
        if any(is_explained(rest, after) for after in step.outcomes(state)):
            return True
    return False


class Meeting:
    """Programs on one record, of nodes that move it and of nodes that do not yet, driven step by step."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        old, new = Stepped(clock=self.clock), Stepped(clock=self.clock)
        self.pairs = [
            FallbackStore(new, old, moves=True, **options(self.clock)),
            FallbackStore(old, new, moves=False, **options(self.clock)),
        ]
        self.steps: list[Step] = []
        self.moment = 0
        end = self.clock.time() + 1000
        self.record = Record("i" * 43, 5, b"0", end, end)
        run(MemoryStore.create(old, self.record, write_id=b"written0"))

    async def made(self, step: Step, work: Coroutine[Any, Any, Any]) -> Any:
        self.steps.append(step)
        answer = await work
        step.answer = answer.payload if isinstance(answer, Record) else answer
        step.ended, step.is_known = self.moment, True
        return answer

    async def look(self, pair: FallbackStore) -> Record | None:
        found: Record | None = await self.made(Step("load", self.moment), pair.load(self.record.id))
        return found

    async def write(self, pair: FallbackStore, name: bytes) -> None:
        found = await self.look(pair)
        if found is not None:
            changed = replace(found, version=found.version + 1, payload=found.payload + name)
            step = Step("replace", self.moment, found.payload, changed.payload)
            work = pair.replace(changed, expected=found.version, write_id=b"written" + name)
            await self.made(step, work)

    async def end(self, pair: FallbackStore, name: bytes) -> None:
        await self.made(Step("delete", self.moment), pair.delete(self.record.id))

    async def begin(self, pair: FallbackStore, name: bytes, *, version: int = 0) -> None:
        """Create the record anew, under a version that it never had unless one is given."""
        fresh = replace(self.record, version=version or 100 * int(name), payload=b"new" + name)
        step = Step("create", self.moment, content=fresh.payload)
        await self.made(step, pair.create(fresh, write_id=b"created" + name))

    async def renew(self, pair: FallbackStore, name: bytes) -> None:
        await self.end(pair, name)
        await self.begin(pair, name)

    async def see(self, pair: FallbackStore, name: bytes) -> None:
        await self.look(pair)

    def play(self, makers: Sequence[Callable[[], Coroutine[Any, Any, object]]], draw: Callable[[Any], Any]) -> None:
        """Advance programs in the order that is drawn; a request or an answer gets lost, and a process ends anywhere."""
        programs: list[Any] = [*makers]
        while programs:
            self.moment += 1
            number = draw(st.integers(0, len(programs) - 1)) if len(programs) > 1 else 0
            fate = draw(st.sampled_from(["go"] * 12 + ["fault", "die"]))
            program = programs[number]
            try:
                if callable(program):
                    programs[number] = program()
                    programs[number].send(None)
                elif fate == "die":
                    programs.pop(number).close()
                elif fate == "fault":
                    program.throw(StoreTimeoutError("lost"))
                else:
                    program.send(None)
            except (StopIteration, StoreUnavailableError):
                programs.pop(number)

    def follow(self, programs: Sequence[Coroutine[Any, Any, object]], switches: Sequence[bool]) -> list[bool | None]:
        """Advance two programs; *switches* tells at which steps the other one goes on. Return what there was to choose."""
        choices: list[bool | None] = []
        left, last = dict(enumerate(programs)), 0
        while left:
            self.moment += 1
            at = len(choices)
            choices.append(at < len(switches) and switches[at] if len(left) > 1 else None)
            last = (1 - last if choices[at] else last) if len(left) > 1 else next(iter(left))
            try:
                left[last].send(None)
            except StopIteration:
                del left[last]
        return choices


PROGRAMS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "end", "see", "renew"]), st.integers(0, 1)), min_size=1, max_size=4
)


@given(data=st.data(), programs=PROGRAMS, is_mixed=st.booleans())
def test_whatever_meets_whatever_fails_nothing_is_lost_or_comes_back(data: Any, programs: Any, is_mixed: bool) -> None:
    """Nodes before and after the change, whose calls and processes fail, act as on one store."""
    meeting = Meeting()
    made = [
        partial(getattr(meeting, name), meeting.pairs[way if is_mixed else 0], b"%d" % number)
        for number, (name, way) in enumerate(programs, 1)
    ]
    meeting.play(made, data.draw)
    for pair in meeting.pairs[: 1 + is_mixed]:
        meeting.moment += 1
        meeting.play([partial(meeting.look, pair)], lambda _: "go")
    assert is_explained(meeting.steps, b"0"), meeting.steps


@pytest.mark.parametrize("mover", [0, 1])
@pytest.mark.parametrize("creator", [0, 1])
@pytest.mark.parametrize("other", ["see", "renew"])
def test_what_ended_does_not_come_back_when_its_id_begins_anew_while_it_is_moved(
    other: str, mover: int, creator: int
) -> None:
    """In every order of the steps of both, those with few changes from one to the other."""

    def run_one(switches: Sequence[bool]) -> Sequence[bool | None]:
        meeting = Meeting()
        programs = getattr(meeting, other)(meeting.pairs[mover], b"1"), meeting.renew(meeting.pairs[creator], b"2")
        choices = meeting.follow(programs, switches)
        for pair in meeting.pairs:
            meeting.follow([meeting.look(pair)], ())
        assert is_explained(meeting.steps, b"0"), meeting.steps
        return choices

    assert explore(run_one, 600) > 50


@pytest.mark.parametrize("version", range(1, 13))
def test_of_two_that_begin_an_id_anew_one_takes_nothing_of_the_other_for_the_end(version: int) -> None:
    """Whatever the version of the other: 5 was that of the record, and what ended had one of the next."""

    def run_one(switches: Sequence[bool]) -> Sequence[bool | None]:
        meeting = Meeting()
        node = meeting.pairs[0]
        meeting.follow([meeting.end(node, b"0")], ())
        choices = meeting.follow([meeting.begin(node, b"1"), meeting.begin(node, b"2", version=version)], switches)
        meeting.follow([meeting.look(node)], ())
        assert is_explained(meeting.steps, b"0"), meeting.steps
        return choices

    assert explore(run_one, 100) > 50


def test_a_create_over_an_end_is_known_when_it_is_repeated() -> None:
    for moves in (True, False):
        for place in ("present", "fallback"):
            both = Both()
            node = both.after if moves else both.before
            assert run(both.after.load(both.record.id)) is not None
            if getattr(node, place) is both.old:
                assert run(both.new.delete(both.record.id)) is Deleted.OK
                assert run(both.old.create(replace(both.record, version=3), write_id=make_write_id(3))) is Created.OK
                assert run(both.before.delete(both.record.id)) is Deleted.OK
            else:
                assert run(node.delete(both.record.id)) is Deleted.OK
            for _ in range(2):
                assert run(node.create(both.record, write_id=make_write_id(2))) is Created.OK
            assert run(node.create(both.record, write_id=make_write_id(4))) is Created.EXISTS


class ReadOnly(MemoryStore):
    """A store that takes no writes for a while."""

    is_down = False

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        if self.is_down:
            raise StoreUnavailableError("down")
        return await super().replace(record, expected=expected, write_id=write_id)


def test_who_went_on_where_a_move_had_stopped_is_not_logged_out_by_it() -> None:
    clock = FakeClock()
    former, new = ReadOnly(clock=clock), MemoryStore(clock=clock)
    former.keep_expired = new.keep_expired = 3600.0
    mover = FallbackStore(new, former, moves=True, **options(clock))
    other = FallbackStore(former, new, moves=False, **options(clock))
    record = replace(make_record(), idle_deadline=clock.time() + 100.0)
    assert run(former.create(record, write_id=make_write_id(1))) is Created.OK
    former.is_down = True
    with pytest.raises(StoreUnavailableError):
        run(mover.load(record.id))
    former.is_down = False
    for _ in range(2):
        clock.advance(90.0)
        assert run(other.touch(record.id, clock.time() + 100.0))
    found = run(mover.load(record.id))
    assert found is not None
    assert found.idle_deadline == clock.time() + 100.0
    assert run(former.load(record.id)) is None
    clock.advance(100.0)
    expired = run(mover.load(record.id))
    assert expired is not None
    assert expired.is_expired(clock.time())


class Interrupted(MemoryStore):
    """A store beside which others do something once, before it answers or after."""

    call_timeout = 1.0

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.before_load: Callable[[], object] | None = None
        self.after_ids: Callable[[], object] | None = None

    async def load(self, id: str) -> Record | None:
        if (come_between := self.before_load) is not None:
            self.before_load = None
            come_between()
        return await super().load(id)

    async def ids_of(self, label: str) -> Sequence[str]:
        ids = await super().ids_of(label)
        if (come_between := self.after_ids) is not None:
            self.after_ids = None
            come_between()
        return ids


class Both:
    """A record in the former store, and pairs of nodes of both steps."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.old, self.new = Interrupted(clock), Interrupted(clock)
        self.before = FallbackStore(self.old, self.new, moves=False, **options(clock))
        self.after = FallbackStore(self.new, self.old, moves=True, **options(clock))
        self.record = make_record(index_label=make_label())
        assert run(self.old.create(self.record, write_id=make_write_id(1))) is Created.OK

    def move(self) -> None:
        assert run(self.after.load(self.record.id)) is not None
        assert run(MemoryStore.load(self.old, self.record.id)) is None


def test_a_record_that_moves_between_two_looks_is_found() -> None:
    both = Both()
    both.old.before_load = both.move  # it was not in the new store yet, and is not in the former one any more
    found = run(both.after.load(both.record.id))
    assert found is not None
    assert found.payload == both.record.payload


@pytest.mark.parametrize("name", ["before", "after"])
def test_no_record_is_missed_that_moves_while_a_list_is_made(name: str) -> None:
    both = Both()
    both.old.after_ids = both.move
    both.new.after_ids = lambda: run(both.after.load(both.record.id))
    assert run(getattr(both, name).ids_of(make_label())) == [both.record.id]


def test_a_pair_takes_as_long_as_the_slower_of_its_stores() -> None:
    both = Both()
    both.old.call_timeout = 3.0
    assert [
        FallbackStore(here, there, moves=True, **options(FakeClock())).call_timeout
        for here, there in ((both.old, both.new), (both.new, both.old))
    ] == [3.0, 3.0]


def test_what_ends_leaves_a_tombstone_that_no_list_names_and_that_loads_as_nothing() -> None:
    clock = FakeClock()
    id = make_record().id
    pair = FallbackStore(
        BatchingMemoryStore(clock=clock), BatchingMemoryStore(clock=clock), moves=True, **options(clock)
    )
    assert isinstance(pair, BatchingStore)
    for where in (pair.present, pair.fallback):
        assert run(where.create(make_record(), write_id=make_write_id(1))) is Created.OK
        assert run(pair.delete(id)) is Deleted.OK
        assert run(pair.present.load(id)) is not None, "the tombstone"
        assert run(pair.load_many([id, make_id(2)])) == [None, None]
        assert [run(_all(pair.scan_records())), run(_all(pair.scan()))] == [[], []]
        run(pair.clear())


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


class Unclosable(MemoryStore):
    """A store that notes that it was to be closed, and cannot be."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True
        raise StoreUnavailableError("down")


def test_both_stores_are_closed_although_one_cannot_be() -> None:
    here, there = Unclosable(clock=FakeClock()), Unclosable(clock=FakeClock())
    with pytest.raises(StoreUnavailableError):
        run(FallbackStore(here, there, moves=True, **options(FakeClock())).aclose())
    assert (here.is_closed, there.is_closed) == (True, True)
