"""What a server is asked for ``sojourn doctor``: how it keeps what it holds, and whether the user has the rights of the store.

Each command that the store needs is tried on keys that no session has, which expire at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

from sojourn.errors import StoreUnavailableError
from sojourn.hookspecs import Finding
from sojourn.stores import Clock
from sojourn_store_redis.records import KeyNames, pack_name
from sojourn_store_redis.replication import WaitingTransport
from sojourn_store_redis.transport.commands import Argument, ShardedTransport, Transport

_log = logging.getLogger("sojourn_store_redis")

_MOST_SKEW: Final = 30.0
"""Seconds; half of what sessions bear between two nodes (FAILURES F18)."""
_NEARLY_FULL: Final = 0.9
_NOBODY: Final = "doctor" + "0" * 37
"""An id that no session has."""
_EVAL: Final = "return 1"
_NO_DIGEST: Final = "0" * 40


async def diagnose(
    transport: Transport, keys: KeyNames, clock: Clock, channel: bytes | None, replicas: int, *, listens: bool
) -> list[Finding]:
    """Return what is found on each server; *replicas* are to confirm the end of a session, and a store that *listens* is told.

    Raises StoreUnavailableError when a server does not answer.
    """
    is_cluster = isinstance(transport, ShardedTransport)
    found: list[Finding] = []
    for server in await transport.servers() if isinstance(transport, ShardedTransport) else (transport,):
        before = clock.time()
        skew = await _skew(server, clock)
        if skew is not None and abs(skew) > _MOST_SKEW + (clock.time() - before):
            found.append(
                Finding(
                    "clock",
                    f"the clock of this machine is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of redis at "
                    f"{server.address}: sessions end too late or too early beyond 60 s between two nodes; run NTP on both",
                )
            )
        info = await read_info(server)
        if info is not None:
            found += _of_server(server.address, info, replicas, is_cluster=is_cluster)
            if info.get("aof_enabled") == "0":
                found.append(await _unwritten(server))
    return found + await _rights(transport, keys, channel, waits=replicas > 0, listens=listens)


@contextmanager
def suppress_denied() -> Generator[None]:
    """Let the refusal of a command that the user may not give pass."""
    try:
        yield
    except StoreUnavailableError as error:
        if not error.kind.startswith("denied"):
            raise


async def read_info(server: Transport, *parts: str) -> Mapping[str, str] | None:
    """Return what INFO says, which redis-py alone has parsed; None where the user may not ask."""
    reply: Any = None
    with suppress_denied():
        reply = await server.execute("INFO", *parts)
    if reply is None:
        return None
    if isinstance(reply, Mapping):
        return {str(name): str(value) for name, value in cast("Mapping[str, object]", reply).items()}
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


async def _skew(server: Transport, clock: Clock) -> float | None:
    """Return how many seconds the server is ahead; None where the user may not ask."""
    with suppress_denied():
        seconds, _ = await server.execute("TIME")
        return float(seconds) - clock.time()
    return None


async def warn_of_eviction(transport: Transport) -> None:
    """Log a warning for each server that evicts, as far as the user may ask (FAILURES F14)."""
    for server in await transport.servers() if isinstance(transport, ShardedTransport) else (transport,):
        evicts = _eviction(server.address, await read_info(server, "memory") or {})
        if evicts is not None:
            _log.warning("%s", evicts)


def _eviction(address: str, info: Mapping[str, str]) -> str | None:
    policy = info.get("maxmemory_policy", "").strip()
    if policy in {"", "noeviction"}:
        return None
    return (
        f"redis at {address} evicts keys when its memory is full (maxmemory-policy {policy}): sessions would end early; set "
        "maxmemory-policy noeviction there"
    )


def _of_server(address: str, info: Mapping[str, str], replicas: int, *, is_cluster: bool) -> Iterator[Finding]:
    """Yield what is wrong with a server by its own words."""
    at = f"redis at {address}"
    evicts = _eviction(address, info)
    if evicts is not None:
        yield Finding("eviction", evicts)
    used, most = float(info.get("used_memory", 0)), float(info.get("maxmemory", 0))
    if most and used > _NEARLY_FULL * most:
        yield Finding(
            "memory",
            f"{at} uses {used / most:.0%} of its maxmemory: writes will be refused; raise it, or shorten timeouts",
        )
    for what, name in (("append-only file", "aof_last_write_status"), ("snapshot", "rdb_last_bgsave_status")):
        if info.get(name, "ok") != "ok":
            yield Finding("persistence", f"{at} could not write its {what}: look at its log and the room on its disk")
    if info.get("role") == "slave":
        yield Finding(
            "replication",
            f"{at} is a replica and takes no writes: name the primary in SOJOURN_REDIS_URL, or find it by "
            "redis+sentinel:// or redis+cluster://",
        )
    elif int(info.get("connected_slaves", 0)) < replicas:
        yield Finding(
            "replication",
            f"{at} has {info.get('connected_slaves', 0)} replicas, and SOJOURN_REDIS_WAIT_REPLICAS is {replicas}: every logout "
            "waits in vain and is reported as unconfirmed; bring the replicas back, or lower it",
        )
    elif info.get("connected_slaves") == "0":
        yield Finding("replication", f"{at} has no replica: while it is down nobody has a session", is_problem=False)
    if info.get("cluster_enabled") == "1" and not is_cluster:
        yield Finding("cluster", f"{at} is a node of a Redis Cluster: begin SOJOURN_REDIS_URL with redis+cluster://")


async def _unwritten(server: Transport) -> Finding:
    """Say what a restart of a server without an append-only file does."""
    what = "what was written since its last snapshot is lost, so who logged out meanwhile is logged in again"
    reply: Any = None
    with suppress(StoreUnavailableError):
        reply = await server.execute("CONFIG", "GET", "save")
    if isinstance(reply, list) and reply[-1] in {b"", ""}:
        what = "all sessions are lost, and everybody logs in again"
    return Finding(
        "persistence",
        f"redis at {server.address} writes no append-only file: when it restarts, {what}; set appendonly yes there",
    )


async def _rights(
    transport: Transport, keys: KeyNames, channel: bytes | None, *, waits: bool, listens: bool
) -> list[Finding]:
    """Try each command that the store needs; return a finding for all that were refused for one reason."""
    session, index = keys.session_key(_NOBODY), keys.index_key(_NOBODY)
    tries: list[tuple[Argument, ...]] = [
        ("SET", session, b"", "PX", 1000),
        ("GET", session),
        ("GETRANGE", session, 0, 1),
        ("SETRANGE", session, 0, b""),
        ("PTTL", session),
        ("PEXPIRE", session, 1000),
        ("UNLINK", session),
        ("ZADD", index, 0, b"doctor"),
        ("PEXPIRE", index, 1000),
        ("ZSCAN", index, 0),
        ("ZREM", index, b"doctor"),
        ("ZREMRANGEBYSCORE", index, 0, 0),
        ("EVAL", _EVAL, 1, session),
        ("EVALSHA", _NO_DIGEST, 1, session),
    ]
    if channel is not None:
        tries.append(("PUBLISH", channel, pack_name(_NOBODY)))
    listening: Transport | None = None
    denied: dict[str, None] = {}
    others: dict[str, str] = {}
    servers = await transport.servers() if isinstance(transport, ShardedTransport) else (transport,)
    everywhere: list[tuple[Argument, ...]] = [("SCAN", 0, "COUNT", 1), *([("WAIT", 0, 1)] if waits else [])]
    calls: list[tuple[Callable[..., Any], tuple[Argument, ...]]] = [(transport.execute, each) for each in tries]
    calls += [(server.execute, each) for server in servers for each in everywhere]
    if channel is not None and listens and isinstance(transport, WaitingTransport):
        calls.append((transport.execute, ("PING",)))
        # Last, and over connections that are closed then: one that listens takes no other command.
        listening = transport.dedicated()
        calls.append((listening.execute, ("SUBSCRIBE", channel)))
    for execute, command in calls:
        try:
            await execute(*command)
        except StoreUnavailableError as error:
            name = str(command[0])
            if error.kind.startswith("denied"):
                # Without the name of a command it is the key or the channel that the user may not touch.
                _, _, refused = error.kind.partition(": ")
                denied[f"+{refused}" if refused else _pattern(name, keys, channel)] = None
            elif name != "EVALSHA":
                others.setdefault(error.kind, name)
    if listening is not None:
        await listening.aclose()
    found = [
        Finding("writes", f"redis at {transport.address} refuses {name}: {kind}; docs/operations.md says what to do")
        for kind, name in others.items()
    ]
    if denied:
        found.append(
            Finding(
                "rights",
                f"the user of SOJOURN_REDIS_URL lacks rights on redis at {transport.address}: ACL SETUSER <user> "
                f"{' '.join(denied)} (docs/operations.md, a user of its own)",
            )
        )
    return found


def _pattern(command: str, keys: KeyNames, channel: bytes | None) -> str:
    if command in {"PUBLISH", "SUBSCRIBE"}:
        return f"&{(channel or b'').decode(errors='replace')}"
    start = keys.index if command.startswith("Z") else keys.session
    return f"~{start.decode()}*"
