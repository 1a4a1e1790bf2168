"""Many writers of one session at the same time: every write counts, and nobody is told of a conflict (FAILURES F29)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from sojourn import MemoryStore, SessionManager, new_secret
from sojourn.errors import SessionConflictError, StoreUnavailableError
from sojourn.manager.shielding import MOST_THREADS, Turns
from sojourn.settings import SessionSettings
from sojourn.stores import StoreIO
from sojourn.testing import Fault, FaultyStore, RecordingObserver
from sojourn_store_redis import ClusteredRedisStore, LocalCacheLimits, RedisStore
from tests.core.models import Visit, make_manager
from tests.servers import RedisServer, wait_until

WRITERS = 20
MOST_CALLS_OF_A_TURN = 126
"""What was reached among so many writers: the core's calls of each beyond those of one alone; a change may only lower it."""
SECRET = new_secret()
KINDS: dict[str, Any] = {"redis": RedisStore, "clustered-redis": ClusteredRedisStore}


def manager(kind: str, server: RedisServer, observer: RecordingObserver, **settings: Any) -> SessionManager[Visit]:
    store: Any = KINDS[kind].from_url(server.url, timeout=20.0, connect_timeout=20.0)
    values = {"preset": "testing", "secret": SECRET, "request_deadline": "60s", **settings}
    return SessionManager(Visit, store, settings=SessionSettings(_env_file=None, **values), observers=[observer])


def names(observer: RecordingObserver) -> Counter[str]:
    return Counter(event.name for event in observer.events)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_f29_twenty_tasks_that_write_one_session_all_count(
    kind: str, processes: int, redis_server: RedisServer
) -> None:

    async def main() -> None:
        observer = RecordingObserver()
        nodes = [manager(kind, redis_server, observer) for _ in range(processes)]
        session = await nodes[0].open(None)
        session.data.note = "begun"
        token = (await nodes[0].commit(session)).token
        opened = [(node, await node.open(token)) for node in nodes for _ in range(WRITERS // processes)]
        for number, (_, each) in enumerate(opened):
            each.data.count += 1
            each.data.log.append(f"{number}")
        await asyncio.gather(*(node.commit(each) for node, each in opened))
        kept = (await nodes[0].open(token, fresh=True)).data
        assert kept.count == WRITERS
        assert sorted(kept.log, key=int) == [f"{number}" for number in range(WRITERS)]
        if processes == 1:
            # each got what the one before it had stored: in the order in which they came, and without a conflict
            assert kept.log == [f"{number}" for number in range(WRITERS)]
            assert names(observer)["conflict"] == 0
        for node in nodes:
            await node.aclose()
            turns = node.engine.turns
            assert turns is not None
            assert turns.lines == {}

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_f29_a_write_among_twenty_sets_no_timer_of_its_own_and_merges_in_few_calls(
    kind: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers, frames = list[float](), list[FrameType]()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if (
            event == "call"
            and frame not in frames
            and re.search(r"/packages/core/|/copy\.py", frame.f_code.co_filename)
        ):
            frames.append(frame)

    async def counted(node: SessionManager[Visit], token: str | None, writers: int) -> tuple[int, float]:
        opened = [await node.open(token) for _ in range(writers)]
        for each in opened:
            each.data.count += 1
        timers.clear()
        frames.clear()
        sys.setprofile(note)
        try:
            await asyncio.gather(*(node.commit(each) for each in opened))
        finally:
            sys.setprofile(None)
        return len(timers), len(frames) / writers

    async def main() -> None:
        node = manager(kind, redis_server, RecordingObserver())
        session = await node.open(None)
        session.data.note = "begun"
        token = (await node.commit(session)).token
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def noted(when: float, *given: Any, **more: Any) -> asyncio.TimerHandle:
            if when > loop.time() + 30.0:  # the deadline of a request: connections have shorter ones
                timers.append(when)
            return call_at(when, *given, **more)

        monkeypatch.setattr(loop, "call_at", noted)
        alone = [await counted(node, token, 1) for _ in range(3)]
        among = [await counted(node, token, WRITERS) for _ in range(3)]
        # one alarm for all who wait
        assert max(timed for timed, _ in among) <= 1
        assert min(calls for _, calls in among) - min(calls for _, calls in alone) <= MOST_CALLS_OF_A_TURN
        await node.aclose()

    asyncio.run(main())


def test_f29_twenty_requests_that_write_one_session_read_it_from_the_local_copy(redis_server: RedisServer) -> None:
    async def main() -> None:
        limits = LocalCacheLimits(max_staleness=60.0)
        store = ClusteredRedisStore.from_url(redis_server.url, timeout=20.0, connect_timeout=20.0, limits=limits)
        node = SessionManager(
            Visit,
            store,
            settings=SessionSettings(_env_file=None, preset="testing", secret=SECRET, request_deadline="60s"),
        )
        session = await node.open(None)
        session.data.note = "begun"
        token = (await node.commit(session)).token

        async def visit() -> None:
            session = await node.open(token)
            session.data.count += 1
            await node.commit(session)

        for _ in range(600):
            if store.cache_stats()["hits"]:
                break
            await node.open(token)
            await asyncio.sleep(0.1)
        before = store.cache_stats()
        await asyncio.gather(*(visit() for _ in range(WRITERS)))
        after = store.cache_stats()
        assert [after[name] - before[name] for name in ("hits", "misses", "bypasses")] == [WRITERS, 0, 0]
        assert (await node.open(token, fresh=True)).data.count == WRITERS
        await node.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("left", [(0.1, 600.0), (600.0, 0.1)])
def test_f29_each_task_waits_for_its_turn_as_long_as_it_may(left: tuple[float, float]) -> None:
    async def main() -> None:
        turns = Turns()
        line = turns.lines["id"] = deque()
        waiting = [turns.stand("id", line, blocks=False) for _ in left]
        tasks = [asyncio.create_task(turn.wait(seconds)) for turn, seconds in zip(waiting, left, strict=True)]
        # the one whose time is short is told, wherever it stands, and nobody else is
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert done == {tasks[left.index(min(left))]}
        assert not any(turn.is_given for turn in waiting)
        later = tasks[left.index(max(left))]
        again = asyncio.create_task(turns.stand("id", line, blocks=False).wait(0.1))
        await again
        assert not later.done()
        later.cancel()
        await asyncio.wait([later])

    asyncio.run(main())


def test_f29_who_may_wait_longer_is_told_after_the_others() -> None:
    async def main() -> None:
        turns = Turns()
        line = turns.lines["id"] = deque()
        waits = [turns.stand("id", line, blocks=False).wait(seconds) for seconds in (0.3, 0.1, 0.2)]
        # one timer serves all, so it has to be set again each time it has rung
        async with asyncio.timeout(60.0):
            await asyncio.gather(*waits)

    asyncio.run(main())


def test_f29_a_turn_is_waited_for_in_one_loop_after_the_other_and_leaves_nothing() -> None:
    turns = Turns()
    line = turns.lines["id"] = deque()

    async def main() -> None:
        given, late = (turns.stand("id", line, blocks=False) for _ in range(2))
        given.give()
        await given.wait(600.0)
        await late.wait(0.0)
        assert turns._alarm is not None
        assert turns._alarm.dues == {}

    asyncio.run(main())
    asyncio.run(main())


@pytest.mark.parametrize("kind", ["memory", *KINDS])
def test_f29_threads_that_write_one_session_all_count(kind: str, redis_server: RedisServer) -> None:
    observer = RecordingObserver()
    if kind == "memory":
        node = make_manager(MemoryStore(), settings={"request_deadline": "60s"}, observers=[observer])
    else:
        node = manager(kind, redis_server, observer)
    session = node.blocking.open(None)
    session.data.note = "begun"
    token = node.blocking.commit(session).token
    writers = 12
    start = threading.Barrier(writers)

    def write(_: int) -> None:
        mine = node.blocking.open(token)
        mine.data.count += 1
        start.wait()
        node.blocking.commit(mine)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    assert node.blocking.open(token).data.count == writers
    node.blocking.close()


def gated(observer: RecordingObserver, **settings: Any) -> tuple[SessionManager[Any], Any, asyncio.Event]:
    """Return a manager over a store that suspends, whose writes wait for an event."""
    gate = asyncio.Event()

    class Gated(FaultyStore):
        async def replace(self, *arguments: Any, **options: Any) -> Any:
            await gate.wait()
            return await super().replace(*arguments, **options)

    store = Gated(MemoryStore())
    store.io = StoreIO.ASYNC
    return make_manager(store, observers=[observer], settings=settings), store, gate


def test_f29_readers_do_not_wait_and_a_crowd_is_told_to_come_back() -> None:
    async def main() -> None:
        observer = RecordingObserver()
        node, _, gate = gated(observer, request_deadline="60s")
        token = (await node.commit(await begun(node))).token
        sessions = [await node.open(token) for _ in range(40)]
        for each in sessions:
            each.data.count += 1
        commits = [asyncio.create_task(node.commit(each)) for each in sessions]
        await asyncio.sleep(0)
        assert (await node.open(token)).data.count == 0
        gate.set()
        answers = await asyncio.gather(*commits, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, StoreUnavailableError)]
        assert len(refused) == 40 - 33  # one writes and 32 wait
        assert all(answer.retry_after > 0 for answer in refused)
        assert (await node.open(token)).data.count == 33

    asyncio.run(main())


async def begun(node: SessionManager[Any]) -> Any:
    session = await node.open(None)
    session.data.note = "begun"
    return session


def test_f29_a_turn_is_handed_on_inside_a_loop_without_waking_it_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []  # of what threads wait for, which a task has no use for

    async def main() -> None:
        node, _, gate = gated(RecordingObserver(), request_deadline="60s")
        token = (await node.commit(await begun(node))).token
        sessions = [await node.open(token) for _ in range(WRITERS)]
        for each in sessions:
            each.data.count += 1
        monkeypatch.setattr(threading, "Event", lambda: made.append(None))
        loop: Any = asyncio.get_running_loop()
        woken: list[Any] = []
        loop.call_soon_threadsafe = lambda *call: woken.append(call)  # as a thread does it: a write to a socket
        try:
            commits = [asyncio.create_task(node.commit(each)) for each in sessions]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*commits)
        finally:
            del loop.call_soon_threadsafe
        assert (woken, made) == ([], [])
        assert (await node.open(token)).data.count == WRITERS

    asyncio.run(main())


def test_f29_who_waits_too_long_is_told_of_a_conflict_and_holds_nobody_up() -> None:
    async def main() -> None:
        observer = RecordingObserver()
        node, _, gate = gated(observer, request_deadline="50ms")
        token = (await node.commit(await begun(node))).token
        sessions = [await node.open(token) for _ in range(3)]
        for each in sessions:
            each.data.count += 1
        writing, *waiting = [asyncio.create_task(node.commit(each)) for each in sessions]
        for commit in waiting:
            with pytest.raises(SessionConflictError):
                await commit
        gate.set()
        await writing
        assert (await node.open(token)).data.count == 1
        assert node.engine.turns is not None
        assert node.engine.turns.lines == {}

    asyncio.run(main())


def test_f29_who_is_cancelled_while_it_waits_holds_nobody_up() -> None:
    async def main() -> None:
        observer = RecordingObserver()
        node, _, gate = gated(observer, request_deadline="60s")
        token = (await node.commit(await begun(node))).token
        sessions = [await node.open(token) for _ in range(4)]
        for each in sessions:
            each.data.count += 1
        commits = [asyncio.create_task(node.commit(each)) for each in sessions]
        for _ in range(5):
            await asyncio.sleep(0)
        commits[1].cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*commits, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        assert [answer for answer in answers if isinstance(answer, Exception)] == []
        assert (await node.open(token)).data.count in {3, 4}
        assert node.engine.turns is not None
        assert node.engine.turns.lines == {}

    asyncio.run(main())


def test_f29_a_write_that_fails_hands_the_turn_on() -> None:
    async def main() -> None:
        observer = RecordingObserver()
        node, store, gate = gated(observer, request_deadline="60s", retry_attempts=0)
        token = (await node.commit(await begun(node))).token
        sessions = [await node.open(token) for _ in range(3)]
        for each in sessions:
            each.data.count += 1
        commits = [asyncio.create_task(node.commit(each)) for each in sessions]
        await asyncio.sleep(0)
        store.follow([Fault.BEFORE])
        gate.set()
        answers = await asyncio.gather(*commits, return_exceptions=True)
        assert isinstance(answers[0], StoreUnavailableError)
        assert not any(isinstance(answer, Exception) for answer in answers[1:])
        assert (await node.open(token)).data.count == 2
        assert node.engine.turns is not None
        assert node.engine.turns.lines == {}

    asyncio.run(main())


def test_f29_raise_still_raises_at_once() -> None:
    async def main() -> None:
        observer = RecordingObserver()
        node, _, gate = gated(observer, request_deadline="60s", on_conflict="raise")
        gate.set()
        token = (await node.commit(await begun(node))).token
        first, second = await node.open(token), await node.open(token)
        first.data.count += 1
        second.data.count += 1
        await node.commit(first)
        with pytest.raises(SessionConflictError):
            await node.commit(second)

    asyncio.run(main())


def test_f29_a_visitor_does_not_hold_every_thread() -> None:
    gate, begun_writing = threading.Event(), threading.Event()

    class Gated(FaultyStore):
        async def replace(self, *arguments: Any, **options: Any) -> Any:
            begun_writing.set()
            gate.wait(30)
            return await super().replace(*arguments, **options)

    store = Gated(MemoryStore())
    store.io = StoreIO.BLOCKING
    node = make_manager(store, settings={"request_deadline": "60s"})
    session = node.blocking.open(None)
    session.data.note = "begun"
    token = node.blocking.commit(session).token
    sessions = [node.blocking.open(token) for _ in range(1 + MOST_THREADS + 1)]
    for each in sessions:
        each.data.count += 1
    turns = node.engine.turns
    assert turns is not None
    with ThreadPoolExecutor(len(sessions)) as pool:
        commits = [pool.submit(node.blocking.commit, sessions[0])]
        assert begun_writing.wait(30)
        commits += [pool.submit(node.blocking.commit, each) for each in sessions[1:-1]]
        wait_until(lambda: [len(line) for line in turns.lines.values()] == [MOST_THREADS], "the threads do not wait")
        with pytest.raises(StoreUnavailableError, match="16 requests wait to write the session"):
            node.blocking.commit(sessions[-1])
        gate.set()
        for commit in commits:
            commit.result(30)
    assert node.blocking.open(token).data.count == 1 + MOST_THREADS
    assert turns.lines == {}


def test_f29_code_that_blocks_inside_a_loop_does_not_wait_for_a_task_of_that_loop() -> None:
    store = FaultyStore(MemoryStore())
    store.io = StoreIO.BLOCKING
    node = make_manager(store, settings={"request_deadline": "1s"})
    session = node.blocking.open(None)
    session.data.note = "begun"
    token = node.blocking.commit(session).token
    turns = node.engine.turns
    assert turns is not None

    async def main() -> None:
        mine = node.blocking.open(token)
        mine.data.count += 1
        held = turns.lines[mine.id or ""] = deque()  # as if a task of this loop were writing
        node.blocking.commit(mine)
        assert held == deque()

    asyncio.run(main())
    assert node.blocking.open(token).data.count == 1


def test_f21_f29_a_forked_child_waits_for_nobody_who_writes_in_its_parent() -> None:
    store = FaultyStore(MemoryStore())
    store.io = StoreIO.BLOCKING
    node = make_manager(store, settings={"request_deadline": "1s"})
    session = node.blocking.open(None)
    session.data.note = "begun"
    token = node.blocking.commit(session).token
    turns = node.engine.turns
    assert turns is not None
    mine = node.blocking.open(token)
    mine.data.count += 1
    turns.lines[mine.id or ""] = deque()  # another thread writes it
    with turns.lock:
        child = os.fork()
        if child == 0:
            try:
                node.blocking.commit(mine)
                os._exit(int(node.blocking.open(token).data.count != 1))
            except BaseException:
                os._exit(2)
    ended: list[int] = []

    def has_ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        ended.extend([status] * (pid == child))
        return pid == child

    try:
        wait_until(has_ended, "the child waits for its parent's writer")
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended[0]) == 0
    assert len(turns.lines) == 1
