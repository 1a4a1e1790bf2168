"""A Redis client over a dict, as far as readers use one, and what tests of readers share."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from sojourn import ForeignSession, Reader
from sojourn.testing import FakeClock

R = TypeVar("R")
NOW = FakeClock().time()


class Kept:
    """Keeps values with the milliseconds that they have left; -1 for no end."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[bytes | str, int]] = {}
        self.failure: Exception | None = None

    def pipeline(self, *, transaction: bool) -> _Pipeline:
        assert not transaction
        return _Pipeline(self)


class _Pipeline:
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._answers: list[Any] = []

    def get(self, key: str) -> None:
        self._answers.append(self._kept.values.get(key, (None, -2))[0])

    def pttl(self, key: str) -> None:
        self._answers.append(self._kept.values.get(key, (None, -2))[1])

    def delete(self, key: str) -> None:
        self._answers.append(self._kept.values.pop(key, None) is not None)

    def execute(self) -> list[Any]:
        if self._kept.failure is not None:
            raise self._kept.failure
        return self._answers


def run(work: Coroutine[Any, Any, R]) -> R:
    """Drive a reader that does not suspend."""
    try:
        work.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    raise AssertionError("the reader suspended")


def read(reader: Reader, value: str) -> ForeignSession | None:
    return run(reader.read(value))
