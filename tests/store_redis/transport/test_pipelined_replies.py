"""The queue of those who wait on one connection: whatever happens in whatever order, nobody gets another's reply."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from sojourn_store_redis.errors import QueueFullError, StrayReplyError
from sojourn_store_redis.transport.pipelined import ReplyQueue

SECONDS = 10.0
LIMIT = 12
LOST = redis.ConnectionError("lost")


class Caller:
    """Wait as a future does; giving up is final."""

    def __init__(self, commands: list[int], *, is_batch: bool) -> None:
        self.wanted: Any = commands if is_batch else commands[0]
        self.results: list[Any] = []
        self.gave_up = False

    def done(self) -> bool:
        return self.gave_up or bool(self.results)

    def set_result(self, result: Any, /) -> None:
        assert not self.gave_up, "a caller that has given up was called back"
        self.results.append(result)


class Connection:
    """A queue with the server at its other end, which answers each command with its own number."""

    def __init__(self) -> None:
        self.queue = ReplyQueue(seconds=SECONDS, limit=LIMIT)
        self.unanswered: deque[int] = deque()
        self.joined: list[tuple[Caller, float]] = []
        self.silent_since = 0.0
        """The last moment at which something came, or nobody waited."""
        self.first_since: float | None = None
        """When the first call after that was sent."""


class Interleavings(RuleBasedStateMachine):
    """Sends, replies, cancellations, time-outs, disconnections and late replies in any order."""

    callers = Bundle("callers")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.commands = 0
        self.connection = Connection()
        self.everybody: list[Caller] = []

    @rule(
        target=callers,
        batch=st.none() | st.integers(1, 4),
        seconds_left=st.none() | st.sampled_from([0.0, 1.0, 4.0, 15.0]),
    )
    def a_caller_sends(self, batch: int | None, seconds_left: float | None) -> Caller:
        numbers = list(range(self.commands, self.commands + (batch or 1)))
        caller = Caller(numbers, is_batch=batch is not None)
        queue = self.connection.queue
        if len(queue.waiters) >= LIMIT:
            with pytest.raises(QueueFullError, match="12 calls"):
                queue.add(caller, self.now, batch=batch, seconds_left=seconds_left)
            caller.gave_up = True
            return caller
        due = queue.add(caller, self.now, batch=batch, seconds_left=seconds_left)
        assert due == self.now + (SECONDS if seconds_left is None else min(seconds_left, SECONDS))
        self.commands += len(numbers)
        if not self.connection.unanswered:
            self.connection.silent_since = self.now
        if self.connection.first_since is None:
            self.connection.first_since = self.now
        self.connection.unanswered.extend(numbers)
        self.connection.joined.append((caller, due))
        self.everybody.append(caller)
        return caller

    @precondition(lambda self: self.connection.unanswered)
    @rule()
    def the_server_replies(self) -> None:
        self.connection.silent_since, self.connection.first_since = self.now, None
        self.connection.queue.receive(self.connection.unanswered.popleft())

    @precondition(lambda self: self.connection.unanswered)
    @rule()
    def a_part_of_a_reply_comes(self) -> None:
        self.connection.queue.arrivals += 1
        self.connection.silent_since, self.connection.first_since = self.now, None

    @precondition(lambda self: not self.connection.unanswered)
    @rule()
    def the_server_says_what_nobody_asked_for(self) -> None:
        with pytest.raises(StrayReplyError):
            self.connection.queue.receive("stray")
        self.the_connection_breaks()

    @rule(caller=consumes(callers))
    def a_caller_is_cancelled(self, caller: Caller) -> None:
        caller.gave_up = caller.gave_up or not caller.results

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 7.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        deadline = self.connection.queue.next_deadline()
        self.now += seconds
        if deadline is None or deadline > self.now:
            before = [len(caller.results) for caller in self.everybody]
            assert not self.connection.queue.expire(self.now), "given up before anybody's deadline"
            assert [len(caller.results) for caller in self.everybody] == before
            return
        connection = self.connection
        is_dead = connection.queue.expire(self.now)
        if is_dead:
            assert self.now - connection.silent_since >= SECONDS, "given up though something came"
            self.the_connection_breaks()
        elif connection.unanswered and connection.first_since is not None:
            assert self.now - connection.first_since < SECONDS, "kept though nothing came"
        for caller, due in self.connection.joined:
            assert caller.done() or due > self.now, "a caller waits beyond its deadline"

    @rule()
    def the_connection_breaks(self) -> None:
        self.connection.queue.fail_all(LOST)
        assert all(caller.done() for caller in self.everybody), "somebody waits on a connection that is gone"
        assert len(self.connection.queue.waiters) == 0
        assert self.connection.queue.next_deadline() is None
        self.connection = Connection()

    @invariant()
    def everybody_has_their_own_reply_or_an_error(self) -> None:
        for caller in self.everybody:
            assert len(caller.results) <= 1
            for result in caller.results:
                assert isinstance(result, redis.ConnectionError | redis.TimeoutError) or result == caller.wanted

    def teardown(self) -> None:
        while self.connection.unanswered:
            self.the_server_replies()
        assert all(caller.done() for caller in self.everybody)
        assert len(self.connection.queue.waiters) == 0


TestInterleavings = Interleavings.TestCase


def test_an_error_among_the_replies_of_a_batch_is_one_of_them() -> None:
    queue = ReplyQueue(seconds=1.0, limit=1)
    caller = Caller([1, 2], is_batch=True)
    queue.add(caller, 0.0, batch=2)
    error = redis.ResponseError("ERR")
    queue.receive(error)
    assert not caller.done()
    queue.receive(2)
    assert caller.results == [[error, 2]]


def test_a_connection_on_which_nothing_comes_is_given_up_after_the_time_of_the_first_call() -> None:
    queue = ReplyQueue(seconds=10.0, limit=5)
    first, second = Caller([1], is_batch=False), Caller([2], is_batch=False)
    queue.add(first, 0.0)
    queue.add(second, 5.0)
    first.gave_up = True  # its place still counts
    assert queue.expire(9.0) is False
    assert queue.expire(10.0) is True
    queue.fail_all(LOST)
    assert second.results == [LOST]


def test_f25_a_reply_that_is_late_ends_the_wait_of_its_caller_alone() -> None:
    queue = ReplyQueue(seconds=10.0, limit=5)
    large, small = Caller([1], is_batch=False), Caller([2], is_batch=False)
    queue.add(large, 0.0)
    queue.arrivals += 1  # a part of the large reply
    queue.add(small, 5.0)
    assert queue.next_deadline() == 10.0
    queue.arrivals += 1
    assert queue.expire(10.0) is False
    assert [type(result) for result in large.results] == [redis.TimeoutError]
    queue.receive(1)
    queue.receive(2)
    assert small.results == [2]
    assert len(large.results) == 1
    assert queue.next_deadline() is None


def test_f25_a_line_of_callers_who_gave_up_is_still_watched_for_silence() -> None:
    queue = ReplyQueue(seconds=10.0, limit=5)
    queue.add(Caller([1], is_batch=False), 0.0)
    queue.arrivals += 1
    assert queue.expire(10.0) is False
    queue.arrivals += 1
    assert queue.next_deadline() == 20.0
    assert queue.expire(20.0) is False
    assert queue.next_deadline() == 30.0
    assert queue.expire(30.0) is True


def test_a_less_patient_caller_gives_up_alone() -> None:
    queue = ReplyQueue(seconds=1.0, limit=5)
    patient, hasty = Caller([1], is_batch=False), Caller([2], is_batch=False)
    queue.add(patient, 0.0)
    assert queue.add(hasty, 0.0, seconds_left=0.25) == 0.25
    assert queue.next_deadline() == 0.25
    assert queue.expire(0.25) is False
    assert [type(result) for result in hasty.results] == [redis.TimeoutError]
    assert not patient.done()
    assert queue.next_deadline() == 1.0
    queue.receive(1)
    queue.receive(2)
    assert patient.results == [1]
    assert len(hasty.results) == 1
