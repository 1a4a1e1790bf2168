"""What a session costs as things grow: sessions, entries, sessions of one user, size, requests in flight; and bytes.

The one rule: no part may grow faster than a plain dict, or the number of bytes, forces it to.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from random import Random

from benchmarks.scaling import entries, index, many, requests, weight
from benchmarks.scaling.section import Section
from benchmarks.suite import page
from benchmarks.suite.machine import cores, describe, pin
from benchmarks.suite.results import save_text
from benchmarks.suite.server import Running, redis_server

Part = Callable[[Running, Random], Section]

PARTS: dict[str, Part] = {
    "memory": lambda _redis, random: entries.memory_store(random),
    "cache": lambda _redis, random: entries.local_cache(random),
    "index-memory": lambda redis, _random: index.sessions_of_a_user("memory", redis),
    "index-redis": lambda redis, _random: index.sessions_of_a_user("redis", redis),
    "many-redis": lambda redis, _random: many.in_redis(redis),
    "many-cluster": lambda _redis, _random: many.in_cluster(),
    "many-memory": lambda _redis, _random: many.in_memory(),
    "size-memory": lambda redis, _random: requests.payload_size("memory", redis),
    "size-redis": lambda redis, _random: requests.payload_size("redis", redis),
    "in-flight": lambda redis, _random: requests.in_flight(redis),
    "writers": lambda redis, _random: requests.writers(redis),
    "bytes-memory": lambda _redis, _random: weight.in_memory(),
    "bytes-redis": lambda redis, _random: weight.in_redis(redis),
}


def run(arguments: argparse.Namespace) -> bool:
    """Measure the parts that --only names, or all; say whether a target was missed."""
    words = [word for word in arguments.only.replace(",", " ").split() if word]
    unknown = [word for word in words if word not in PARTS]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: scale has no such part; choose among: {', '.join(PARTS)}")
    measured, other = cores()
    sections = []
    with redis_server(other) as redis:
        pin(0, measured)
        head = describe(redis.program)
        for name in words or PARTS:
            if name == "cache" and find_spec("sojourn_store_redis.local_cache.protocol") is None:
                sys.stderr.write("left out: cache, for the clustered store is not there\n")
                continue
            section = PARTS[name](redis, Random(arguments.seed))
            redis.server.flush()
            sections.append(section)
            if not arguments.json:
                sys.stdout.write(f"{section}\n\n")
                sys.stdout.flush()
    if arguments.json:
        told = [{"title": one.title, "rows": one.rows, "verdicts": one.verdicts} for one in sections]
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    if arguments.save:
        text = "\n\n\n".join(str(one) for one in sections)
        save_text("scale", head, text)
        page.fill("scale", page.fenced(head, text))
    return any(one.missed for one in sections)
