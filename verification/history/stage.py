"""Where a run happens: which store, which processes, and what they share.

Everything here can be sent to a process that is started afresh.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final

from sojourn import Observer, SessionManager
from sojourn.settings import SessionSettings
from sojourn.stores import Store
from sojourn.stores.memory import MemoryStore
from verification.history.jars import Jars
from verification.history.model import Basket
from verification.history.plan import Sizes
from verification.history.plants import planted

SECRET: Final = "A" * 21 + "bcdefghijklmnopqrstuvA"
"""A fixed key: all processes, and the checker after them, open each other's records."""
START: Final = 600.0
"""Seconds that the processes wait for each other at the start, on a machine that may be busy."""
EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "sojourn-store-sqlite" / "src"


@dataclass(frozen=True, slots=True)
class Stage:
    """The set-up of one run."""

    store: str
    """redis, sql, example (the SQLite store of the examples) or memory; redis+redis and redis+sql: sessions move meanwhile."""
    place: str
    """The URL of the server or of the file, or the path of the example's; two URLs where sessions move."""
    folder: str
    """Where the processes leave their rows."""
    sizes: Sizes
    kinds: tuple[str, ...]
    """Of each process: async or blocking."""
    clients: tuple[int, ...]
    """Of each process: how many tasks or threads."""
    plant: str = ""
    """The bug that is planted, to see that it is found."""
    backoff: float = 0.1
    """Seconds that a client waits after it was told to come back later."""
    rest: float = 0.0
    """Seconds that a client rests between its operations."""
    most_bytes: int = 0
    """How large a session may be; 0 leaves it to production."""
    wait_replicas: int = 0
    """How many replicas shall confirm what ends a session."""

    def settings(self, **own: Any) -> SessionSettings:
        """Return the settings of every process: those of production."""
        limits: dict[str, Any] = own
        if self.most_bytes:
            limits |= {"max_session_bytes": self.most_bytes, "max_anonymous_bytes": self.most_bytes}
        return SessionSettings(_env_file=None, preset="production", secret=SECRET, namespace="history", **limits)

    def manager(
        self,
        *,
        plant: bool = True,
        store: Store | None = None,
        observers: Sequence[Observer] = (),
        process: int | None = None,
    ) -> SessionManager[Basket]:
        """Return a manager over *store*, or over one of its own."""
        if "+" in self.store:
            return self._moving_manager(observers, is_first=process is not None and process % 4 < 2)
        store = planted(store or self._store(), self.plant if plant else "")
        return SessionManager(Basket, store, settings=self.settings(), observers=observers)

    def _moving_manager(self, observers: Sequence[Observer], *, is_first: bool) -> SessionManager[Basket]:
        """Return the manager of a node of the first step, or of the second, of a change that switches encryption on, too."""
        (old, here), (new, there) = zip(self.store.split("+"), self.place.split(), strict=True)
        before, after = self._store(old, here, "before"), self._store(new, there, "after")
        store, fallback = (before, after) if is_first else (after, before)
        settings = self.settings(
            encrypt=not is_first,
            fallback_encrypt=is_first,
            fallback_moves=not is_first,
            fallback_until=datetime.now(UTC) + timedelta(hours=20),
        )
        return SessionManager(Basket, store, fallback_store=fallback, settings=settings, observers=observers)

    def _store(self, kind: str = "", place: str = "", namespace: str = "history") -> Store:
        place = place or self.place
        match kind or self.store:
            case "redis":
                from sojourn_store_redis import RedisStore

                return RedisStore.from_url(place, namespace=namespace, wait_replicas=self.wait_replicas)
            case "sql":
                from sojourn_store_sql import SqlStore

                own = {"timeout": 0.5, "connect_timeout": 0.5, "durable": False}
                return SqlStore.from_url(place, namespace=namespace, create=True, **own)
            case "example":
                if str(EXAMPLE) not in sys.path:
                    sys.path.append(str(EXAMPLE))
                from sojourn_store_sqlite.store import SqliteStore

                return SqliteStore(self.place, timeout=5.0, durable=False)
            case _:
                return MemoryStore(max_sessions=1_000_000)


class Shared:
    """What the processes of one run have in common while it runs."""

    def __init__(self, context: BaseContext, stage: Stage) -> None:
        self.jars = Jars(context, stage.sizes.browsers)
        self.done: Any = context.Array("Q", stage.sizes.clients, lock=False)
        """How many operations each client has done."""
        self.ready: Any = context.Barrier(len(stage.kinds) + 1)

    def total(self) -> int:
        """Return how many operations are done."""
        return sum(self.done)
