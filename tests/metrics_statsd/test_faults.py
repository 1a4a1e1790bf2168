"""F22: whatever the agent or the network does, no call raises and none takes 50 ms."""

from __future__ import annotations

import gc
import logging
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sojourn_metrics_statsd import StatsdMetrics
from sojourn_metrics_statsd.metrics import LOOKUP_AGAIN, LOOKUP_EVERY, REST, DatagramClient
from tests.beats import Beats, lasts
from tests.metrics_statsd.agents import LOOPBACK, Agent

LONGEST_CALL = 0.05


def longest_call(metrics: StatsdMetrics, calls: int = 200) -> float:
    """Send figures of every kind; return how long the slowest call waited for anything, in seconds of beats.

    A call that the system only took off a busy processor has no voluntary context switch, and did not wait.
    """
    longest = 0.0
    with Beats() as beats:
        for number in range(calls):
            for call in (
                lambda: metrics.increment("count", 1, {"reason": "x"}),
                lambda: metrics.timing("duration", 0.1),
                lambda: metrics.gauge("level", number),  # noqa: B023 - called at once
            ):
                waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
                before = beats.seconds
                call()
                elapsed = beats.seconds - before
                if resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > waits:
                    longest = max(longest, elapsed)
    return longest


def never_waits(make: Callable[[], StatsdMetrics], calls: int = 200) -> bool:
    """Tell whether no call takes 50 ms; a busy machine may lend a thread a lock for longer, but not three times."""
    return any(longest_call(make(), calls) < LONGEST_CALL for _ in range(3))


def test_the_measure_sees_a_call_that_waits() -> None:
    class Waiting(StatsdMetrics):
        def increment(self, *arguments, **named) -> None:
            time.sleep(10 * LONGEST_CALL)  # as many turns as leave no doubt

    assert not never_waits(Waiting, 1)


@pytest.fixture(params=[False, True], ids=["direct", "buffered"])
def buffer(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def opened() -> Iterator[Callable[..., StatsdMetrics]]:
    sinks: list[StatsdMetrics] = []

    def open_sink(**settings) -> StatsdMetrics:
        sinks.append(StatsdMetrics(**settings))
        return sinks[-1]

    yield open_sink
    for metrics in sinks:
        metrics.close()


def test_f22_an_agent_that_does_not_read_costs_nothing_and_later_gets_more(
    tmp_path: Path, buffer: bool, opened: Callable[..., StatsdMetrics]
) -> None:
    with Agent.unix(tmp_path / "agent") as agent:
        metrics = opened(socket_path=str(tmp_path / "agent"), buffer=buffer)
        assert never_waits(lambda: metrics, 10_000 if buffer else 3_000)
        received = agent.drain()
        assert 0 < received < 3_000
        metrics.increment("after")
        agent.until("after:1|c")


def test_f22_a_full_send_buffer_drops_without_waiting(opened: Callable[..., StatsdMetrics], tmp_path: Path) -> None:
    with Agent.unix(tmp_path / "agent"):
        metrics = opened(socket_path=str(tmp_path / "agent"))
        metrics.increment("count")
        full = metrics._client.get_socket()
        with pytest.raises(BlockingIOError):
            while True:
                full.send(b"x")
        assert never_waits(lambda: metrics)
        assert metrics._client.get_socket() is full


@pytest.mark.parametrize("host", ["240.0.0.1", "192.0.2.1", "255.255.255.255", "::ffff:192.0.2.1", "fe80::1%lo"])
def test_f22_an_unreachable_host_costs_nothing(host: str, buffer: bool, opened: Callable[..., StatsdMetrics]) -> None:
    assert never_waits(lambda: opened(host=host, buffer=buffer))


def test_f22_a_closed_port_costs_nothing(buffer: bool, opened: Callable[..., StatsdMetrics]) -> None:
    with Agent.udp() as agent:
        port = agent.port
    assert never_waits(lambda: opened(host=LOOPBACK, port=port, buffer=buffer))


def test_f22_a_missing_unix_socket_costs_nothing(
    tmp_path: Path, buffer: bool, opened: Callable[..., StatsdMetrics]
) -> None:
    assert never_waits(lambda: opened(socket_path=str(tmp_path / "missing"), buffer=buffer))
    (tmp_path / "file").write_text("")
    assert never_waits(lambda: opened(socket_path=str(tmp_path / "file"), buffer=buffer))
    with Agent.unix(tmp_path / "abandoned"):
        pass
    assert never_waits(lambda: opened(socket_path=str(tmp_path / "abandoned"), buffer=buffer))


def test_f22_a_stream_socket_is_not_spoken_to(tmp_path: Path, opened: Callable[..., StatsdMetrics]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "stream"))
        listener.listen(1)
        listener.settimeout(0.1)
        assert never_waits(lambda: opened(socket_path=str(tmp_path / "stream")))
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_f22_a_restarted_agent_gets_figures_again(
    kind: str, tmp_path: Path, buffer: bool, opened: Callable[..., StatsdMetrics]
) -> None:
    path = tmp_path / "agent"
    with Agent.udp() if kind == "udp" else Agent.unix(path) as agent:
        port = agent.port if kind == "udp" else 8125
        metrics = opened(host=LOOPBACK, port=port, socket_path=None if kind == "udp" else str(path), buffer=buffer)
        metrics.increment("before")
        assert agent.datagram() == "before:1|c\n"
    path.unlink(missing_ok=True)
    assert never_waits(lambda: metrics)
    with Agent.udp(port) if kind == "udp" else Agent.unix(path) as agent:
        deadline = time.monotonic() + REST + 30
        while agent.is_silent(0.02):
            assert time.monotonic() < deadline
            assert never_waits(lambda: metrics, 1)


def test_f22_while_the_agent_is_away_there_is_one_warning_a_second(
    tmp_path: Path, opened: Callable[..., StatsdMetrics], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = opened(socket_path=str(tmp_path / "missing"))
    seconds = [100.0]
    metrics._client._monotonic = lambda: seconds[0]
    with caplog.at_level(logging.WARNING):
        for seconds[0] in (100.0, 100.5, 101.0 - 1e-6, 101.0, 101.9, 102.0):
            longest_call(metrics, 10)
    assert len(caplog.records) == 3


def test_f22_an_error_in_the_client_stays_there(opened: Callable[..., StatsdMetrics]) -> None:
    metrics = opened()

    def broken(*arguments):
        raise RuntimeError("broken")

    metrics._client.increment = metrics._client.timing = metrics._client.gauge = broken  # type: ignore[method-assign]
    assert never_waits(lambda: metrics, 3)


def test_f22_values_of_other_types_do_not_raise(opened: Callable[..., StatsdMetrics]) -> None:
    metrics = opened(dialect="dogstatsd")
    junk: list[object] = [None, "text", 10**400, b"bytes", object(), [], 1j]
    for value in junk:
        metrics.increment("count", value)  # type: ignore[arg-type]
        metrics.timing("duration", value)  # type: ignore[arg-type]
        metrics.gauge("level", value)  # type: ignore[arg-type]
        metrics.increment("count", 1, value)  # type: ignore[arg-type]
        metrics.increment(value)  # type: ignore[arg-type]


def test_a_name_is_never_looked_up_by_the_thread_of_a_request(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., StatsdMetrics]
) -> None:
    lookups: list[threading.Thread] = []
    released = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host, *arguments, **named):
        if host == "agent.test":
            lookups.append(threading.current_thread())
            released.wait(30)
            return look_up(LOOPBACK, *arguments, **named)
        assert host == LOOPBACK
        return look_up(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with Agent.udp() as agent:
        with lasts(at_most=5.0):
            metrics = opened(host="agent.test", port=agent.port)
        assert never_waits(lambda: metrics)
        assert agent.is_silent()
        released.set()
        deadline = time.monotonic() + 30
        while agent.is_silent(0.02):
            assert time.monotonic() < deadline
            assert never_waits(lambda: metrics, 1)
    assert len(lookups) == 1
    assert lookups[0] is not threading.current_thread()
    assert lookups[0].daemon


def test_f24_a_host_without_an_address_does_not_keep_the_service_from_starting(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., StatsdMetrics], caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*arguments, **named):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with caplog.at_level(logging.WARNING):
        assert never_waits(lambda: opened(host="agent.test"))
    assert {record.name for record in caplog.records} == {"sojourn_metrics_statsd.metrics"}
    assert "agent.test" in caplog.text


def client(lookup: Callable[[str, int], str], monotonic: Callable[[], float], port: int) -> DatagramClient:
    return DatagramClient(
        host="agent.test",
        port=port,
        socket_path=None,
        prefix="",
        tags=(),
        dialect="plain",
        buffer=False,
        lookup=lookup,
        monotonic=monotonic,
    )


def settle(sender: DatagramClient) -> None:
    if sender._lookup_thread is not None:
        sender._lookup_thread.join()


def test_an_agent_that_moved_is_found_after_a_minute() -> None:
    seconds = [100.0]
    addresses = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])
    with Agent.udp() as old, Agent(socket.AF_INET, ("127.0.0.2", old.port)) as new:
        sender = client(lambda host, port: next(addresses), lambda: seconds[0], old.port)
        sender.increment("first")
        assert old.datagram() == "first:1|c\n"
        seconds[0] += LOOKUP_EVERY - 0.001
        sender.increment("second")
        settle(sender)
        sender.increment("third")
        assert old.lines(2) == ["second:1|c", "third:1|c"]
        seconds[0] += 0.001
        sender.increment("fourth")
        settle(sender)
        sender.increment("fifth")
        new.until("fifth:1|c")
        kept = sender.get_socket()
        seconds[0] += LOOKUP_EVERY
        sender.increment("sixth")
        settle(sender)
        assert sender.get_socket() is kept
        sender.shut()


def test_a_failed_lookup_is_repeated_and_keeps_the_known_address() -> None:
    seconds = [100.0]
    answers: list[str | Exception] = [OSError("down"), "127.0.0.1", OSError("down"), UnicodeError("label too long")]

    def lookup(host: str, port: int) -> str:
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    with Agent.udp() as agent:
        sender = client(lookup, lambda: seconds[0], agent.port)
        sender.increment("lost")
        seconds[0] += LOOKUP_AGAIN
        sender.increment("trigger")
        settle(sender)
        sender.increment("first")
        agent.lines(1)
        for _ in range(2):
            seconds[0] += LOOKUP_EVERY
            sender.increment("trigger")
            settle(sender)
        agent.drain()
        sender.increment("last")
        assert agent.datagram() == "last:1|c\n"
        assert not answers
        sender.shut()


def test_a_lookup_under_way_is_not_joined_by_another() -> None:
    seconds = [100.0]
    lookups: list[str] = []
    released = threading.Event()

    def lookup(host: str, port: int) -> str:
        lookups.append(host)
        released.wait(30)
        return LOOPBACK

    sender = client(lookup, lambda: seconds[0], 8125)
    seconds[0] += LOOKUP_AGAIN
    sender.increment("count")
    assert lookups == ["agent.test"]
    released.set()
    settle(sender)
    sender.shut()


def test_without_threads_the_lookup_waits_for_better_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    seconds = [100.0]
    with Agent.udp() as agent:
        with monkeypatch.context() as context:
            context.setattr(threading.Thread, "start", no_more)
            sender = client(lambda host, port: LOOPBACK, lambda: seconds[0], agent.port)
            sender.increment("lost")
        assert agent.is_silent()
        seconds[0] += LOOKUP_AGAIN
        sender.increment("trigger")
        settle(sender)
        sender.increment("found")
        agent.until("found:1|c")
        sender.shut()


def test_threads_never_mix_their_lines(tmp_path: Path, buffer: bool, opened: Callable[..., StatsdMetrics]) -> None:
    with Agent.unix(tmp_path / "agent") as agent:
        metrics = opened(socket_path=str(tmp_path / "agent"), buffer=buffer)
        received: list[str] = []

        def read_all() -> None:
            while "end:1|c" not in received:
                received.extend(agent.datagram().splitlines())

        reader = threading.Thread(target=read_all)
        reader.start()

        def write(number: int) -> None:
            for turn in range(100):
                metrics.increment(f"thread.{number}.{turn}")
                time.sleep(0)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        while reader.is_alive():
            metrics.increment("end")
            reader.join(0.05)
        whole = {f"thread.{number}.{turn}:1|c" for number in range(8) for turn in range(100)}
        lines = [line for line in received if line != "end:1|c"]
        assert set(lines) <= whole
        assert len(lines) == len(set(lines)) > 0


def test_f21_a_forked_child_and_its_parent_both_send(tmp_path: Path, buffer: bool) -> None:
    program = f"""
import os
from sojourn_metrics_statsd import StatsdMetrics
metrics = StatsdMetrics(host="localhost", port=PORT, buffer={buffer})
metrics.increment("before")
descriptor = metrics._client.get_socket().fileno()
child = os.fork()
metrics.increment("child" if child == 0 else "parent")
if child == 0:
    metrics.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
metrics.increment("after")
"""
    with Agent.udp() as agent:
        done = subprocess.run(
            [sys.executable, "-c", program.replace("PORT", str(agent.port))],
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(agent.lines(4)) == ["after:1|c", "before:1|c", "child:1|c", "parent:1|c"]
        assert agent.is_silent()


def test_buffered_figures_leave_at_the_end_of_the_program() -> None:
    program = """
from sojourn_metrics_statsd import StatsdMetrics
metrics = StatsdMetrics(host="127.0.0.1", port=PORT, buffer=True)
metrics.increment("last")
"""
    with Agent.udp() as agent:
        command = [sys.executable, "-W", "error", "-c", program.replace("PORT", str(agent.port))]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert agent.datagram() == "last:1|c\n"


def test_closing_sends_what_is_buffered_and_then_drops(buffer: bool) -> None:
    with Agent.udp() as agent:
        metrics = StatsdMetrics(host=LOOPBACK, port=agent.port, buffer=buffer)
        metrics.increment("last")
        metrics.close()
        metrics.close()
        assert agent.datagram() == "last:1|c\n"
        metrics._client._rests_until = 0.0
        assert never_waits(lambda: metrics, 3)
        assert agent.is_silent()


def test_a_forgotten_sink_closes_its_socket(buffer: bool) -> None:
    with Agent.udp() as agent:
        metrics = StatsdMetrics(host=LOOPBACK, port=agent.port, buffer=buffer)
        metrics.increment("last")
        sender = metrics._client
        del metrics
        gc.collect()
        assert agent.datagram() == "last:1|c\n"
        assert sender.socket is None


def test_closing_ends_the_thread_of_the_buffer() -> None:
    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if "flush" in thread.name}

    before = threads()
    metrics = StatsdMetrics(buffer=True)
    assert len(threads() - before) == 1
    metrics.close()
    assert threads() <= before
