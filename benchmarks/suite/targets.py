"""What fast means: the targets that the tables are held against; those of the floors are in instructions (`instructions.py`).

The one rule: a target is a ratio, to the best peer of the same store and scenario.
"""

from __future__ import annotations

from benchmarks.suite.contract import Contender, Driver, Kind
from benchmarks.suite.registry import CLUSTERED

_UNUSED = {"anon": 0.45, "untouched": 0.45}
OF_THE_BEST_PEER: dict[str, dict[str, float]] = {
    "cookie": {**_UNUSED, "read": 0.80, "write": 0.75, "create": 1.00},
    "memory": {**_UNUSED, "read": 0.35, "write": 0.55, "create": 0.90},
    "redis": {**_UNUSED, "read": 0.60, "write": 0.65, "create": 0.90},
    CLUSTERED: {**_UNUSED, "read": 0.17, "write": 0.90},
    "sql": {**_UNUSED, "read": 1.00, "write": 1.00, "create": 1.00},
}
"""By store, under ASGI; of `sql` under WSGI too."""
OF_THE_BEST_PEER_UNDER_WSGI: dict[str, float] = {**_UNUSED, "read": 0.45, "write": 0.40, "create": 0.50}
OF_THE_BEST_EQUAL: dict[str, float] = {"read": 0.25, "write": 0.25, "create": 0.35}
"""Of the best peer that protects as much: where sessions live in the cookie, one that encrypts."""
EQUALS = frozenset(("litestar-cookie", "aiohttp-cookie"))
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


def target_of(contender: Contender, scenario: str) -> float | None:
    """Return what ours may cost of the best peer, where the targets apply."""
    if not is_judged(contender, scenario):
        return None
    if contender.driver is Driver.WSGI and contender.store not in {CLUSTERED, "sql"}:
        return OF_THE_BEST_PEER_UNDER_WSGI.get(scenario)
    return OF_THE_BEST_PEER[contender.store].get(scenario)


def floor_of(contender: Contender) -> str:
    """Return the name of the floor under the same gateway."""
    return f"floor-{store_compared_with(contender)}-{contender.driver.value}"


def is_judged(contender: Contender, scenario: str) -> bool:
    """Tell whether the targets apply: on servers, untouched requests are judged with ``load="lazy"``, others without."""
    if store_compared_with(contender) not in {"redis", "sql"} or contender.driver is Driver.WSGI:
        return True
    return (scenario in {"anon", "untouched"}) == contender.name.endswith("-lazy")
