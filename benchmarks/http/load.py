"""Load on a server: wrk where it is installed, else a small asyncio client.

The one rule: requests are counted by whoever sent them, CPU by the system for the server's process alone.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.http.serving import Server
from benchmarks.suite.machine import pin
from tests.servers import LOOPBACK

SECONDS = 1
_COUNT = re.compile(r"(\d+) requests in")
_WRONG = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def describe() -> str:
    """Say who sends the requests."""
    return "wrk" if shutil.which("wrk") else "asyncio client"


def cpu_per_request(server: Server, connections: int, core: int | None) -> float:
    """Return the CPU seconds of one request to *server* under load, after a short warming up."""
    _send(server, connections, core, 0.5)
    before = _cpu_seconds(server.pid)
    count = _send(server, connections, core, SECONDS)
    return (_cpu_seconds(server.pid) - before) / count


def _send(server: Server, connections: int, core: int | None, seconds: float) -> int:
    """Send requests for so long; return how many were answered with 200."""
    if (wrk := shutil.which("wrk")) is None:
        return _send_ourselves(server, connections, core, seconds)
    command = [
        wrk,
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "-H",
        f"Cookie: {server.cookie}",
        server.url,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pin(process.pid, core)
    told, _ = process.communicate()
    if _WRONG.search(told) or "Socket errors" in told:
        raise RuntimeError(f"{server.name} failed under load:\n{told}")
    found = _COUNT.search(told)
    if found is None:
        raise RuntimeError(f"wrk said nothing of requests:\n{told}")
    return int(found.group(1))


def _send_ourselves(server: Server, connections: int, core: int | None, seconds: float) -> int:
    command = [
        sys.executable,
        "-m",
        "benchmarks.http.load",
        str(server.port),
        server.cookie,
        str(connections),
        str(seconds),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, text=True)
    pin(process.pid, core)
    told, _ = process.communicate()
    return int(told)


def _cpu_seconds(pid: int) -> float:
    """Return the user and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def _load(port: int, cookie: str, connections: int, seconds: float) -> int:
    """Send requests one after another on each of so many connections."""
    request = f"GET /read HTTP/1.1\r\nHost: {LOOPBACK}\r\nCookie: {cookie}\r\n\r\n".encode()
    until = time.monotonic() + seconds

    async def visit() -> int:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        count = 0
        while time.monotonic() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode("latin-1"))
            await reader.readexactly(2)
            count += 1
        writer.close()
        return count

    return sum(await asyncio.gather(*(visit() for _ in range(connections))))


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(_load(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))))
