"""Servers of uvicorn, one for each of the compared applications, each in a process of its own on the same core.

The one rule: all three run the same Starlette application; only the session differs.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from benchmarks.suite.answers import application
from benchmarks.suite.contenders import ours, starlette_peers
from benchmarks.suite.contract import Place
from benchmarks.suite.machine import pin
from benchmarks.suite.payload import Witness
from benchmarks.suite.results import ROOT
from tests.servers import LOOPBACK, free_port

NAMES = ("alone", "sojourn", "starsessions")
START_SECONDS = 30.0


class Server:
    """One running server."""

    def __init__(self, name: str, redis_url: str, core: int | None) -> None:
        self.name = name
        self.port = free_port()
        self.cookie = ""
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.http.serving", name, str(self.port), redis_url]
        self._process = subprocess.Popen(command, cwd=ROOT)
        pin(self._process.pid, core)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/read"

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                self._get("/plain")
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"the server of {self.name} did not start")

    def log_in(self) -> None:
        """Get the cookie that the load is sent with, and see that it is good for reading."""
        answer = self._get("/login")
        self.cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        if self.name != "alone" and (not self.cookie or self._get("/read").status != 200):
            raise RuntimeError(f"{self.name} does not read the session that it made")

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()

    def _get(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        connection.request("GET", path, headers={"Cookie": self.cookie} if self.cookie else {})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer


@contextmanager
def servers(redis_url: str, core: int | None) -> Iterator[dict[str, Server]]:
    """Start all servers and wait for them."""
    running: dict[str, Server] = {}
    try:
        for name in NAMES:
            running[name] = Server(name, redis_url, core)
        for server in running.values():
            server.wait()
        yield running
    finally:
        for server in running.values():
            server.stop()


def main() -> None:
    """Serve one application until told to stop."""
    name, port, redis_url = sys.argv[1:4]
    os.environ["PYTHONHASHSEED"] = "0"
    place, witness = Place(redis_url), Witness()
    if name == "alone":
        app = application(None)
    elif name == "sojourn":
        app = ours.build("redis/asgi", place, witness).with_sessions
    else:
        app = starlette_peers.build("redis-pool", place, witness).with_sessions
    uvicorn: Any = import_module("uvicorn")
    uvicorn.run(app, host=LOOPBACK, port=int(port), log_level="error", access_log=False, lifespan="off", http="h11")


if __name__ == "__main__":
    main()
