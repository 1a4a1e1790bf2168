"""The servers of the benchmarks: started by them, pinned beside the clients, gone with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.suite.machine import pin
from tests.postgres import PostgresServer, find_programs
from tests.servers import RedisServer, find_program


@dataclass(frozen=True, slots=True)
class Running:
    """A server, and the program behind it."""

    server: RedisServer
    program: str

    @property
    def url(self) -> str:
        return self.server.url


@contextmanager
def redis_server(core: int | None) -> Iterator[Running]:
    """Start a server on *core*."""
    with RedisServer() as server:
        pin(server.pid, core)
        yield Running(server, find_program(server.engine))


@contextmanager
def postgres_url(core: int | None) -> Iterator[str]:
    """Start a PostgreSQL on *core* and return its URL."""
    with PostgresServer() as server:
        pin(server.pid, core)
        yield server.url


def postgres_program() -> str:
    """Return the program that ``postgres_url`` starts."""
    return str(find_programs() / "postgres")
