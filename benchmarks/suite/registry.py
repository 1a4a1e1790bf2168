"""Who takes part: every floor, every peer and our own middleware, store by store.

The one rule: peers are set up at their quickest: writing only changes, on one connection without time-outs.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.suite.contract import SCENARIOS, Contender, Driver, Kind

CLUSTERED = "clustered-redis"
STORES = ("cookie", "memory", "redis", CLUSTERED, "sql")
WITHOUT_ROTATION = ("anon", "untouched", "read", "write", "create")
FIRST_FOUR = ("anon", "untouched", "read", "write")


def _peers() -> list[Contender]:
    asgi, wsgi, aiohttp = Driver.ASGI, Driver.WSGI, Driver.AIOHTTP
    peers: list[tuple[str, str, Driver, str, tuple[str, ...], tuple[str, ...]]] = [
        ("starsessions", "starsessions", asgi, "starlette_peers", ("memory", "redis"), ()),
        ("starsessions", "starsessions, signed", asgi, "starlette_peers", ("cookie",), WITHOUT_ROTATION),
        ("redis-sdk", "fastapi-redis-sdk", asgi, "redis_sdk_peer", ("redis",), ()),
        ("litestar", "Litestar", asgi, "litestar_peer", ("cookie", "memory", "redis"), WITHOUT_ROTATION),
        ("aiohttp", "aiohttp-session", aiohttp, "aiohttp_peer", ("redis",), ()),
        ("aiohttp", "aiohttp-session, Fernet", aiohttp, "aiohttp_peer", ("cookie",), WITHOUT_ROTATION),
        ("flask", "Flask, signed", wsgi, "flask_peers", ("cookie",), WITHOUT_ROTATION),
        ("flask", "Flask-Session", wsgi, "flask_peers", ("memory", "redis"), ()),
        ("flask", "Flask-Session, SQLAlchemy", wsgi, "flask_peers", ("sql",), ()),
        ("django", "Django, signed", wsgi, "django_peers", ("cookie",), WITHOUT_ROTATION),
        ("django", "Django, locmem", wsgi, "django_peers", ("memory",), ()),
        ("django", "django-redis", wsgi, "django_peers", ("redis",), ()),
        ("django", "Django, database", wsgi, "django_peers", ("sql",), ()),
    ]
    found = [
        Contender(
            "starlette-cookie",
            "Starlette, signed",
            "cookie",
            Kind.PEER,
            asgi,
            "starlette_peers",
            "starlette",
            WITHOUT_ROTATION,
        )
    ]
    for name, label, driver, module, stores, only in peers:
        for store in stores:
            peer = Contender(f"{name}-{store}", label, store, Kind.PEER, driver, module, store)
            found.append(_only(peer, only) if only else peer)
    return found


def _only(contender: Contender, scenarios: tuple[str, ...]) -> Contender:
    return replace(contender, scenarios=scenarios)


def _floors() -> list[Contender]:
    labels = {
        "cookie": "floor: AES-GCM",
        "memory": "floor: dict and msgspec",
        "redis": "floor: one shared connection",
        "sql": "floor: psycopg alone",
    }
    found = []
    for store, label in labels.items():
        for driver, module in ((Driver.ASGI, "floors"), (Driver.WSGI, "floors_wsgi")):
            text = "floor: one connection" if driver is Driver.WSGI and store == "redis" else label
            found.append(Contender(f"floor-{store}-{driver.value}", text, store, Kind.FLOOR, driver, module, store))
    fair = [
        Contender(
            f"fair-{store}-asgi", "fair floor", store, Kind.FLOOR, Driver.ASGI, "fair_floors", store, WITHOUT_ROTATION
        )
        for store in STORES[:3]
    ]
    pool = Contender(
        "floor-redis-pool", "redis-py as it comes", "redis", Kind.FLOOR, Driver.ASGI, "floors", "redis-pool"
    )
    return [*found, *fair, pool]


def _ours(*, clustered: bool) -> list[Contender]:
    found = [
        Contender(
            f"sojourn-{store}-{driver.value}",
            f"sojourn, {driver.value.upper()}",
            store,
            Kind.OURS,
            driver,
            "ours",
            f"{store}/{driver.value}",
            FIRST_FOUR if store == CLUSTERED else tuple(SCENARIOS),
        )
        for store in STORES
        if clustered or store != CLUSTERED
        for driver in (Driver.ASGI, Driver.WSGI)
    ]
    found += [
        Contender(
            f"sojourn-{store}-lazy",
            'sojourn, ASGI, load="lazy"',
            store,
            Kind.OURS,
            Driver.ASGI,
            "ours",
            f"{store}/asgi/lazy",
            FIRST_FOUR if store == CLUSTERED else tuple(SCENARIOS),
        )
        for store in ("redis", CLUSTERED, "sql")
        if clustered or store != CLUSTERED
    ]
    return found


def contenders(*, clustered: bool) -> list[Contender]:
    """Return all contenders, those of one store together; *clustered* when that store is installed."""
    everybody = [*_floors(), *_peers(), *_ours(clustered=clustered)]
    return sorted(everybody, key=lambda one: STORES.index(one.store))


FRAMEWORKS = {
    "Flask": ("flask-redis", ("mapping", "typed")),
    "Django": ("django-redis", ("mapping", "typed")),
    "FastAPI": ("fastapi-redis", ("typed", "lazy")),
    "Litestar": ("litestar-redis", ("mapping", "typed", "lazy")),
    "aiohttp": ("aiohttp-redis", ("typed", "lazy")),
}
"""For each framework the sessions that its applications have without us, and how ours are reached."""
_DRIVERS = {"Flask": Driver.WSGI, "Django": Driver.WSGI, "aiohttp": Driver.AIOHTTP}


def adapters() -> dict[str, list[Contender]]:
    """Return by framework what its applications keep sessions in without us, and our adapter, all on Redis."""
    peers = {one.name: one for one in _peers()}
    peers["fastapi-redis"] = Contender(
        "fastapi-redis", "starsessions", "redis", Kind.PEER, Driver.ASGI, "fastapi_peer", "redis"
    )
    return {
        framework: [
            peers[peer],
            *(
                Contender(
                    f"adapter-{framework.lower()}-{how}",
                    f"sojourn, {how}",
                    "redis",
                    Kind.OURS,
                    _DRIVERS.get(framework, Driver.ASGI),
                    "adapters",
                    f"{framework.lower()}/{how}",
                )
                for how in ours
            ),
        ]
        for framework, (peer, ours) in FRAMEWORKS.items()
    }


def is_clustered_installed() -> bool:
    """Tell whether a plugin offers the clustered store."""
    from importlib.metadata import entry_points

    return any(point.name == f"store-{CLUSTERED}" for point in entry_points(group="sojourn"))


def find(name: str) -> Contender:
    """Return the contender of that name."""
    everybody = [*contenders(clustered=True), *(one for found in adapters().values() for one in found)]
    return next(one for one in everybody if one.name == name)
