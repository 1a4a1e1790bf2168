"""Several nodes of the shop behind one address, and a Redis for them: ``SOJOURN_STORE=clustered-redis NODES=3 python -m shop``.

Each node is a process of its own. Connections go to them in turn; a node that has died is passed over.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

from shop.levers import LEVERS, Levers
from sojourn.settings import SessionSettings

LOOPBACK = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
_CHUNK = 65_536


class NodesError(Exception):
    """The nodes cannot run; the message says why, and what to do."""


def serve(listener: socket.socket, words: str) -> None:
    """Serve with as many nodes as *words* say, until SIGINT or SIGTERM."""
    if not (words.isdecimal() and 0 < int(words) < 100):
        raise NodesError(f"NODES={words} is no number of nodes; try NODES=3")
    store = SessionSettings().store
    if store == "memory":
        msg = "nodes share no store in memory; SOJOURN_STORE=clustered-redis make demo NODES=3 starts a Redis for them"
        raise NodesError(msg)
    asyncio.run(_serve(listener, int(words), store))


@contextmanager
def _redis_for(store: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """Run a Redis where the store needs one and none is named; yield what the nodes have to know of it."""
    if not store.endswith("redis") or os.environ.get("SOJOURN_REDIS_URL"):
        yield {}
        return
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        msg = (
            f"the store {store} needs a redis-server in the PATH; install one, or name one that runs: SOJOURN_REDIS_URL"
        )
        raise NodesError(msg)
    with socket.create_server((LOOPBACK, 0)) as free:
        port: int = free.getsockname()[1]
    options = {"bind": LOOPBACK, "port": str(port), "dir": str(folder), "save": "", "appendonly": "no"}
    arguments = [program, *(word for name, value in options.items() for word in (f"--{name}", value))]
    log = folder / "redis.log"
    with log.open("wb") as output:
        # Ctrl-C does not reach it, nor the nodes, which end first.
        server = subprocess.Popen(arguments, stdout=output, stderr=output, start_new_session=True)  # noqa: S603 - no shell
    try:
        _wait_for(server, port, log)
        print(f"{Path(program).name}: {LOOPBACK}:{port}", flush=True)
        yield {"SOJOURN_REDIS_URL": f"redis://{LOOPBACK}:{port}/0"}
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < give_up:
        with suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
            return
        time.sleep(0.05)
    raise NodesError(f"the Redis did not start on port {port}:\n{log.read_text(errors='replace')}")


class Node:
    """One process of the shop."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process
        self._lines = cast("asyncio.StreamReader", process.stdout)

    @classmethod
    async def start(cls, name: str, variables: Mapping[str, str]) -> Node:
        """Start the shop on a port that is free."""
        environment = {**os.environ, **variables, "PORT": "0", "SOJOURN_NODE_ID": name}
        environment.pop("NODES", None)
        arguments = (sys.executable, "-m", "shop")
        process = await create_subprocess_exec(
            *arguments, env=environment, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        return cls(name, process)

    async def port(self) -> int:
        """Return the port from the line with which the shop begins."""
        seen = b""
        while line := await self._lines.readline():
            seen += line
            if line.startswith(b"The shop: "):
                return int(line.split()[2].rstrip(b"/").rpartition(b":")[2])
        raise NodesError(f"{self._name} did not start:\n{seen.decode(errors='replace')}")

    async def relay(self) -> None:
        """Print what the shop prints, with the name of the node before it."""
        while line := await self._lines.readline():
            print(f"{self._name}: {line.decode(errors='replace').rstrip()}", flush=True)
        print(f"{self._name} has ended", flush=True)

    async def stop(self) -> None:
        """End the process as a deployment does."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()


async def _serve(listener: socket.socket, count: int, store: str) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        levers = folder / "levers"
        levers.write_bytes(bytes(Levers.new()))
        variables = {LEVERS: str(levers), **stack.enter_context(_redis_for(store, folder))}
        nodes = []
        for place in range(count):
            nodes.append(await Node.start(f"node-{place + 1}", variables))
            stack.push_async_callback(nodes[-1].stop)
        ports = [await node.port() for node in nodes]
        await asyncio.start_server(Turns(ports).forward, sock=listener)
        address = f"http://{LOOPBACK}:{listener.getsockname()[1]}/"
        print(f"The shop: {address} on {count} nodes in turn (PORT changes the port, Ctrl-C ends them)", flush=True)
        relays = [asyncio.create_task(node.relay()) for node in nodes]
        await stopping.wait()
        await asyncio.gather(*(node.stop() for node in nodes), *relays)


class Turns:
    """Forward each connection to the next of several *ports*, as a load balancer does."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from its begin to its end."""
        for _ in range(len(self._ports)):
            port = self._ports.pop(0)
            self._ports.append(port)
            try:
                answers, requests = await asyncio.open_connection(LOOPBACK, port)
            except OSError:
                continue
            await asyncio.gather(_copy(reader, requests), _copy(answers, writer))
            return
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
