"""Agents for the tests: a UDP socket, a unix datagram socket, and the real statsd server of npm."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.npm import installed
from tests.servers import free_port, release_port, require_mark

LOOPBACK = "127.0.0.1"
VERSION = "0.9.0"


class Agent:
    """Receive datagrams on a real socket."""

    def __init__(self, kind: socket.AddressFamily, address: str | tuple[str, int]) -> None:
        self.socket = socket.socket(kind, socket.SOCK_DGRAM)
        self.socket.bind(address)

    @classmethod
    def udp(cls, port: int = 0) -> Self:
        return cls(socket.AF_INET, (LOOPBACK, port))

    @classmethod
    def unix(cls, path: Path) -> Self:
        return cls(socket.AF_UNIX, str(path))

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def datagram(self, seconds: float = 30.0) -> str:
        """Return the next datagram; TimeoutError when none comes."""
        self.socket.settimeout(seconds)
        return self.socket.recv(65536).decode()

    def lines(self, count: int) -> list[str]:
        """Return that many lines; any surplus in the last datagram comes along."""
        lines: list[str] = []
        while len(lines) < count:
            lines += self.datagram().splitlines()
        return lines

    def until(self, line: str) -> list[str]:
        """Return the lines that come up to and with the one named."""
        lines: list[str] = []
        while line not in lines:
            lines += self.datagram().splitlines()
        return lines

    def is_silent(self, seconds: float = 0.1) -> bool:
        try:
            self.datagram(seconds)
        except TimeoutError:
            return True
        return False

    def drain(self) -> int:
        """Throw away what has arrived; return how much it was."""
        self.socket.setblocking(False)
        count = 0
        while True:
            try:
                self.socket.recv(65536)
            except BlockingIOError:
                return count
            count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


class StatsdServer:
    """Run the statsd server of npm with its console backend, which prints what it received every 100 ms."""

    def __init__(self, folder: Path) -> None:
        self.program = installed(f"statsd@{VERSION}") / "statsd" / "stats.js"
        self.folder = folder
        self.port, self.management_port = free_port(), free_port()
        self.output = folder / "console.txt"

    def __enter__(self) -> Self:
        require_mark()
        configuration = {
            "address": LOOPBACK,
            "port": self.port,
            "mgmt_address": LOOPBACK,
            "mgmt_port": self.management_port,
            "backends": ["./backends/console"],
            "flushInterval": 100,
        }
        path = self.folder / "statsd.json"
        path.write_text(json.dumps(configuration))
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                ["node", str(self.program), str(path)], stdout=output, stderr=subprocess.STDOUT
            )
        # It calls itself up before its socket is bound; the first flush comes later.
        self.wait_for(lambda: "Flushing stats" in self.output.read_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for port in (self.port, self.management_port):
            release_port(port)

    def wait_for(self, condition, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"statsd did not get there:\n{self.output.read_text()[-4000:]}")
            time.sleep(0.02)

    def counters(self) -> Counter[str]:
        """Return the sum of each counter over all flushes."""
        totals: Counter[str] = Counter()
        for block in re.findall(r"\bcounters: \{([^}]*)\}", self.output.read_text()):
            for name, value in re.findall(r"'?([\w.;=-]+)'?: ([\d.]+)", block):
                totals[name] += int(value)
        return totals

    def gauges(self) -> dict[str, float]:
        """Return the level of each gauge."""
        blocks = re.findall(r"\bgauges: \{([^}]*)\}", self.output.read_text())
        return {
            name: float(value) for block in blocks for name, value in re.findall(r"'?([\w.-]+)'?: (-?[\d.]+)", block)
        }

    def timers(self) -> dict[str, list[float]]:
        """Return the durations received under each name."""
        found: dict[str, list[float]] = {}
        for block in re.findall(r"\btimers: \{([^}]*)\}", self.output.read_text()):
            for name, values in re.findall(r"'?([\w.-]+)'?: \[([^\]]*)\]", block):
                found.setdefault(name, []).extend(float(value) for value in values.split(",") if value.strip())
        return found
