"""How much a process keeps locally, and how old it may get.

The one rule: a limit that would break the guarantee is refused at start-up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from sojourn.errors import ConfigurationError
from sojourn_store_redis.coherence import Coherence, LocalCache

LONGEST_TTL = 60.0
"""Seconds that a copy may live at most, and that tombstones live at least."""
SHORTEST_STALENESS = 0.05
"""Seconds; below this, the round trips of the pings would take up the whole lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCacheLimits:
    """The limits of one process; times in seconds."""

    enabled: bool = True
    """Off: every load goes to the server; writes are announced all the same."""
    max_size: int = 10_000
    """The most copies."""
    max_bytes: int = 64 * 1024 * 1024
    """The most bytes that they take together, roughly."""
    ttl: float = 30.0
    """How long a copy is served without being read again."""
    max_staleness: float = 1.0
    """How long after a write was acknowledged an older copy may be served at most."""

    def __post_init__(self) -> None:
        for name in ("max_size", "max_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"SOJOURN_REDIS_LOCAL_CACHE_{name.upper()} must be at least 1; turn the cache off with "
                    "SOJOURN_REDIS_LOCAL_CACHE=false"
                )
        if not 0.0 < self.ttl <= LONGEST_TTL:
            raise ConfigurationError(
                f"SOJOURN_REDIS_LOCAL_CACHE_TTL must be over 0 and at most {LONGEST_TTL:g} seconds"
            )
        if not SHORTEST_STALENESS <= self.max_staleness <= LONGEST_TTL:
            raise ConfigurationError(
                f"SOJOURN_REDIS_MAX_STALENESS must be from {SHORTEST_STALENESS:g} to {LONGEST_TTL:g} seconds"
            )

    def coherence(self, primary_of: Callable[[str], Hashable]) -> Coherence:
        """Return the state of one process, empty; *primary_of* says which primary holds an id."""
        cache = LocalCache(max_size=self.max_size if self.enabled else 0, max_bytes=self.max_bytes, ttl=self.ttl)
        return Coherence(cache, max_staleness=self.max_staleness, primary_of=primary_of)
