"""What the contract says: the rules by number, the calls as values, and a model of a store that answers them.

The model is told the time with every call. Which rule a wrong answer breaks follows from the state of the model before
the call, never from how a store works.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NoReturn

from sojourn import Created, Deleted, Record, Replaced, Store

STORE_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "S1": "create stores a record if its id is absent, and only then",
        "S2": "replace never brings a record into being",
        "S3": "replace succeeds on the expected version and on no other",
        "S4": "a repeated write is answered OK and has no second effect",
        "S5": "a record keeps its last 4 write ids and no others",
        "S6": "touch says whether the record is there, and never brings it back",
        "S7": "touch never moves the idle deadline past the absolute one",
        "S8": "touch moves the idle deadline, and never backwards",
        "S9": "touch changes nothing but the idle deadline",
        "S10": "delete with an expected version spares every other version",
        "S11": "a deleted record is gone, and deleting it again says so",
        "S12": "a record is absent in every method but a load that is to keep it, from its deadline on, and not before",
        "S13": "a record is read back as it was written",
        "S14": "what a store hands out or was handed never changes afterwards",
        "S15": "ids_of names every live record of its label, each once",
        "S16": "ids_of names no live record of another label",
        "S17": "scan yields every live record once, and nothing else",
        "S18": "count counts the live records",
        "S19": "clear deletes every record of the store, and nothing else",
        "S20": "calls at the same time act as if one came after the other",
        "S21": "a store waits only in the way that its io says",
        "S22": "aclose may be called twice",
        "S23": "a blocking twin works on the same data",
        "S24": "a store has the capabilities that are claimed for it",
        "S25": "a partition names the server of every record, the same one each time",
        "S26": "many records at once are read and deleted as they are one by one",
    }
)
"""What every store keeps; S15 to S19, S23, S25 and S26 concern stores with that capability."""

CLIENT_SIDE_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "C1": "the token carries the record: id, version, payload and deadlines",
        "C2": "a malformed token gives None, and no token raises",
        "C3": "equal records give equal tokens",
        "C4": "a token consists of characters that a cookie may hold",
        "C5": "a token is hardly longer than its payload in base64url",
    }
)
"""What a client-side store keeps, besides S21, S22 and S24."""


class RuleViolationError(AssertionError):
    """A store breaks one of its rules; *rule* is its number, *detail* says what was seen."""

    def __init__(self, rule: str, detail: str, history: Sequence[str] = ()) -> None:
        sentence = STORE_RULES.get(rule) or CLIENT_SIDE_RULES[rule]
        calls = "".join(f"\n    {line}" for line in history)
        super().__init__(f"{rule} {sentence}: {detail}{calls and f'{chr(10)}  after these calls:{calls}'}")
        self.rule = rule
        self.detail = detail


def violated(rule: str, detail: str, history: Sequence[str] = ()) -> NoReturn:
    """Raise RuleViolationError for *rule*; *history* lists the calls before."""
    raise RuleViolationError(rule, detail, history)


@dataclass(slots=True)
class StoreModel:
    """The answers that a store must give; *records* holds the expired ones too, until they are overwritten or cleared."""

    records: dict[str, Record] = field(default_factory=dict)

    def copy(self) -> StoreModel:
        """Return an independent copy."""
        return StoreModel(dict(self.records))

    def load(self, id: str, now: float) -> Record | None:
        """Return the live record."""
        record = self.records.get(id)
        return None if record is None or record.is_expired(now) else record

    def create(self, record: Record, write_id: bytes, now: float) -> Created:
        """Store a record that is absent."""
        present = self.load(record.id, now)
        if present is not None:
            return Created.OK if write_id in present.write_ids else Created.EXISTS
        self.records[record.id] = record.written_by(write_id)
        return Created.OK

    def replace(self, record: Record, expected: int, write_id: bytes, now: float) -> Replaced:
        """Replace the record of the expected version."""
        present = self.load(record.id, now)
        if present is None:
            return Replaced.GONE
        if write_id in present.write_ids:
            return Replaced.OK
        if present.version != expected:
            return Replaced.CONFLICT
        self.records[record.id] = record.written_by(write_id, present.write_ids)
        return Replaced.OK

    def touch(self, id: str, idle_deadline: float, now: float) -> bool:
        """Move the idle deadline forwards, at most to the absolute one."""
        present = self.load(id, now)
        if present is not None:
            moved = max(present.idle_deadline, min(idle_deadline, present.absolute_deadline))
            self.records[id] = replace(present, idle_deadline=moved)
        return present is not None

    def delete(self, id: str, expected: int | None, now: float) -> Deleted:
        """Delete the live record."""
        present = self.load(id, now)
        if present is None:
            return Deleted.GONE
        if expected is not None and present.version != expected:
            return Deleted.CONFLICT
        del self.records[id]
        return Deleted.OK

    def live(self, now: float) -> set[str]:
        """Return the ids of all live records."""
        return {id for id, record in self.records.items() if not record.is_expired(now)}

    def ids_of(self, label: str, now: float) -> set[str]:
        """Return the ids of the live records with that label."""
        return {id for id in self.live(now) if self.records[id].index_label == label}


Answer = Record | Created | Replaced | Deleted | bool | None


def show(answer: object) -> str:
    """Return a short form of an answer; of a record only what its calls show too."""
    match answer:
        case Record(id=id, version=version, payload=payload):
            return f"{id[:6]} version {version} ({payload[:12]!r})"
        case Created() | Replaced() | Deleted():
            return answer.name
        case _:
            return repr(answer)


@dataclass(frozen=True, slots=True)
class Load:
    """A call of ``load``."""

    id: str

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call on *store*."""
        return store.load(self.id)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Return what the model answers."""
        return model.load(self.id, now)

    def __str__(self) -> str:
        return f"load {self.id[:6]}"


@dataclass(frozen=True, slots=True)
class Create:
    """A call of ``create``."""

    record: Record
    write_id: bytes

    @property
    def id(self) -> str:
        """Return the id of the record."""
        return self.record.id

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call on *store*."""
        return store.create(self.record, write_id=self.write_id)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Return what the model answers."""
        return model.create(self.record, self.write_id, now)

    def __str__(self) -> str:
        return f"create {show(self.record)}, write {self.write_id.hex()[:6]}"


@dataclass(frozen=True, slots=True)
class Replace:
    """A call of ``replace``."""

    record: Record
    expected: int
    write_id: bytes

    @property
    def id(self) -> str:
        """Return the id of the record."""
        return self.record.id

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call on *store*."""
        return store.replace(self.record, expected=self.expected, write_id=self.write_id)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Return what the model answers."""
        return model.replace(self.record, self.expected, self.write_id, now)

    def __str__(self) -> str:
        return f"replace {show(self.record)}, expected {self.expected}, write {self.write_id.hex()[:6]}"


@dataclass(frozen=True, slots=True)
class Touch:
    """A call of ``touch``."""

    id: str
    idle_deadline: float

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call on *store*."""
        return store.touch(self.id, self.idle_deadline)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Return what the model answers."""
        return model.touch(self.id, self.idle_deadline, now)

    def __str__(self) -> str:
        return f"touch {self.id[:6]} until {self.idle_deadline}"


@dataclass(frozen=True, slots=True)
class Delete:
    """A call of ``delete``."""

    id: str
    expected: int | None = None

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call on *store*."""
        return store.delete(self.id, expected=self.expected)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Return what the model answers."""
        return model.delete(self.id, self.expected, now)

    def __str__(self) -> str:
        return f"delete {self.id[:6]}" + ("" if self.expected is None else f", expected {self.expected}")


Call = Load | Create | Replace | Touch | Delete


@dataclass(frozen=True, slots=True)
class Case:
    """One call, and what the model knew before it."""

    call: Call
    before: Record | None
    """The live record."""
    lapsed: bool
    """Whether there is a record whose deadline has passed."""
    used: frozenset[bytes]
    """The write ids of all earlier calls for this id."""
    expected: Answer
    tries: int
    """How often the call is made in all; every try but the last meets a fault."""

    def accepts(self, answer: Answer) -> bool:
        """Tell whether the answer is right; a delete that is repeated cannot know that the first one worked."""
        if isinstance(self.call, Delete) and self.tries > 1 and self.expected is Deleted.OK:
            return answer in (Deleted.OK, Deleted.GONE)
        return answer is self.expected

    def rule_of_answer(self, *, is_visible: bool) -> str:
        """Return the rule that a wrong answer breaks; *is_visible* tells whether the record can be loaded afterwards."""
        if self.lapsed and not (is_visible and isinstance(self.call, Touch | Replace)):
            return "S12"
        return self.rule_of_effect(None, None) if self._is_special else _ANSWERS[type(self.call)]

    def rule_of_effect(self, field: str | None, loaded: Record | None) -> str:
        """Return the rule that is broken when the record is not what the model says, *field* being what differs."""
        match self.call, self.expected:
            case ((Create() | Replace()), (Created.OK | Replaced.OK)):
                if not self._is_repeated:
                    return "S13"
                return "S4" if self._is_newest else "S5"
            case ((Create(write_id=write_id) | Replace(write_id=write_id)), (Created.EXISTS | Replaced.CONFLICT)):
                return "S5" if write_id in self.used else _ANSWERS[type(self.call)]
            case Replace(), _:
                return "S2"
            case Touch(), True if loaded is not None and field == "idle_deadline":
                return "S7" if loaded.idle_deadline > loaded.absolute_deadline else "S8"
            case Touch(), True:
                return "S9"
            case Delete(), Deleted.CONFLICT:
                return "S10"
            case _:
                return _ANSWERS[type(self.call)]

    @property
    def _is_repeated(self) -> bool:
        if not isinstance(self.call, Create | Replace):
            return False
        return self.tries > 1 or (self.before is not None and self.call.write_id in self.before.write_ids)

    @property
    def _is_newest(self) -> bool:
        """Tell whether the write that is repeated is the last one."""
        if self.before is None or not isinstance(self.call, Create | Replace):
            return True
        return self.call.write_id not in self.before.write_ids[:-1]

    @property
    def _is_special(self) -> bool:
        """Tell whether a wrong answer has a more special rule than its method."""
        return self._is_repeated or self.expected in (
            Created.EXISTS,
            Replaced.CONFLICT,
            Replaced.GONE,
            Deleted.CONFLICT,
        )


_ANSWERS: dict[type[Call], str] = {Load: "S13", Create: "S1", Replace: "S3", Touch: "S6", Delete: "S11"}
