"""A real server under load: CPU of uvicorn for one request on `read`, beside starsessions on the same Redis.

The one rule: only the server process is counted; the clients and Redis share the other core.
"""

from __future__ import annotations

import argparse
import json
import sys
from random import Random
from statistics import median

from benchmarks.http import load, serving
from benchmarks.suite import page
from benchmarks.suite.machine import cores, describe
from benchmarks.suite.report import columns
from benchmarks.suite.results import save_text
from benchmarks.suite.server import redis_server

TARGET = 0.15
CONNECTIONS = 64
STARTS = 4
"""How often the servers are started anew: where a process lies in memory moves its cost by up to a fifth."""


def run(arguments: argparse.Namespace) -> bool:
    """Load the servers in turn; say whether the target was missed."""
    measured, other = cores()
    random = Random(arguments.seed)
    rounds = max(3, arguments.rounds * 2 // 5)  # short ones: a shared machine changes its speed within seconds
    spent: dict[str, list[float]] = {name: [] for name in serving.NAMES}
    with redis_server(other) as redis:
        head = [
            *describe(redis.program),
            f"load: {load.describe()}, {CONNECTIONS} connections, servers started {STARTS} times",
        ]
        for start in range(STARTS):
            with serving.servers(redis.url, measured) as running:
                for server in running.values():
                    server.log_in()
                for _ in range(start, rounds, STARTS):
                    names = list(running)
                    random.shuffle(names)
                    for name in names:
                        spent[name].append(load.cpu_per_request(running[name], CONNECTIONS, other))
    alone, ours, theirs = (spent[name] for name in serving.NAMES)
    added = [(one - base, two - base) for base, one, two in zip(alone, ours, theirs, strict=True)]
    ratio = median(one / two for one, two in added)
    whole = median(one / two for one, two in zip(ours, theirs, strict=True))
    rows = [["server", "us of CPU a request", "of it the session"]]
    rows += [
        ["application alone", f"{median(alone) * 1e6:.0f}", "-"],
        ["sojourn on redis", f"{median(ours) * 1e6:.0f}", f"{median(one for one, _ in added) * 1e6:.0f}"],
        ["starsessions on redis", f"{median(theirs) * 1e6:.0f}", f"{median(two for _, two in added) * 1e6:.0f}"],
    ]
    is_missed = ratio > TARGET
    text = "\n".join(
        (
            columns(rows),
            "",
            f"session on `read`, of starsessions: {ratio:.2f}, target <= {TARGET:.2f}: {'MISSED' if is_missed else 'met'}",
            f"whole request, of starsessions: {whole:.2f}",
        )
    )
    told = {"session": ratio, "whole": whole, "rows": rows}
    sys.stdout.write(json.dumps(told) + "\n" if arguments.json else text + "\n")
    if arguments.save:
        save_text("http_load", head, text)
        page.fill("http_load", page.fenced(head, text))
    return is_missed
