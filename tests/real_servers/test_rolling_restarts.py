"""Two instances of an application, started anew one after the other while visitors never rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

import pytest

from sojourn import new_secret
from tests.real_servers.commands import MATRIX, RELOADING, arguments
from tests.servers import LOOPBACK, RedisServer
from tests.web_servers import WebServer

VISITORS = 3
WRITES = 40
"""Of one visit, under a session of its own."""
BETWEEN = 30
"""Acknowledged writes of each visitor before the next instance is started anew."""
GIVE_UP = 120.0


class Visitor(threading.Thread):
    """A browser that writes to both instances at once, and holds every answer against what it was told before."""

    def __init__(self, ports: Sequence[int], seed: int) -> None:
        super().__init__()
        self.acknowledged = self.unanswered = 0
        self.statuses: Counter[int] = Counter()
        self.visits: list[tuple[str, set[int], int]] = []
        """The cookie of each session, what was acknowledged in it, and how much was sent."""
        self.failure: Exception | None = None
        self.done = threading.Event()
        self._random = Random(seed)
        self._connections = {port: HTTPConnection(LOOPBACK, port, timeout=60) for port in ports}

    def run(self) -> None:
        try:
            while not self.done.is_set():
                self._visit()
            for cookie, acknowledged, sent in self.visits:
                for port in self._connections:
                    added = set(self._ask("GET", "/", cookie, port)[0]["added"])
                    assert acknowledged <= added <= set(range(sent)), acknowledged ^ added
        except Exception as error:
            self.failure = error
        finally:
            for connection in self._connections.values():
                connection.close()

    def _visit(self) -> None:
        cookie = self._ask("POST", "/login?name=ada")[1]
        acknowledged: set[int] = set()
        for number in range(0, WRITES, 2):
            acknowledged |= self._write(cookie, number, number + 1)
            if self._random.random() < 0.1:
                shown = self._ask("GET", "/", cookie)[0]
                assert acknowledged <= set(shown["added"])
                assert shown["principal"] == "ada"
        self.visits.append((cookie, acknowledged, WRITES))

    def _write(self, cookie: str, *numbers: int) -> set[int]:
        """Send one number to each instance before either has answered; return those that were acknowledged."""
        asked = []
        ports = self._random.sample([*self._connections], 2)
        for number, port in zip(numbers, ports, strict=True):
            if self._send(port, "POST", f"/add?number={number}", cookie):
                asked.append((number, port))
        answers = {number: self._answer(port) for number, port in asked}
        found = {number for number, answer in answers.items() if answer is not None}
        self.acknowledged += len(found)
        return found

    def _ask(self, method: str, path: str, cookie: str = "", port: int = 0) -> tuple[dict[str, Any], str]:
        """Ask until one answers, as a balancer does; return the page and the cookie."""
        while True:
            asked = port or self._random.choice([*self._connections])
            if self._send(asked, method, path, cookie) and (answer := self._answer(asked)) is not None:
                return answer

    def _send(self, port: int, method: str, path: str, cookie: str) -> bool:
        connection = self._connections[port]
        try:
            connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
        except (OSError, HTTPException):
            self._lose(connection)
            return False
        return True

    def _answer(self, port: int) -> tuple[dict[str, Any], str] | None:
        connection = self._connections[port]
        try:
            response: HTTPResponse = connection.getresponse()
            body = response.read()
        except (OSError, HTTPException):
            self._lose(connection)
            return None
        self.statuses[response.status] += 1
        assert response.status == 200, (response.status, body)
        return json.loads(body), (response.getheader("Set-Cookie") or "").partition(";")[0]

    def _lose(self, connection: HTTPConnection) -> None:
        """Count a request without an answer; the instance is given a moment."""
        self.unanswered += 1
        connection.close()
        time.sleep(0.05)


def wait_for_writes(visitors: list[Visitor]) -> None:
    """Wait until each visitor has written so much more."""
    wanted = [visitor.acknowledged + BETWEEN for visitor in visitors]
    give_up = time.monotonic() + GIVE_UP
    while any(visitor.acknowledged < number for visitor, number in zip(visitors, wanted, strict=True)):
        for visitor in visitors:
            assert visitor.failure is None, visitor.failure
        assert time.monotonic() < give_up, [visitor.acknowledged for visitor in visitors]
        time.sleep(0.01)


def processes(instance: WebServer) -> set[str]:
    """Return the processes that answer, as far as twenty answers tell."""
    found: set[str] = set()
    for _ in range(20):
        with urlopen(f"{instance.url}/healthz", timeout=60) as answer:
            found.add(answer.read().decode().strip('"'))
    return found


def reload(instance: WebServer) -> None:
    """Have the server put new processes into the place of its own, without closing the port."""
    before, now = processes(instance), set[str]()
    instance.send(signal.SIGHUP)
    give_up = time.monotonic() + GIVE_UP
    while not now or now & before:
        assert time.monotonic() < give_up, f"{before} still answer"
        try:
            now = processes(instance)
        except OSError:
            now.clear()
        time.sleep(0.05)


@contextmanager
def visited(
    command: list[str], variables: dict[str, str], folder: Path
) -> Generator[tuple[list[WebServer], list[Visitor]]]:
    """Yield two servers and who visits them without a rest; at the end nobody may have missed anything."""
    with ExitStack() as stack:
        instances = [stack.enter_context(WebServer(folder, command, variables)) for _ in range(2)]
        visitors = [Visitor([one.port for one in instances], seed) for seed in range(VISITORS)]
        for visitor in visitors:
            visitor.start()
        try:
            wait_for_writes(visitors)
            yield instances, visitors
        finally:
            for visitor in visitors:
                visitor.done.set()
            for visitor in visitors:
                visitor.join()
        assert [visitor.failure for visitor in visitors] == [None] * VISITORS
        assert [line for instance in instances for line in instance.tracebacks()] == []
        statuses = sum((visitor.statuses for visitor in visitors), Counter[int]())
        print(
            f"{sum(len(visitor.visits) for visitor in visitors)} sessions, "
            f"{sum(visitor.acknowledged for visitor in visitors)} writes acknowledged and there, statuses {dict(statuses)}, "
            f"unanswered {sum(visitor.unanswered for visitor in visitors)}"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "server", "rounds"),
    [
        ("flask", "waitress", 1),
        *(pytest.param(*pair, 2, marks=pytest.mark.long, id="-".join(pair)) for pair in MATRIX),
    ],
)
def test_a_rolling_restart_under_load_loses_nothing(
    framework: str, server: str, rounds: int, variables: dict[str, str], tmp_path: Path
) -> None:
    with visited(arguments(framework, server), variables, tmp_path) as (instances, visitors):
        assert sum(visitor.unanswered for visitor in visitors) == 0
        for _ in range(rounds):
            for instance in instances:
                instance.restart()
                wait_for_writes(visitors)
        restarted = sum(visitor.unanswered for visitor in visitors)
        if rounds > 1 and server.startswith(RELOADING):
            for instance in instances:
                reload(instance)
                wait_for_writes(visitors)
    unanswered = sum(visitor.unanswered for visitor in visitors)
    print(f"{framework} {server}: {restarted} unanswered in {2 * rounds} restarts, {unanswered - restarted} in reloads")


def with_keys(variables: dict[str, str], *active: str, retired: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of a deployment with these secrets."""
    others = {name: value for name, value in variables.items() if name != "SOJOURN_SECRET"}
    keys = {"SOJOURN_SECRETS": json.dumps(active), "SOJOURN_RETIRED_SECRETS": json.dumps(retired)}
    return {**others, **keys, "SOJOURN_REPORT_NODE": "true"}


def sojourn(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run the command in the environment of a deployment."""
    done = subprocess.run(
        [sys.executable, "-m", "sojourn", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
def test_r45_a_rotation_of_keys_under_load_logs_nobody_out(
    variables: dict[str, str], shared_redis_server: RedisServer, tmp_path: Path
) -> None:
    """Each deployment waits for what `sojourn keys rotate --step` says of it, and visitors never rest."""
    shared_redis_server.flush()
    old, new = new_secret(), new_secret()
    before = with_keys(variables, old)
    known = with_keys(variables, old, retired=[new])
    sealing = with_keys(variables, new, retired=[old])
    after = with_keys(variables, new)
    asked: list[str] = []

    def ask(environment: dict[str, str]) -> int:
        code, told = sojourn(environment, "keys", "rotate", "--step")
        asked.append(f"{code} {told.strip()}")
        return code

    with visited(arguments("fastapi", "uvicorn"), before, tmp_path) as (instances, visitors):
        for environment, too_early in ((known, sealing), (sealing, after), (after, None)):
            if environment is after:
                assert sojourn(sealing, "sessions", "rekey")[0] == 0
            # A process that did not end in time is seen for five minutes.
            give_up = time.monotonic() + 400
            while ask(environment) != 0:
                assert time.monotonic() < give_up, asked[-1]
                time.sleep(5)
            assert too_early is None or ask(too_early) == 1, asked[-1]
            for instance in instances:
                instance.variables = environment
                instance.restart()
                wait_for_writes(visitors)
    print("\n".join(dict.fromkeys(asked)))
