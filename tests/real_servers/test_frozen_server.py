"""Redis is silent for a while under the servers that people run applications with, and comes back (FAILURES F28, F26)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from sojourn import new_secret
from tests.real_servers.commands import arguments
from tests.real_servers.test_servers import EVERYDAY
from tests.servers import RedisServer
from tests.web_servers import WebServer

FROZEN = 10.0
"""Seconds: two calls that get no answer, and several times as long as the breaker stays open then, so that probes fail."""
BACK_WITHIN = 20.0
"""Seconds from the server's return: ten times what is promised."""
GIVE_UP = 120.0


def is_served(server: WebServer, cookies: dict[str, str]) -> bool:
    """Tell whether the session is served; during an outage the answer is 503 and says when to come back."""
    answer = httpx.get(server.url, cookies=cookies, timeout=60)
    if answer.status_code == 200:
        assert answer.json()["principal"] == "ada"
        return True
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "set-cookie" not in answer.headers
    return False


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_f28_under_every_server_sessions_are_served_again_soon_after_the_store_is_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        variables = {
            "SOJOURN_PRESET": "development",
            "SOJOURN_SECRET": new_secret(),
            "SOJOURN_STORE": "redis",
            "SOJOURN_REDIS_URL": redis.url,
            "SOJOURN_BREAKER": "true",  # which the preset leaves out
            "SOJOURN_BREAKER_MINIMUM_CALLS": "2",
        }
        servers = [WebServer(tmp_path, arguments(*pair, workers=1), variables) for pair in EVERYDAY]
        for server in servers:
            stack.callback(server.close)
            server.start()
        cookies = dict(httpx.post(f"{servers[0].url}/login?name=ada", timeout=60).cookies)
        pool = stack.enter_context(ThreadPoolExecutor(len(servers)))

        def everybody(is_so: Callable[[WebServer], bool], seconds: float) -> None:
            list(pool.map(lambda server: wait_until(lambda: is_so(server), seconds), servers))

        everybody(lambda server: is_served(server, cookies), GIVE_UP)
        redis.freeze()
        frozen_until = time.monotonic() + FROZEN
        try:
            everybody(lambda server: not is_served(server, cookies) and time.monotonic() > frozen_until, GIVE_UP)
        finally:
            redis.thaw()
        everybody(lambda server: is_served(server, cookies), BACK_WITHIN)
    for server in servers:
        assert server.tracebacks() == []
