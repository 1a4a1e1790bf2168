"""What fast means: the targets that the tables are held against.

The one rule: a target is a ratio, to the best peer of the same store and scenario or to the floor.
"""

from __future__ import annotations

from benchmarks.suite.contract import Contender, Driver, Kind
from benchmarks.suite.registry import CLUSTERED

OF_THE_BEST_PEER: dict[str, dict[str, float]] = {
    "cookie": {"anon": 0.5, "untouched": 0.5, "read": 0.40, "write": 0.35, "create": 0.40},
    "memory": {"anon": 0.5, "untouched": 0.5, "read": 0.25, "write": 0.30, "create": 0.40},
    "redis": {"anon": 0.5, "untouched": 0.5, "read": 0.40, "write": 0.50, "create": 0.50},
    CLUSTERED: {"anon": 0.5, "untouched": 0.5, "read": 0.10, "write": 0.55},
}
OF_THE_FLOOR: dict[str, dict[str, float]] = {
    "cookie": {"anon": 2.0, "untouched": 2.0, "read": 1.35, "write": 1.35, "create": 1.35},
    "memory": {"anon": 2.0, "untouched": 2.0, "read": 2.0, "write": 2.0, "create": 2.0},
    "redis": {"anon": 2.0, "untouched": 2.0, "read": 1.35, "write": 1.35, "create": 1.35},
    CLUSTERED: {"anon": 2.0, "untouched": 2.0},
}
ORIGINAL_SEALED_WRITE = 108.0
"""Microseconds of the compiled original for read, change and save, sealed; only an order of magnitude elsewhere."""


def store_compared_with(contender: Contender) -> str:
    """Return the store whose peers and floors a contender is held against."""
    return "redis" if contender.store == CLUSTERED else contender.store


def peers_of(contender: Contender, everybody: list[Contender]) -> list[Contender]:
    """Return whom ours is held against: under ASGI every peer on that store, under WSGI those of WSGI."""
    store = store_compared_with(contender)
    peers = [one for one in everybody if one.kind is Kind.PEER and one.store == store]
    return [one for one in peers if one.is_sync] if contender.driver is Driver.WSGI else peers


def floor_of(contender: Contender) -> str:
    """Return the name of the floor under the same gateway."""
    return f"floor-{store_compared_with(contender)}-{contender.driver.value}"


def is_judged(contender: Contender, scenario: str) -> bool:
    """Tell whether the targets apply: on redis, untouched requests are judged with ``load="lazy"``, others without."""
    if store_compared_with(contender) != "redis" or contender.driver is Driver.WSGI:
        return True
    return (scenario in {"anon", "untouched"}) == contender.name.endswith("-lazy")
