"""The calls of a store as values: each can be made on a store, made on the model, and printed.

The one rule: a call holds everything it needs, so that it may be repeated, reordered and compared.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from sojourn.stores.contract import Created, Deleted, Record, Replaced, Store
from sojourn.testing.model import StoreModel

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
    """Call ``load``."""

    id: str

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call."""
        return store.load(self.id)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Say what it must answer."""
        return model.load(self.id, now)

    def __str__(self) -> str:
        return f"load {self.id[:6]}"


@dataclass(frozen=True, slots=True)
class Create:
    """Call ``create``."""

    record: Record
    write_id: bytes

    @property
    def id(self) -> str:
        """Return the id of the record."""
        return self.record.id

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call."""
        return store.create(self.record, write_id=self.write_id)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Say what it must answer."""
        return model.create(self.record, self.write_id, now)

    def __str__(self) -> str:
        return f"create {show(self.record)}, write {self.write_id.hex()[:6]}"


@dataclass(frozen=True, slots=True)
class Replace:
    """Call ``replace``."""

    record: Record
    expected: int
    write_id: bytes

    @property
    def id(self) -> str:
        """Return the id of the record."""
        return self.record.id

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call."""
        return store.replace(self.record, expected=self.expected, write_id=self.write_id)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Say what it must answer."""
        return model.replace(self.record, self.expected, self.write_id, now)

    def __str__(self) -> str:
        return f"replace {show(self.record)}, expected {self.expected}, write {self.write_id.hex()[:6]}"


@dataclass(frozen=True, slots=True)
class Touch:
    """Call ``touch``."""

    id: str
    idle_deadline: float

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call."""
        return store.touch(self.id, self.idle_deadline)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Say what it must answer."""
        return model.touch(self.id, self.idle_deadline, now)

    def __str__(self) -> str:
        return f"touch {self.id[:6]} until {self.idle_deadline}"


@dataclass(frozen=True, slots=True)
class Delete:
    """Call ``delete``."""

    id: str
    expected: int | None = None

    def on_store(self, store: Store) -> Coroutine[Any, Any, Answer]:
        """Make the call."""
        return store.delete(self.id, expected=self.expected)

    def on_model(self, model: StoreModel, now: float) -> Answer:
        """Say what it must answer."""
        return model.delete(self.id, self.expected, now)

    def __str__(self) -> str:
        return f"delete {self.id[:6]}" + ("" if self.expected is None else f", expected {self.expected}")


Call = Load | Create | Replace | Touch | Delete
