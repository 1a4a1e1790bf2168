"""Short sequences of calls, as two requests make them at the same time, and every order in which they can meet.

The one rule: a program is fixed before it runs; what it loads does not change what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

from sojourn.stores.contract import Record
from sojourn.testing.calls import Answer, Call, Create, Delete, Load, Replace, Touch, show
from sojourn.testing.model import StoreModel
from sojourn.testing.records import make_id, make_label, make_record, make_write_id


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
