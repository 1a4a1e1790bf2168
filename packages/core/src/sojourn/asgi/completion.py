"""Work that is finished although the task that awaits it is cancelled meanwhile (FAILURES F17).

Its one rule: for stores alone that never cancel the task they are called in; any other gets a task of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

R = TypeVar("R")


class Completion(Generic[R]):
    """Await *work* to its end in the present task; a cancellation that came meanwhile is raised then.

    That spares a second task, and three turns of the event loop.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Coroutine[Any, Any, R]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, R]:
        """Drive the work step by step."""
        work = self._work
        cancelled: BaseException | None = None
        failure: BaseException | None = None
        while True:
            try:
                future = work.send(None) if failure is None else work.throw(failure)
            except StopIteration as done:
                if cancelled is not None:
                    raise cancelled from None
                result: R = done.value
                return result
            failure = None
            try:
                yield None if future is None else _Steadfast(future)
            except BaseException as error:  # noqa: BLE001 - the work's to handle, unless it is a cancellation from outside
                if _is_cancellation(error) and (future is None or not future.cancelled()):
                    cancelled = error
                else:
                    failure = error


def _is_cancellation(error: BaseException) -> bool:
    from asyncio import CancelledError

    return isinstance(error, CancelledError)


class _Steadfast:
    """A future that a task can wait for and cannot cancel: the task is cancelled once it is done."""

    __slots__ = ("_asyncio_future_blocking", "_future")

    def __init__(self, future: Any) -> None:
        future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does with what it waits for
        self._asyncio_future_blocking = True
        self._future = future

    def get_loop(self) -> Any:
        return self._future.get_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        self._future.add_done_callback(callback, context=context)

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        return False
