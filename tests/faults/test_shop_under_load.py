"""The shop, with visitors who hardly rest, while its Redis dies, freezes or swallows everything, and comes back."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.browser.shops import Shop
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import RedisServer

VISITORS = 6
DEADLINE = 2.0
PATIENCE = DEADLINE + 15.0
"""Seconds that a visitor waits for an answer: the deadline, and what a busy machine may add. Without one it never came."""
FAULT_SECONDS = 3.0
REST = 0.05
"""Seconds between two requests of a visitor: the time of an outage is for waiting, not for as many of them as fit."""
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class Answer(NamedTuple):
    status: int
    is_signed_in: bool
    sets_cookie: bool
    retry_after: str | None


class Visitor:
    """One browser; ``walk`` asks for the cart again and again in a thread."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=PATIENCE, headers={"accept": "text/html", "origin": url})
        self.answers: list[Answer] = []
        self.health: set[int] = set()
        self.failure: Exception | None = None

    def sign_in(self) -> None:
        self.http.post("/signin", data={"user": "ada", "password": "wander-far", "csrf": ""})
        csrf = _CSRF.search(self.http.get("/cart").text)
        assert csrf is not None
        added = self.http.post("/cart/add", data={"sku": "lantern", "csrf": csrf[1]})
        assert added.status_code == 303

    def look(self) -> Answer:
        reply = self.http.get("/cart")
        is_signed_in = "Signed in as" in reply.text and "Storm lantern" in reply.text
        return Answer(reply.status_code, is_signed_in, "set-cookie" in reply.headers, reply.headers.get("retry-after"))

    def walk(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.answers.append(self.look())
                self.health.add(self.http.get("/healthz").status_code)
                stop.wait(REST)
        except Exception as error:
            self.failure = error


@contextmanager
def trouble(kind: str, server: RedisServer, proxy: FaultProxy) -> Iterator[None]:
    match kind:
        case "killed":
            server.kill()
        case "frozen":
            server.freeze()
        case _:
            proxy.fault = Fault.BLACKHOLE
    try:
        yield
    finally:
        match kind:
            case "killed":
                server.restart()
            case "frozen":
                server.thaw()
            case _:
                proxy.heal()
                proxy.disconnect()  # what was swallowed never comes


def wait_until_all(visitors: list[Visitor], what: str, at: dict[int, int], *, signed_in: bool) -> None:
    until = time.monotonic() + 60.0
    for number, visitor in enumerate(visitors):
        while not any(answer.is_signed_in is signed_in for answer in visitor.answers[at[number] :]):
            assert visitor.failure is None, visitor.failure
            assert time.monotonic() < until, what
            time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("outages", [1, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("policy", ["strict", "degraded"])
@pytest.mark.parametrize("kind", ["killed", "frozen", "swallowing everything"])
def test_f1_every_request_is_answered_in_time_and_every_login_outlives_the_outage(
    tmp_path: Path, kind: str, policy: str, outages: int
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer("--appendonly", "yes", "--appendfsync", "always"))
        proxy = stack.enter_context(FaultProxy(server.port))
        variables = {"SOJOURN_STORE": "redis", "SOJOURN_REDIS_URL": proxy.url, "SOJOURN_ON_UNAVAILABLE": policy}
        shop = stack.enter_context(Shop(tmp_path, **variables, SOJOURN_REQUEST_DEADLINE=str(DEADLINE)))
        visitors = [Visitor(shop.url) for _ in range(VISITORS)]
        for visitor in visitors:
            stack.callback(visitor.http.close)
            visitor.sign_in()
        cookies = [dict(visitor.http.cookies) for visitor in visitors]
        stop = threading.Event()
        threads = [threading.Thread(target=visitor.walk, args=(stop,)) for visitor in visitors]
        for thread in threads:
            thread.start()
        try:
            wait_until_all(visitors, "nobody was served", dict.fromkeys(range(VISITORS), 0), signed_in=True)
            for _ in range(outages):
                with trouble(kind, server, proxy):
                    at = {number: len(visitor.answers) for number, visitor in enumerate(visitors)}
                    wait_until_all(visitors, "nobody noticed the outage", at, signed_in=False)
                    time.sleep(FAULT_SECONDS)
                at = {number: len(visitor.answers) for number, visitor in enumerate(visitors)}
                wait_until_all(visitors, "not everybody was served again", at, signed_in=True)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for visitor, cookie in zip(visitors, cookies, strict=True):
            assert visitor.failure is None, visitor.failure
            assert visitor.look().is_signed_in
            assert dict(visitor.http.cookies) == cookie
            assert visitor.health == {200}
            unserved = [answer for answer in visitor.answers if not answer.is_signed_in]
            assert not any(answer.sets_cookie for answer in visitor.answers)
            assert {answer.status for answer in unserved} == ({503} if policy == "strict" else {200})
            assert policy == "degraded" or all(int(answer.retry_after or 0) >= 1 for answer in unserved)
        assert "Traceback" not in shop.log.read_text()
