"""One blocking call on its connection: over a socket and a clock of the test's own, whatever the peer does and when."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from sojourn.manager import run_blocking
from sojourn_store_redis.errors import StrayReplyError
from sojourn_store_redis.transport import blocking as blocking_module
from sojourn_store_redis.transport.blocking import BlockingConnection
from sojourn_store_redis.transport.connection import open_connection

COMMAND = b"*1\r\n$4\r\nPING\r\n"
OK = b"+OK\r\n"
START = 1000.0


class Peer:
    """A socket and its clock: takes and gives the pieces it is told, each after its seconds of silence."""

    def __init__(self) -> None:
        self.now = START
        self.until = START
        self.taking: list[tuple[float, int]] = []
        self.giving: list[tuple[float, bytes]] = []
        self.got = b""
        self.waits = 0
        self.changes = 0
        """How often the time-out was set."""
        self.is_open = True
        self.error: BaseException | None = None
        """Raised when there is nothing left to give."""
        self._timeout: float | None = None

    @property
    def _sock(self) -> Peer:
        return self

    def disconnect(self) -> None:
        self.is_open = False

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0.0, "that would not wait at all"
        self._timeout = seconds
        self.changes += 1

    def send(self, data: Any) -> int:
        most = self._in_time(self.taking) if self.taking else len(data)
        self.got += bytes(data[:most])
        return min(most, len(data))

    def recv(self, most: int) -> bytes:
        if not self.giving and self.error is not None:
            self.waits += 1
            assert self.waits < 10, "asked again and again"
            raise self.error
        return self._in_time(self.giving)[:most] if self.giving else b""

    def _in_time(self, pieces: list[tuple[float, Any]]) -> Any:
        self.waits += 1
        assert self.is_open
        assert self._timeout is not None, "nothing ends the wait"
        assert self.now + self._timeout <= self.until, "the wait may outlast the call"
        silence, piece = pieces[0]
        if silence > self._timeout:
            pieces[0] = (silence - self._timeout, piece)
            self.now += self._timeout
            raise TimeoutError("timed out")
        self.now += silence
        del pieces[0]
        return piece


@contextmanager
def _held(peer: Peer) -> Iterator[BlockingConnection]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking_module, "time", SimpleNamespace(monotonic=lambda: peer.now))
        yield BlockingConnection(peer, 0)


@dataclass(frozen=True)
class Call:
    """What one call has to do with: its seconds, how the peer takes the command, and how it gives the replies."""

    seconds: float
    taking: list[tuple[float, int]]
    giving: list[tuple[float, bytes]]
    replies: list[bytes]

    @property
    def silence(self) -> float:
        return sum(silence for silence, _ in [*self.taking, *self.giving])

    def ask(self, peer: Peer, held: BlockingConnection) -> Any:
        peer.taking, peer.giving = list(self.taking), list(self.giving)
        peer.got, peer.waits, peer.until = b"", 0, peer.now + self.seconds
        return held.ask(COMMAND, len(self.replies), peer.until)


SILENCES = st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.02, 0.3, 1.0])


def _cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    at = sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=5)))
    return [whole[begin:end] for begin, end in zip([0, *at], [*at, len(whole)], strict=True)]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    replies = draw(st.lists(st.binary(max_size=30), min_size=1, max_size=3))
    packed = b"".join(b"$%d\r\n%s\r\n" % (len(reply), reply) for reply in replies)
    return Call(
        seconds=draw(st.sampled_from([0.0, 0.001, 0.05, 0.5, 5.0])),
        taking=[(draw(SILENCES), len(piece)) for piece in _cut(draw, COMMAND)],
        giving=[(draw(SILENCES), piece) for piece in _cut(draw, packed)],
        replies=replies,
    )


@given(st.lists(calls(), min_size=1, max_size=6))
@example([Call(0.05, [(0.0, 14)], [(0.02, OK)], [b"OK"]), Call(5.0, [(0.0, 14)], [(2.4, OK)], [b"OK"])])
def test_a_call_is_answered_if_there_is_time_and_no_wait_outlasts_it(plan: list[Call]) -> None:
    peer = Peer()
    with _held(peer) as held:
        for call in plan:
            try:
                replies = call.ask(peer, held)
            except TimeoutError:
                assert call.silence > call.seconds - 1e-6, "there was time"
                assert peer.now <= peer.until
                assert not peer.is_open, "what still comes would be taken for the reply to the next"
                return
            assert replies == call.replies
            assert peer.got == COMMAND
            assert peer.is_open
            if call.silence <= call.seconds / 2:
                assert peer.waits <= len(call.taking) + len(call.giving) + 1, "what a call in a hurry left costs a turn"


def test_a_time_out_that_will_do_is_not_set_again() -> None:
    peer = Peer()
    with _held(peer) as held:
        for n in range(100):
            assert Call(0.5, [(0.02 * (n % 3), 14)], [(0.01, OK)], [b"OK"]).ask(peer, held) == [b"OK"]
        assert peer.changes == 1


@pytest.mark.parametrize(
    "given_up", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), OSError(errno.ECONNRESET, "")]
)
def test_f17_a_call_that_is_broken_off_closes_the_connection(given_up: BaseException) -> None:
    peer = Peer()
    peer.error = given_up
    with _held(peer) as held, pytest.raises(type(given_up)):
        Call(0.5, [(0.0, 14)], [(0.0, b"$5\r\nhal")], [b"hello"]).ask(peer, held)
    assert not peer.is_open


def test_a_connection_that_the_system_gave_up_is_not_waited_for() -> None:
    peer = Peer()
    peer.error = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    with _held(peer) as held, pytest.raises(TimeoutError) as caught:
        Call(0.5, [(0.0, 14)], [], [b"OK"]).ask(peer, held)
    assert caught.value.errno == errno.ETIMEDOUT
    assert not peer.is_open


@pytest.mark.parametrize(
    ("giving", "error"), [(OK + OK, StrayReplyError), (b"+O", RedisConnectionError), (b"", RedisConnectionError)]
)
def test_f17_replies_that_nobody_asked_for_or_that_end_too_early_close_the_connection(
    giving: bytes, error: type[Exception]
) -> None:
    peer = Peer()
    with _held(peer) as held, pytest.raises(error):
        Call(0.5, [(0.0, 14)], [(0.0, giving)] if giving else [], [b"OK"]).ask(peer, held)
    assert not peer.is_open


class Refused:
    """A connection that blocks, as redis-py before 8 has it: to disconnect takes nothing by name."""

    is_closed = False

    def connect(self) -> None:
        raise ConnectionRefusedError

    def disconnect(self, *_: object) -> None:
        self.is_closed = True


def test_what_cannot_be_connected_is_closed_by_every_release_of_the_client() -> None:
    refused = Refused()
    with pytest.raises(ConnectionRefusedError):
        run_blocking(open_connection(refused))
    assert refused.is_closed
