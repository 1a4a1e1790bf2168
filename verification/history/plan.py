"""Who does what in which order, from a seed.

The plan knows no tokens and no clock; the same seed and sizes give the same plan on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

ACCOUNTS: Final = 2
"""How many accounts each browser logs into, so that it also logs in as another."""


class Kind(Enum):
    """What one operation does."""

    READ = "read"
    WRITE = "write"
    LOGIN = "login"
    ROTATE = "rotate"
    LOGOUT = "logout"
    DESTROY = "destroy"
    REVOKE = "revoke"
    REVOKE_ALL = "revoke-all"


_WEIGHTS: Final = {
    Kind.READ: 36.0,
    Kind.WRITE: 52.0,
    Kind.LOGIN: 5.0,
    Kind.ROTATE: 2.0,
    Kind.LOGOUT: 2.0,
    Kind.DESTROY: 0.5,
    Kind.REVOKE: 1.5,
    Kind.REVOKE_ALL: 1.0,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of the plan."""

    number: int
    """Unique in the whole run."""
    kind: Kind
    browser: int
    account: str
    """Whom a login binds, and whose sessions a revocation of all ends."""
    spares_own: bool
    """Whether a revocation of all leaves the browser's own session."""
    by_request: bool
    """Whether it goes through the middleware, else straight to the manager."""
    pause: float
    """Seconds between opening the session and committing it: what a handler takes."""
    weight: int = 0
    """How large a write makes the session, in bytes; 0 leaves it as it is."""
    gives_up_after: float | None = None
    """Seconds after which the client of an asynchronous operation is gone, and its task is cancelled."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a run is."""

    seed: int
    operations: int
    clients: int
    """Tasks and threads of all processes together; each has the next operation in flight when one is done."""
    browsers: int
    requests: float = 0.2
    """The share of operations that go through the middleware."""
    longest_pause: float = 0.004
    heavy: float = 0.0
    """The share of writes that make their session large."""
    heaviest: int = 200_000
    """How large at most, in bytes."""
    impatient: float = 0.0
    """The share of operations whose client gives up."""

    def of_client(self, client: int) -> int:
        """Return how many operations one client does."""
        return self.operations // self.clients + (client < self.operations % self.clients)


def owner_of(browser: int) -> str:
    """Return the tag that marks everything of one browser."""
    return f"b{browser}"


def steps(sizes: Sizes, client: int) -> Iterator[Step]:
    """Yield the operations of one client, one after the other."""
    draw = Random(f"{sizes.seed}/{client}")
    # Apart, so that a seed has the plan that it always had.
    more = Random(f"{sizes.seed}/{client}/weights")
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    for turn in range(sizes.of_client(client)):
        browser = draw.randrange(sizes.browsers)
        yield Step(
            number=turn * sizes.clients + client,
            kind=draw.choices(kinds, weights)[0],
            browser=browser,
            account=f"{owner_of(browser)}/{draw.randrange(ACCOUNTS)}",
            spares_own=draw.random() < 0.5,
            by_request=draw.random() < sizes.requests,
            pause=draw.random() * sizes.longest_pause if draw.random() < 0.3 else 0.0,
            weight=int(sizes.heaviest * more.random() ** 2) if more.random() < sizes.heavy else 0,
            gives_up_after=more.random() * 0.01 if more.random() < sizes.impatient else None,
        )
