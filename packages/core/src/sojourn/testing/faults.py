"""A store that fails on purpose, before or after the effect of a call.

The one rule: a failure tells the caller nothing about the effect, as a lost reply does (FAILURES F6).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, TypeVar

from sojourn.errors import StoreTimeoutError
from sojourn.stores.contract import (
    Created,
    Deleted,
    IndexedStore,
    PartitionedStore,
    Record,
    Replaced,
    ScannableStore,
    Store,
    WaitingStore,
)

T = TypeVar("T")


class Fault(Enum):
    """What happens to one call."""

    NONE = "none"
    """It goes through."""
    BEFORE = "before"
    """It fails and has no effect: the request was lost."""
    AFTER = "after"
    """It has its effect and fails: the reply was lost."""


Plan = Iterable[Fault] | Callable[[str], Fault]
"""One fault for each call, in order, none after the end; or a function from the method's name to the fault."""


def _lost_reply(method: str) -> Exception:
    return StoreTimeoutError(f"the store did not answer {method} in time (a planned fault)")


class FaultyStore:
    """Pass every call on to *inner*, except for the faults that *plan* names.

    It is indexed, scannable, partitioned or waiting when *inner* is. *error* makes the exception from the name of the method.
    """

    def __init__(self, inner: Store, plan: Plan = (), *, error: Callable[[str], Exception] = _lost_reply) -> None:
        self.inner = inner
        self.io = inner.io
        self.calls: list[str] = []
        """The names of the methods called, in order."""
        self._error = error
        self.follow(plan)
        # Set on the instance: a store that lacks a capability must not seem to have it.
        if isinstance(inner, IndexedStore):
            self.ids_of = self._ids_of(inner)
        if isinstance(inner, ScannableStore):
            self.scan, self.count, self.clear = self._scan(inner), self._count(inner), self._clear(inner)
        if isinstance(inner, PartitionedStore):
            self.partition = inner.partition
        if isinstance(inner, WaitingStore):
            self.sleep = inner.sleep

    def follow(self, plan: Plan) -> None:
        """Use another plan from the next call on; ``()`` ends the faults."""
        self._next: Callable[[str], Fault]
        if callable(plan):
            self._next = plan
        else:
            faults: Iterator[Fault] = iter(plan)
            self._next = lambda _method: next(faults, Fault.NONE)

    async def load(self, id: str) -> Record | None:
        """Pass on, or fail."""
        return await self._call("load", lambda: self.inner.load(id))

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Pass on, or fail."""
        return await self._call("create", lambda: self.inner.create(record, write_id=write_id))

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Pass on, or fail."""
        return await self._call("replace", lambda: self.inner.replace(record, expected=expected, write_id=write_id))

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Pass on, or fail."""
        return await self._call("touch", lambda: self.inner.touch(id, idle_deadline))

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Pass on, or fail."""
        return await self._call("delete", lambda: self.inner.delete(id, expected=expected))

    async def aclose(self) -> None:
        """Close *inner*; never fails on purpose."""
        await self.inner.aclose()

    async def _call(self, method: str, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self.calls.append(method)
        fault = self._next(method)
        if fault is Fault.BEFORE:
            raise self._error(method)
        answer = await operation()
        if fault is Fault.AFTER:
            raise self._error(method)
        return answer

    def _ids_of(self, inner: IndexedStore) -> Callable[[str], Coroutine[Any, Any, Sequence[str]]]:
        return lambda label: self._call("ids_of", lambda: inner.ids_of(label))

    def _count(self, inner: ScannableStore) -> Callable[[], Coroutine[Any, Any, int]]:
        return lambda: self._call("count", inner.count)

    def _clear(self, inner: ScannableStore) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: self._call("clear", inner.clear)

    def _scan(self, inner: ScannableStore) -> Callable[[], AsyncIterator[str]]:
        async def scan() -> AsyncIterator[str]:
            self.calls.append("scan")
            fault = self._next("scan")
            if fault is Fault.BEFORE:
                raise self._error("scan")
            async for id in inner.scan():
                yield id
            if fault is Fault.AFTER:
                raise self._error("scan")

        return scan
