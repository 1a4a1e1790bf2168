"""Where the time of our own requests goes, function by function, for each store and scenario.

The one rule: a profile shows proportions, never costs: measuring every call makes small functions look dear.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import time
from io import StringIO

from benchmarks.suite.clients import AsgiClient, Jar
from benchmarks.suite.contenders import ours
from benchmarks.suite.contract import SCENARIOS, Place
from benchmarks.suite.machine import cores, describe
from benchmarks.suite.payload import Witness
from benchmarks.suite.registry import is_clustered_installed
from benchmarks.suite.results import save_text
from benchmarks.suite.server import redis_server

STORES = ("memory", "cookie", "redis", "clustered-redis")
SHOWN = ("untouched", "read", "write", "create")
REQUESTS = 2_000
LINES = 28


def run(arguments: argparse.Namespace) -> bool:
    """Profile ASGI requests on every store; nothing can be missed."""
    words = [word for word in arguments.only.replace(",", " ").split() if word]
    stores = [word for word in words if word in STORES] or [
        store for store in STORES if store != "clustered-redis" or is_clustered_installed()
    ]
    scenarios = [word for word in words if word in SCENARIOS] or SHOWN
    with redis_server(cores()[0]) as redis:
        head = describe(redis.program)
        for store in stores:
            text = "\n".join(asyncio.run(_profile(store, name, Place(redis.url))) for name in scenarios)
            sys.stdout.write(text)
            if arguments.save:
                save_text(f"profile-{store}", head, text)
    return False


async def _profile(store: str, scenario_name: str, place: Place) -> str:
    scenario = SCENARIOS[scenario_name]
    pair = ours.build(f"{store}/asgi", place, Witness())
    client = AsgiClient(pair.with_sessions)
    jar = Jar()
    await client.ask("/login", jar, 1, cookie="", keep=False)
    cookie = jar.cookie if scenario.sends_cookie else ""
    await client.ask(scenario.path, jar, 200, cookie=cookie, keep=scenario.keeps_cookie)
    cookie = jar.cookie if scenario.sends_cookie else ""
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    await client.ask(scenario.path, jar, REQUESTS, cookie=cookie, keep=scenario.keeps_cookie)
    profile.disable()
    if pair.close is not None:
        await pair.close()
    return f"{store}, {scenario_name}: {REQUESTS} requests, by time in the function itself\n{_table(profile)}\n"


def _table(profile: cProfile.Profile) -> str:
    """Return the functions that take longest themselves; file names without folders."""
    text = StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(LINES)
    lines = text.getvalue().splitlines()
    start = next(at for at, line in enumerate(lines) if "ncalls" in line)
    total = next(line.strip() for line in lines if "function calls" in line)
    return "\n".join([total, *(line.rstrip() for line in lines[start:] if line.strip())]) + "\n"
