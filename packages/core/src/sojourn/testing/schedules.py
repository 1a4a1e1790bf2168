"""Run two suspending programs under a scheduler that decides, at every suspension, which of them goes on.

The one rule: the schedule follows from its list of switches alone, so that every interleaving can be listed and
repeated. Only what waits for a server or a lock takes part when it is ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sojourn.stores.contract import Store
from sojourn.testing.calls import Answer, Call
from sojourn.testing.programs import Done
from sojourn.testing.rules import violated

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")
_SPINS = 12  # turns of the loop that a task gets to reach its next suspension
_QUIET = 0.02  # seconds without progress after which the tasks that are ready go on without the others


class _Stepped(Awaitable[T]):
    """Await a coroutine and ask for a turn after each of its suspensions."""

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
    """Run programs; *switches* says at each turn whether the other program goes on (absent: it does not).

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
    # a program that was held up where it was to go on leads to lists that another schedule led to
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
