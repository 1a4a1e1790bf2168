"""What a contender is: an application with sessions beside the same one without, driven in-process.

The one rule: both serve the same paths with the same routing, so that their difference is the session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

SECRET = "m0n7sYw4cKpL1vQ8xZdR5uTgBhEjNaFoIqS2WyX9CkE"


class Kind(Enum):
    """Why something is measured."""

    FLOOR = "floor"
    PEER = "peer"
    OURS = "sojourn"


class Driver(Enum):
    """How requests reach a contender."""

    ASGI = "asgi"
    WSGI = "wsgi"
    AIOHTTP = "aiohttp"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to measure: the *path* asked for, and what the client does with its cookie."""

    name: str
    path: str
    sends_cookie: bool
    keeps_cookie: bool = False
    """Whether the cookie of each answer goes with the next request."""
    writes: bool = False


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("anon", "/plain", sends_cookie=False),
        Scenario("untouched", "/plain", sends_cookie=True),
        Scenario("read", "/read", sends_cookie=True),
        Scenario("write", "/write", sends_cookie=True, keeps_cookie=True, writes=True),
        Scenario("create", "/login", sends_cookie=False),
        Scenario("rotate", "/rotate", sends_cookie=True, keeps_cookie=True),
    )
}
PATHS = ("/plain", "/read", "/write", "/login", "/rotate")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender is built."""

    redis_url: str
    postgres_url: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two applications of a contender, and what ends them."""

    with_sessions: Any
    without: Any
    close: Callable[[], Awaitable[None]] | None = None
    cache: Callable[[], Mapping[str, float]] | None = None
    """Figures of a local cache: ``lease`` says whether it serves, ``hits`` how often it did."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the tables; *module* has the function ``build(variant, place, witness)`` that returns a Pair."""

    name: str
    label: str
    store: str
    kind: Kind
    driver: Driver
    module: str
    variant: str
    scenarios: tuple[str, ...] = field(default=tuple(SCENARIOS))

    @property
    def is_sync(self) -> bool:
        return self.driver is Driver.WSGI
