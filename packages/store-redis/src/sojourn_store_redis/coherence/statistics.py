"""The figures of a local cache.

The one rule: counters only rise; everything else is read off when it is asked for.
"""

from __future__ import annotations

from sojourn_store_redis.coherence.local_cache import LocalCache


class Statistics:
    """What happened so far."""

    __slots__ = (
        "announcements",
        "bypasses",
        "epochs",
        "fills",
        "hits",
        "losses",
        "misses",
        "pings",
        "refusals",
        "watchdog",
    )

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.bypasses = 0
        """Loads that found no lease."""
        self.fills = 0
        self.refusals = 0
        """Answers that were overtaken by an announcement or a new epoch and not kept."""
        self.announcements = 0
        self.epochs = 0
        self.losses = 0
        """Connections that were lost."""
        self.watchdog = 0
        """Connections that were given up for their silence."""
        self.pings = 0

    def figures(self, cache: LocalCache, *, tombstones: int, is_held: bool) -> dict[str, float]:
        """Return everything by name."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "fills": self.fills,
            "refusals": self.refusals,
            "evictions": cache.evictions,
            "expirations": cache.expirations,
            "size": len(cache),
            "max_size": cache.max_size,
            "bytes": cache.bytes,
            "max_bytes": cache.max_bytes,
            "tombstones": tombstones,
            "announcements": self.announcements,
            "epochs": self.epochs,
            "losses": self.losses,
            "watchdog": self.watchdog,
            "pings": self.pings,
            "lease": float(is_held),
        }
