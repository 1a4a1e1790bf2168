"""Twenty requests write one session at once, under servers with two processes: each write counts (FAILURES F29)."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from sojourn import new_secret
from tests.real_servers.commands import arguments
from tests.real_servers.visitors import connected
from tests.servers import RedisServer
from tests.web_servers import WebServer

WRITERS = 20
SERVERS = [("fastapi", "uvicorn", ("/count", "/count-in-a-thread")), ("flask", "gunicorn-gthread", ("/count",))]


@pytest.mark.slow
@pytest.mark.parametrize("store", ["redis", "clustered-redis", "sql"])
def test_f29_of_twenty_writers_under_two_processes_none_is_refused_and_each_counts(
    store: str, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "SOJOURN_PRESET": "development",
        "SOJOURN_SECRET": new_secret(),
        "SOJOURN_STORE": store,
        "SOJOURN_REDIS_URL": redis_server.url,
        "SOJOURN_SQL_URL": f"sqlite:///{tmp_path}/sessions.db",
        "SOJOURN_SQL_CREATE": "true",
        # a busy machine is given time: nothing here is about an outage
        "SOJOURN_REDIS_TIMEOUT": "20s",
        "SOJOURN_SQL_TIMEOUT": "20s",
        "SOJOURN_REQUEST_DEADLINE": "60s",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sessions = connected().blocking
    with ExitStack() as stack:
        stack.callback(sessions.close)
        expected = 0
        cookies: dict[str, str] = {}

        def write(url: str) -> int:
            return httpx.post(url, cookies=cookies, timeout=120).status_code

        pool = stack.enter_context(ThreadPoolExecutor(WRITERS))
        for framework, kind, paths in SERVERS:
            server = WebServer(tmp_path, arguments(framework, kind, workers=2), variables)
            stack.callback(server.close)
            server.start()
            if not cookies:
                cookies.update(httpx.post(f"{server.url}/login?name=ada", timeout=60).cookies)
            for path in paths:
                assert Counter(pool.map(write, [server.url + path] * WRITERS)) == {200: WRITERS}
                expected += WRITERS
                (info,) = sessions.list("ada")
                found = sessions.read(info.id)
                assert found is not None
                assert found.data.count == expected
