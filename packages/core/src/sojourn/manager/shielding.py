"""What needs asyncio: work that outlives the cancellation of its task, and blocking stores in worker threads.

asyncio is imported inside the functions, so that WSGI applications never load it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from sojourn.manager.guarded_store import run_blocking

R = TypeVar("R")


def shield(work: Coroutine[Any, Any, R], *, spares_tasks: bool) -> Awaitable[R]:
    """Finish *work* although the client disconnects: a commit is never left half-way (FAILURES F17).

    The time-outs of the store bound the wait. With *spares_tasks* the stores never cancel the task that
    calls them, so the work goes on in that task; otherwise it gets a task of its own.
    """
    return _Steps(work) if spares_tasks else _in_a_task(work)


class _Steps(Generic[R]):
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
                yield None if future is None else _Uncancellable(future)
            except BaseException as error:  # noqa: BLE001 - the work's to handle, unless it is a cancellation from outside
                if is_cancellation(error) and (future is None or not future.cancelled()):
                    cancelled = error
                else:
                    failure = error


class _Uncancellable:
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


async def _in_a_task(work: Coroutine[Any, Any, R]) -> R:
    import asyncio

    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:  # some cancel again and again until they are heard
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


async def in_a_thread(work: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine of a blocking store in a worker thread."""
    import asyncio

    return await asyncio.to_thread(run_blocking, work)


def is_cancellation(error: BaseException) -> bool:
    """Tell whether *error* cancels a task."""
    from asyncio import CancelledError

    return isinstance(error, CancelledError)
